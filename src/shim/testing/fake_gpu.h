// A GPU that runs only as far as a test tells it: streams are queues, a kernel takes as many
// nanoseconds of its clock as its function handle says, markers and events are carried out in
// stream order. Installed over the fake driver. Any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "src/abi/cuda.h"

namespace divvy::shim::testing {

class FakeGpu {
 public:
  struct Item {
    enum Kind { kKernel, kWrite, kEvent, kCopy, kHold } kind;
    uint64_t ns = 0;
    uint64_t address = 0, value = 0;
    CUevent event = nullptr;
  };

  // Puts itself into the driver's table; one at a time.
  explicit FakeGpu(unsigned devices = 1, bool memory_operations = true);
  ~FakeGpu();

  // Runs everything that is queued and what comes while it does so.
  void RunAll();
  // Runs up to and with the next `kernels` kernels of that stream, and the markers after them.
  void Run(CUstream stream, unsigned kernels = 1);
  // Runs the next thing that is queued there, whatever it is.
  void Step(CUstream stream);
  // What is queued: kernels, and words that a lane is still to get, in stream order.
  unsigned Kernels(CUstream stream);
  std::vector<uint64_t> Words(CUstream stream);
  unsigned Writes() const { return writes_; }  // markers ever queued
  unsigned Launched() const { return launched_; }
  // Runs by itself from now on: whatever is queued is done at once.
  void Free(bool yes) { free_ = yes; }
  // Nothing runs, but the next calls of that name fail.
  void FailNextLaunch(CUresult r) { fail_launch_ = r; }
  void FailWrites(CUresult r) { fail_writes_ = r; }
  void Capture(CUstream stream, bool yes);
  unsigned misplaced() const { return misplaced_; }  // own calls on a stream that is recorded
  unsigned registered() const { return registered_; }

  static FakeGpu& Get();

  // The driver's side.
  CUresult Queue(CUstream stream, Item item);
  void Sync(CUstream stream);
  CUresult QueryEvent(CUevent event);
  uint64_t TimeOf(CUevent event);
  bool Capturing(CUstream stream);
  CUresult TakeLaunchFailure() { return fail_launch_.exchange(CUDA_SUCCESS); }
  CUresult WriteFailure() const { return fail_writes_; }
  void CountRegistered() { ++registered_; }

 private:
  void Do(const Item& item);
  void DrainLocked(std::deque<Item>& queue);

  std::mutex mu_;
  std::map<uint64_t, std::deque<Item>> stream_;
  std::map<CUevent, uint64_t> event_time_;  // 0: recorded, not reached
  std::set<CUstream> capturing_;
  uint64_t clock_ns_ = 1;
  std::atomic<bool> free_{false};
  std::atomic<CUresult> fail_launch_{CUDA_SUCCESS}, fail_writes_{CUDA_SUCCESS};
  std::atomic<unsigned> writes_{0}, launched_{0}, misplaced_{0}, registered_{0};
};

// A kernel that takes so long.
inline CUfunction KernelOf(uint64_t ns) { return reinterpret_cast<CUfunction>(ns << 4); }

}  // namespace divvy::shim::testing
