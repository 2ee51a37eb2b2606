// A program may cancel a thread (pthread_cancel) that is inside one of our calls. Where we wait in
// functions of the C library that are cancellation points it would unwind through us, with locks
// held and descriptors open; so it is put off until the call is over. No system call.
#pragma once

#include <pthread.h>

namespace divvy::shim {

class NoCancellation {
 public:
  NoCancellation() noexcept { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~NoCancellation() { pthread_setcancelstate(before_, nullptr); }
  NoCancellation(const NoCancellation&) = delete;
  NoCancellation& operator=(const NoCancellation&) = delete;

 private:
  int before_ = PTHREAD_CANCEL_ENABLE;
};

}  // namespace divvy::shim
