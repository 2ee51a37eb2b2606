// Host threads of the model and the shim in them: the gate, the bound on work in flight, markers.
// The same rules as the shim's, in virtual time.
#include <algorithm>

#include "src/arbiter/model/world.h"

namespace divvy::arbiter::model {
namespace {

int64_t ToNs(double us) { return int64_t(us * 1000); }

}  // namespace

void World::Block(size_t index, Wait wait, DeviceIndex device, int64_t until) {
  Thread& t = threads_[index];
  t.wait = wait;
  t.wait_device = device;
  t.wait_since = now_;
  Shim& shim = ShimOf(t.tenant, device);
  ++shim.blocked;
  if (wait == Wait::kGate || wait == Wait::kBound) {
    ++shim.waiters;
    ++shim.waits;
  }
  timers_[index] = until;
}

void World::WakeBlocked(unsigned tenant, unsigned device, Wait what, int64_t at) {
  if (ShimOf(tenant, device).blocked == 0) return;
  for (size_t i = 0; i < threads_.size(); ++i) {
    Thread& t = threads_[i];
    if (t.tenant == tenant && t.wait == what && t.wait_device == device) {
      timers_[i] = std::min(timers_[i], at);
    }
  }
}

void World::QueueMarker(unsigned tenant, unsigned device, MarkerKind kind) {
  Shim& shim = ShimOf(tenant, device);
  shim.marked = shim.issued;
  shim.at_marker = shim.queued;
  Item item;
  item.kind = Item::Kind::kMarker;
  item.word = MarkerWord(shim.issued, kind);
  item.estimate = shim.queued;
  gpus_[device].Push(tenant, item, now_);
}

void World::MarkTail(unsigned tenant, unsigned device) {
  Shim& shim = ShimOf(tenant, device);
  TailTimer(tenant, device) = kNever;
  if (arbiter_ && shim.marked != shim.issued) QueueMarker(tenant, device, MarkerKind::kDone);
}

void World::OnMarker(unsigned tenant, unsigned device, const Item& marker, int64_t now) {
  Shim& shim = ShimOf(tenant, device);
  shim.marker = marker.word;
  shim.reached = marker.estimate;
  WakeBlocked(tenant, device, Wait::kBound, now + ToNs(mix_.machine.bound_wake_us));
}

void World::OnPop(unsigned tenant, unsigned device, int64_t now) {
  WakeBlocked(tenant, device, Wait::kQueue, now);
}

void World::OnDrained(unsigned tenant, unsigned device, int64_t now) {
  WakeBlocked(tenant, device, Wait::kSync, now + ToNs(mix_.machine.sync_wake_us));
}

bool World::MayProgress(unsigned tenant, unsigned, const Item& item) {
  if (item.kind == Item::Kind::kMeet) {
    const int partner = mix_.tenants[tenant].partner;
    return partner < 0 || only_ >= 0 || met_[partner] >= item.word;
  }
  for (unsigned d = 0; d < devices_; ++d) {
    if (!ShimOf(tenant, d).used) continue;
    const Item* running = gpus_[d].running(tenant);
    if (!running || running->kind != item.kind || running->word != item.word) return false;
  }
  return true;
}

void World::OnRendezvous(unsigned tenant, unsigned device, int64_t now) {
  const Item* item = gpus_[device].running(tenant);
  if (item && item->kind == Item::Kind::kMeet) met_[tenant] = std::max(met_[tenant], item->word);
  for (unsigned d = 0; d < devices_; ++d) {
    if (d != device) gpus_[d].Repace(now);
  }
}

// The gate: true if this submission may go now. Otherwise the thread is blocked.
bool World::PassGate(size_t index, const BoundStep& s, Shim& shim) {
  Thread& t = threads_[index];
  if (!arbiter_ || !joined_[t.tenant]) return true;
  const unsigned device = s.step.device;
  const Gate gate = arbiter_->GateOf(TenantIndex(t.tenant), DeviceIndex(device));
  if (!gate.open()) {
    MarkTail(t.tenant, device);
    Block(index, Wait::kGate, s.step.device, kNever);
    return false;
  }
  if (shim.idle() || t.force) return true;
  const double bound = double(arbiter_->tunables().Bound(gate.mode).count());
  const double estimate = s.sampler.mean_ns() * s.step.estimate;
  if (s.step.known && shim.in_flight() + estimate <= bound) return true;
  MarkTail(t.tenant, device);
  Block(index, Wait::kBound, s.step.device, now_ + 2000000 + int64_t(1.5 * shim.in_flight()));
  return false;
}

// Queues the step's operation. False: the thread is blocked and comes again.
bool World::Submit(size_t index, BoundStep& s) {
  Thread& t = threads_[index];
  const unsigned device = s.step.device;
  Gpu& gpu = gpus_[device];
  Shim& shim = ShimOf(t.tenant, device);
  if (gpu.depth(t.tenant) >= mix_.machine.queue_depth) {
    Block(index, Wait::kQueue, s.step.device, kNever);
    return false;
  }
  if (!PassGate(index, s, shim)) return false;
  t.force = false;
  int64_t host = s.launch.Draw(t.random);
  Item item;
  item.left = s.sampler.Draw(t.random);
  if (s.step.kind == StepKind::kCollective) {
    item.kind = Item::Kind::kCollective;
    item.word = ++t.meetings;
    item.left = s.sampler.At(t.meetings * 0x9e37);
  } else if (s.step.kind == StepKind::kMeet) {
    item.kind = Item::Kind::kMeet;
    item.word = ++t.meetings;
  }
  if (!arbiter_) {
    gpu.Push(t.tenant, item, now_);
    timers_[index] = now_ + host;
    return true;
  }
  if (shim.idle()) {
    shim.start = shim.issued;
    QueueMarker(t.tenant, device, MarkerKind::kStart);
    host += ToNs(mix_.machine.marker_us);
  }
  ++shim.issued;
  shim.queued += s.sampler.mean_ns() * s.step.estimate;
  gpu.Push(t.tenant, item, now_);
  GateMode mode = GateMode::kLone;
  if (joined_[t.tenant]) mode = arbiter_->GateOf(TenantIndex(t.tenant), s.step.device).mode;
  if (shim.queued - shim.at_marker >= double(arbiter_->tunables().Space(mode).count())) {
    QueueMarker(t.tenant, device, MarkerKind::kDone);
    host += ToNs(mix_.machine.marker_us);
    TailTimer(t.tenant, device) = kNever;
  } else {
    TailTimer(t.tenant, device) = now_ + ToNs(mix_.machine.tail_us);
  }
  timers_[index] = now_ + host;
  return true;
}

void World::AdvanceStep(Thread& t) {
  const Step& step = t.steps[t.pc].step;
  const bool repeats = step.kind != StepKind::kSync && step.kind != StepKind::kThink &&
                       step.kind != StepKind::kArrive;
  if (repeats && ++t.round < step.repeat) return;
  t.round = 0;
  t.pc = (t.pc + 1) % t.steps.size();
}

void World::RunThread(size_t index) {
  Thread& t = threads_[index];
  const MixTenant& tenant = mix_.tenants[t.tenant];
  if (tenant.stops_us >= 0 && now_ >= ToNs(tenant.stops_us) && only_ < 0) return;
  if (t.wait != Wait::kNone) {
    Shim& shim = ShimOf(t.tenant, t.wait_device);
    --shim.blocked;
    if (t.wait == Wait::kGate || t.wait == Wait::kBound) --shim.waiters;
    if (t.wait == Wait::kBound) {
      t.force = now_ - t.wait_since >= 2000000 && shim.in_flight() > 0 &&
                now_ - t.wait_since >= 2000000 + int64_t(1.5 * shim.in_flight());
    }
    t.wait = Wait::kNone;
  }
  for (int steps = 0;; ++steps) {
    if (steps > 100) {  // a program of nothing but waits that are over: time must pass
      timers_[index] = now_ + 1000;
      return;
    }
    BoundStep& s = t.steps[t.pc];
    const DeviceIndex device = s.step.device;
    switch (s.step.kind) {
      case StepKind::kKernel:
      case StepKind::kGraph:
      case StepKind::kCollective:
      case StepKind::kMeet:
        if (Submit(index, s)) AdvanceStep(t);
        return;
      case StepKind::kCopy: {
        Item item;
        item.kind = Item::Kind::kCopy;
        item.left = s.sampler.Draw(t.random);
        int64_t host = s.launch.Draw(t.random);
        if (arbiter_) {
          QueueMarker(t.tenant, device, MarkerKind::kPaused);
          gpus_[device].Push(t.tenant, item, now_);
          QueueMarker(t.tenant, device, MarkerKind::kStart);
          TailTimer(t.tenant, device) = kNever;
          host += 2 * ToNs(mix_.machine.marker_us);
        } else {
          gpus_[device].Push(t.tenant, item, now_);
        }
        timers_[index] = now_ + host;
        AdvanceStep(t);
        return;
      }
      case StepKind::kSync:
        if (!t.thought) {
          MarkTail(t.tenant, device);
          t.thought = true;
        }
        if (gpus_[device].depth(t.tenant) > 0) {
          Block(index, Wait::kSync, device, kNever);
          return;
        }
        t.thought = false;
        if (measuring_) latencies_[t.tenant].push_back(double(now_ - t.request_start) / 1000);
        t.request_start = now_;
        AdvanceStep(t);
        break;
      case StepKind::kThink:
        if (!t.thought) {
          t.thought = true;
          timers_[index] = now_ + std::max<int64_t>(s.sampler.Draw(t.random), 100);
          return;
        }
        t.thought = false;
        t.request_start = now_;
        AdvanceStep(t);
        break;
      case StepKind::kArrive:
        if (!t.thought) {
          t.thought = true;
          t.next_arrival += s.sampler.Draw(t.random);
          if (t.next_arrival > now_) {
            timers_[index] = t.next_arrival;
            return;
          }
        }
        t.thought = false;
        t.request_start = t.next_arrival;
        AdvanceStep(t);
        break;
    }
  }
}

}  // namespace divvy::arbiter::model
