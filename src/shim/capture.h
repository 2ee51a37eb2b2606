// The shim's own driver calls must not spoil a stream capture that any thread of the program has
// open: they run with this thread's capture interaction relaxed, and never on a capturing stream.
#pragma once

#include "src/abi/cuda.h"
#include "src/shim/driver.h"

namespace divvy::shim {

// Between construction and destruction this thread's calls are allowed beside any capture and do
// not invalidate one.
class RelaxedCapture {
 public:
  RelaxedCapture() noexcept : before_(CU_STREAM_CAPTURE_MODE_RELAXED) {
    exchanged_ = g_driver.cuThreadExchangeStreamCaptureMode(&before_) == CUDA_SUCCESS;
  }
  ~RelaxedCapture() {
    if (exchanged_) g_driver.cuThreadExchangeStreamCaptureMode(&before_);
  }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  CUstreamCaptureMode before_;
  bool exchanged_;
};

// Is work on this stream being recorded instead of done? Asks the driver only while the process has
// a capture open somewhere.
bool IsCapturing(CUstream stream, bool per_thread) noexcept;

}  // namespace divvy::shim
