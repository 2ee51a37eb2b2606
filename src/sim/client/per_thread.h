// What a null stream handle means in the call that this thread is in: the legacy NULL stream, or
// the thread's own default stream in the `_ptsz` and `_ptds` variants of a function.
#pragma once

namespace divvy::sim {

class PerThreadDefault {
 public:
  PerThreadDefault() : before_(on_) { on_ = true; }
  ~PerThreadDefault() { on_ = before_; }
  PerThreadDefault(const PerThreadDefault&) = delete;
  PerThreadDefault& operator=(const PerThreadDefault&) = delete;

  static bool on() { return on_; }

 private:
  bool before_;
  static inline thread_local bool on_ = false;
};

}  // namespace divvy::sim
