// The event loop, the polling thread and the measurements of the model.
#include "src/arbiter/model/world.h"

#include <algorithm>

namespace divvy::arbiter::model {
namespace {

int64_t ToNs(double us) { return int64_t(us * 1000); }

}  // namespace

World::World(const Mix& mix, uint64_t seed, const Tunables* tunables, int only)
    : mix_(mix), devices_(mix.machine.devices), only_(only), random_(seed * 7919 + 17) {
  const unsigned n = unsigned(mix.tenants.size());
  gpus_.reserve(devices_);
  for (unsigned d = 0; d < devices_; ++d) gpus_.emplace_back(d, n, mix.machine, *this);
  shims_.resize(n * devices_);
  met_.resize(n);
  latencies_.resize(n);
  joined_.resize(n);
  if (tunables) arbiter_ = std::make_unique<Arbiter>(std::max(n, 1u), devices_, *tunables);
  for (unsigned i = 0; i < n; ++i) {
    if (only >= 0 && unsigned(only) != i) continue;
    const MixTenant& tenant = mix.tenants[i];
    for (const Program& program : tenant.threads) {
      Thread t;
      t.tenant = i;
      t.random = Random(seed * 1000003 + threads_.size() * 101 + 7);
      for (const Step& step : program.steps) {
        t.steps.push_back({step, Sampler(step.duration), Sampler(step.launch)});
        ShimOf(i, step.device).used = true;
      }
      threads_.push_back(std::move(t));
    }
  }
  timers_.assign(threads_.size() + n * devices_ + devices_, kNever);
  for (size_t i = 0; i < threads_.size(); ++i) {
    const MixTenant& tenant = mix.tenants[threads_[i].tenant];
    timers_[i] = ToNs(tenant.joins_us) + random_.Below(100000);
    threads_[i].next_arrival = threads_[i].request_start = timers_[i];
  }
  if (arbiter_) {
    for (unsigned d = 0; d < devices_; ++d) timers_[timers_.size() - devices_ + d] = 0;
  }
}

// A tenant joins the arbiter with its first poll after it has arrived.
Progress World::Sample(unsigned tenant, unsigned device) {
  const Shim& s = ShimOf(tenant, device);
  Progress p{.paused = true};
  Fold({s.issued, s.start, s.marker}, p);
  p.waiters = s.waiters;
  p.waits = s.waits;
  switch (mix_.tenants[tenant].cheat) {
    case MixTenant::Cheat::kNone:
      break;
    case MixTenant::Cheat::kGarbage:
      p.issued = random_.Next();
      p.done = random_.Next();
      p.begun = random_.Next() & 1;
      break;
    case MixTenant::Cheat::kDoneAhead:
      p.done = p.issued + 5;
      break;
    case MixTenant::Cheat::kAlwaysWaits:
      p.waiters = 1;
      p.waits = uint64_t(now_);
      break;
    case MixTenant::Cheat::kAlwaysPaused:
      p.paused = true;
      break;
  }
  return p;
}

void World::Poll(unsigned device) {
  ++polls_;
  const unsigned n = unsigned(mix_.tenants.size());
  for (unsigned i = 0; i < n; ++i) {
    if (!ShimOf(i, device).used) continue;
    if (!joined_[i] && ToNs(mix_.tenants[i].joins_us) <= now_) {
      joined_[i] = 1;
      for (unsigned d = 0; d < devices_; ++d) {
        if (ShimOf(i, d).used) (void)arbiter_->Join(i, d, mix_.tenants[i].share, Nanos(now_));
      }
    }
    if (joined_[i]) arbiter_->Observe(i, device, Sample(i, device));
  }
  const Nanos next = arbiter_->Tick(device, Nanos(now_));
  for (TenantIndex i : arbiter_->Changed(device)) {
    if (!arbiter_->GateOf(i, device).open()) continue;
    const int64_t wake =
        now_ + ToNs(mix_.machine.gate_wake_us) / 2 + random_.Below(ToNs(mix_.machine.gate_wake_us));
    WakeBlocked(i, device, Wait::kGate, wake);
    WakeBlocked(i, device, Wait::kBound, wake);
  }
  timers_[timers_.size() - devices_ + device] =
      now_ + next.count() + random_.Below(ToNs(2 * mix_.machine.poll_late_us));
}

void World::RunUntil(Nanos until) {
  const size_t threads = threads_.size();
  const size_t polls = timers_.size() - devices_;
  for (;;) {
    size_t which = 0;
    int64_t at = kNever;
    for (size_t i = 0; i < timers_.size(); ++i) {
      if (timers_[i] < at) {
        at = timers_[i];
        which = i;
      }
    }
    for (unsigned d = 0; d < devices_; ++d) {
      if (gpus_[d].next_event() <= at) {
        at = gpus_[d].next_event();
        which = timers_.size() + 2 * d;
      }
      if (gpus_[d].next_copy_event() < at) {
        at = gpus_[d].next_copy_event();
        which = timers_.size() + 2 * d + 1;
      }
    }
    if (at > until.count()) {
      now_ = until.count();
      return;
    }
    now_ = at;
    if (which >= timers_.size()) {
      Gpu& gpu = gpus_[(which - timers_.size()) / 2];
      (which - timers_.size()) % 2 ? gpu.OnCopyTimer(now_) : gpu.OnTimer(now_);
      continue;
    }
    timers_[which] = kNever;
    if (which < threads) {
      RunThread(which);
    } else if (which < polls) {
      const unsigned shim = unsigned(which - threads);
      MarkTail(shim / devices_, shim % devices_);
    } else {
      Poll(unsigned(which - polls));
    }
  }
}

int64_t World::useful(unsigned tenant) const {
  int64_t sum = 0;
  for (const Gpu& g : gpus_) sum += g.useful(tenant);
  return sum;
}

TenantResult World::Snapshot(unsigned tenant) {
  TenantResult r;
  for (Gpu& g : gpus_) {
    g.Settle(now_);
    r.device_ns.push_back(double(g.useful(tenant)));
    r.useful_ns += double(g.useful(tenant));
    r.copied_ns += double(g.copied(tenant));
    r.operations += double(g.operations(tenant));
  }
  return r;
}

WorldResult World::Run() {
  const unsigned n = unsigned(mix_.tenants.size());
  RunUntil(Nanos(ToNs(mix_.warmup_seconds * 1e6)));
  std::vector<TenantResult> before;
  for (unsigned i = 0; i < n; ++i) before.push_back(Snapshot(i));
  uint64_t switches = 0;
  for (const Gpu& g : gpus_) switches += g.switches();
  const uint64_t polls = polls_;
  measuring_ = true;
  RunUntil(Nanos(now_ + ToNs(mix_.seconds * 1e6)));
  WorldResult out;
  out.seconds = mix_.seconds;
  double useful = 0;
  for (unsigned i = 0; i < n; ++i) {
    TenantResult r = Snapshot(i);
    r.useful_ns -= before[i].useful_ns;
    r.copied_ns -= before[i].copied_ns;
    r.operations -= before[i].operations;
    for (unsigned d = 0; d < devices_; ++d) r.device_ns[d] -= before[i].device_ns[d];
    r.latencies_us = std::move(latencies_[i]);
    useful += r.useful_ns;
    out.tenants.push_back(std::move(r));
  }
  uint64_t switched = 0;
  for (const Gpu& g : gpus_) switched += g.switches();
  out.busy = useful / (mix_.seconds * 1e9 * devices_);
  out.switches_per_second = double(switched - switches) / mix_.seconds;
  out.polls_per_second = double(polls_ - polls) / mix_.seconds;
  return out;
}

}  // namespace divvy::arbiter::model
