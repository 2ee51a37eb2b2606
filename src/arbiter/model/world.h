// The discrete-event model of one machine: hosts that run ahead, synchronise and think; the shim's
// gate and markers in them; GPUs; and the polling thread that drives the real Arbiter. Without the
// arbiter it is the native machine. Deterministic for a mix and a seed; one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "src/arbiter/arbiter.h"
#include "src/arbiter/model/gpu.h"
#include "src/arbiter/model/mix.h"

namespace divvy::arbiter::model {

// What one tenant got between the end of the warm-up and the end of the run.
struct TenantResult {
  double useful_ns = 0;  // GPU time that did its work, all devices
  double copied_ns = 0;  // copy engine time
  double operations = 0;
  std::vector<double> device_ns;     // useful_ns by device
  std::vector<double> latencies_us;  // of requests: from arrival, or the end of a think, to a sync
};
struct WorldResult {
  std::vector<TenantResult> tenants;
  double seconds = 0;
  double busy = 0;  // useful part of the devices' time
  double switches_per_second = 0;
  double polls_per_second = 0;
};

class World final : public GpuListener {
 public:
  // `only` >= 0: that tenant alone on the machine. `tunables` null: native.
  World(const Mix& mix, uint64_t seed, const Tunables* tunables, int only = -1);

  WorldResult Run();
  // Step by step, for tests: runs until `until`.
  void RunUntil(Nanos until);
  Arbiter* arbiter() { return arbiter_.get(); }
  int64_t useful(unsigned tenant) const;
  Nanos now() const { return Nanos(now_); }

  void OnMarker(unsigned tenant, unsigned device, const Item& marker, int64_t now) override;
  void OnPop(unsigned tenant, unsigned device, int64_t now) override;
  void OnDrained(unsigned tenant, unsigned device, int64_t now) override;
  bool MayProgress(unsigned tenant, unsigned device, const Item& item) override;
  void OnRendezvous(unsigned tenant, unsigned device, int64_t now) override;

 private:
  enum class Wait : uint8_t { kNone, kGate, kBound, kSync, kQueue };

  // The shim's part for one tenant on one device.
  struct Shim {
    bool used = false;
    uint64_t issued = 0;
    uint64_t start = 0;
    uint64_t marker = 0;
    uint64_t marked = 0;   // issued at the newest marker queued
    double queued = 0;     // estimated ns ever queued
    double reached = 0;    // ... before the newest marker reached
    double at_marker = 0;  // ... at the newest marker queued
    uint32_t waiters = 0;
    uint64_t waits = 0;
    unsigned blocked = 0;  // threads waiting for this stream, whatever for
    uint64_t garbage = 0;

    bool idle() const { return issued == marker >> 2; }
    double in_flight() const { return queued - reached; }
  };
  struct BoundStep {
    Step step;
    Sampler sampler;
    Sampler launch;
  };
  struct Thread {
    unsigned tenant = 0;
    std::vector<BoundStep> steps;
    size_t pc = 0;
    uint32_t round = 0;
    Wait wait = Wait::kNone;
    DeviceIndex wait_device = 0;
    int64_t wait_since = 0;
    bool force = false;    // a bounded wait ended by time
    bool thought = false;  // the present think or arrival has been waited for
    int64_t next_arrival = 0;
    int64_t request_start = 0;
    uint64_t meetings = 0;
    Random random{1};
  };

  Shim& ShimOf(unsigned tenant, unsigned device) { return shims_[tenant * devices_ + device]; }
  const Shim& ShimOf(unsigned tenant, unsigned device) const {
    return shims_[tenant * devices_ + device];
  }
  int64_t& ThreadTimer(size_t i) { return timers_[i]; }
  int64_t& TailTimer(unsigned tenant, unsigned device) {
    return timers_[threads_.size() + tenant * devices_ + device];
  }

  void RunThread(size_t index);
  void AdvanceStep(Thread& t);
  bool Submit(size_t index, BoundStep& s);
  bool PassGate(size_t index, const BoundStep& s, Shim& shim);
  void Block(size_t index, Wait wait, DeviceIndex device, int64_t until);
  void WakeBlocked(unsigned tenant, unsigned device, Wait what, int64_t at);
  void QueueMarker(unsigned tenant, unsigned device, MarkerKind kind);
  void MarkTail(unsigned tenant, unsigned device);
  void Poll(unsigned device);
  Progress Sample(unsigned tenant, unsigned device);
  TenantResult Snapshot(unsigned tenant);

  const Mix mix_;
  unsigned devices_;
  int only_;
  Random random_;
  std::vector<Gpu> gpus_;
  std::vector<Shim> shims_;
  std::vector<Thread> threads_;
  std::vector<uint64_t> met_;  // by tenant: meetings reached
  std::unique_ptr<Arbiter> arbiter_;
  std::vector<char> joined_;
  // One timer per thread, shim tail and polled device: what happens next is the least of them and
  // of the GPUs' own.
  std::vector<int64_t> timers_;
  std::vector<std::vector<double>> latencies_;
  bool measuring_ = false;
  uint64_t polls_ = 0;
  int64_t now_ = 0;
};

}  // namespace divvy::arbiter::model
