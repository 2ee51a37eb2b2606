// The modelled GPU: streams in order, one tenant on the engine at a time, round-robin slices with a
// switch cost, an immediate switch when a queue runs dry, and one copy engine beside it.
#pragma once

#include <cstdint>
#include <vector>

#include "src/arbiter/model/mix.h"

namespace divvy::arbiter::model {

constexpr int64_t kNever = INT64_MAX;

struct Item {
  enum class Kind : uint8_t { kWork, kCollective, kMeet, kCopy, kMarker };
  Kind kind = Kind::kWork;
  bool reached = false;  // a meeting that has begun
  int64_t left = 0;      // ns of work or copy
  uint64_t word = 0;     // marker: the value; collective, meeting: its number
  double estimate = 0;   // marker: estimated ns queued before it
};

// What the GPU tells the world.
class GpuListener {
 public:
  virtual void OnMarker(unsigned tenant, unsigned device, const Item& marker, int64_t now) = 0;
  virtual void OnPop(unsigned tenant, unsigned device, int64_t now) = 0;  // a place in the queue
  virtual void OnDrained(unsigned tenant, unsigned device, int64_t now) = 0;
  // May a collective or meeting at the head of the running stream progress?
  virtual bool MayProgress(unsigned tenant, unsigned device, const Item& item) = 0;
  // A collective or meeting began, ended or was taken off: others may change pace.
  virtual void OnRendezvous(unsigned tenant, unsigned device, int64_t now) = 0;

 protected:
  ~GpuListener() = default;
};

class Gpu {
 public:
  Gpu(unsigned device, unsigned tenants, const Machine& machine, GpuListener& listener);

  int64_t next_event() const { return next_; }
  int64_t next_copy_event() const { return copy_end_; }
  void OnTimer(int64_t now);
  void OnCopyTimer(int64_t now);
  void Push(unsigned tenant, const Item& item, int64_t now);
  // The pace of the running item may have changed.
  void Repace(int64_t now);

  size_t depth(unsigned tenant) const { return streams_[tenant].size(); }
  // The item that runs now, or null.
  const Item* running(unsigned tenant) const;

  int64_t useful(unsigned tenant) const { return streams_[tenant].useful; }
  int64_t copied(unsigned tenant) const { return streams_[tenant].copied; }
  uint64_t operations(unsigned tenant) const { return streams_[tenant].operations; }
  uint64_t switches() const { return switches_; }
  // Brings useful() up to date.
  void Settle(int64_t now);

 private:
  struct Stream {
    std::vector<Item> ring;
    size_t head = 0, tail = 0;
    bool runnable = false;
    bool copying = false;
    int64_t useful = 0, copied = 0;
    uint64_t operations = 0;

    bool empty() const { return head == tail; }
    size_t size() const { return tail - head; }
    Item& front() { return ring[head & (ring.size() - 1)]; }
    const Item& front() const { return ring[head & (ring.size() - 1)]; }
    void push(const Item& item);
    void pop() { ++head; }
  };

  void SetRunnable(unsigned tenant);
  void Dispatch(int64_t now);  // runs what can run, sets next_
  void SwitchAway(int64_t now);
  void SetTimer(int64_t now);
  void StartCopy(int64_t now);

  unsigned device_;
  int64_t slice_, switch_;
  GpuListener& listener_;
  std::vector<Stream> streams_;
  unsigned runnable_ = 0;
  int current_ = -1;  // on the engine, or being switched to
  int loaded_ = -1;   // whose state the engine holds
  bool switching_ = false;
  bool progressing_ = true;  // pace of the running item
  bool dispatching_ = false;
  bool slice_over_ = false;  // at the next boundary between items the engine is handed on
  int64_t slice_start_ = 0;
  int64_t slice_end_ = 0;
  int64_t settled_ = 0;
  int64_t next_ = kNever;
  std::vector<unsigned> copy_queue_;
  int64_t copy_end_ = kNever;
  uint64_t switches_ = 0;
};

}  // namespace divvy::arbiter::model
