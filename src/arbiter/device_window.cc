// The window of one device: when it ends, how it drains, who is next, which gates are open.
#include <algorithm>

#include "src/arbiter/device_arbiter.h"

namespace divvy::arbiter {
namespace {

constexpr int kCrowd = 32;  // tenants on one device

}  // namespace

// Used so much, in long operations, that whoever is behind goes first.
bool DeviceArbiter::FarAhead(const Seat& s) const {
  return s.slow(last_) && s.vt > v_[s.batch()] + kFarAhead * Ns(k_.window_longest) / s.part;
}

// Lights need no window: their gate is open. They compete for one only among themselves. Entangled
// seats do compete: a window is how the one that is behind catches up.
bool DeviceArbiter::Candidate(const Seat& s) const {
  return s.want && s.allowed() && (!s.light || wanting_heavy_ == 0) &&
         (!s.batch() || wanting_standard_ == 0) && !FarAhead(s);
}

bool DeviceArbiter::IsLeast(const Seat& h) const {
  for (TenantIndex t : active_) {
    const Seat& s = seats_[t];
    if (&s != &h && Candidate(s) && s.vt < h.vt) return false;
  }
  return true;
}

bool DeviceArbiter::WindowOver(const Seat& h) const {
  if (h.batch() && wanting_standard_ > 0) return true;
  if (h.light && wanting_heavy_ > 0) return true;
  if (end_asked_) return true;
  if (reserved_ != kNoTenant && reserved_ != holder_ && Candidate(seats_[reserved_]) &&
      (!h.gang || h.window >= Ns(k_.wake_shortest))) {
    return true;
  }
  const double turn = std::clamp(Ns(k_.period) * h.part / wanting_parts_, Ns(k_.window_shortest),
                                 Ns(k_.window_longest));
  if (h.window >= turn) {
    return !IsLeast(h);
  }
  // A woken tenant that is behind need not wait that long; least of all while the holder yields.
  if (!yielded_ && h.window < Ns(k_.wake_shortest)) return false;
  const double margin = yielded_ ? 0 : Ns(k_.window_longest) / 4;
  for (TenantIndex t : active_) {
    const Seat& s = seats_[t];
    if (s.woke && Candidate(s) && s.vt + margin / s.part < h.vt) return true;
  }
  return false;
}

void DeviceArbiter::EndWindow(Nanos now) {
  Seat& h = seats_[holder_];
  ended_ = holder_;
  end_asked_ = false;
  yielded_ = false;
  if (h.free() || ((!h.outstanding() || h.seen.paused) && !h.gang)) {
    h.missed_drains = 0;
    Pick();
    return;
  }
  phase_ = Phase::kDrain;
  drain_since_ = now;
}

void DeviceArbiter::Pick() {
  phase_ = Phase::kRun;
  TenantIndex next = kNoTenant;
  if (reserved_ != kNoTenant && Candidate(seats_[reserved_])) {
    next = reserved_;
  } else {
    for (TenantIndex t : active_) {
      const Seat& s = seats_[t];
      if (Candidate(s) && (next == kNoTenant || s.vt < seats_[next].vt)) next = t;
    }
  }
  reserved_ = kNoTenant;
  end_asked_ = false;
  yielded_ = catching_up_ = false;
  ran_ = 0;
  if (next != kNoTenant) {
    Seat& s = seats_[next];
    s.woke = false;
    s.window = 0;
    s.life = std::max(s.life, last_);
    window_since_ = last_;
    ++s.stats.windows;
    ++stats_.windows;
    if (next != holder_) granted_ = next;
  }
  holder_ = next;
}

// A drain that outlives its grace is given up. Twice running, the tenant probably waits for the one
// that comes next: both may co-run for a while.
void DeviceArbiter::GiveUpDrain(Nanos now) {
  const TenantIndex late = holder_;
  Seat& h = seats_[late];
  // Otherwise it is only slow, or waits for its own work on another device.
  // Of one that is distrusted nothing is known: its short drain says nothing.
  const bool stuck = h.trusted(now) && now - h.done_time >= k_.grace / 2 && !h.gang;
  h.missed_drains = stuck ? h.missed_drains + 1 : 0;
  ++h.stats.overruns;
  ++stats_.overruns;
  Pick();
  if (holder_ == kNoTenant || holder_ == late || !stuck) return;
  if (!seats_[holder_].trusted(now)) return;
  const bool again = h.entangle_for.count() > 0 && now - h.entangled_until < k_.entangled;
  if (h.missed_drains < 2 && !again) return;
  const Nanos length = again ? std::min(2 * h.entangle_for, k_.entangled_longest) : k_.entangled;
  for (Seat* s : {&h, &seats_[holder_]}) {
    s->entangle_for = length;
    s->entangled_until = now + length;
  }
}

void DeviceArbiter::MovePhase(Nanos now, const Elsewhere& elsewhere) {
  if (holder_ == kNoTenant) {
    if (wanting_ > 0) Pick();
    return;
  }
  Seat& h = seats_[holder_];
  const bool others_want = wanting_ > (h.want ? 1u : 0u);
  if (phase_ == Phase::kDrain) {
    const Nanos limit = h.trusted(now) ? k_.grace : k_.stall;
    // Ranks of one program must stop at the same place: while one is stuck in a collective, those
    // that have drained go on, one operation at a time.
    catching_up_ = elsewhere.draining && !h.outstanding();
    if (h.gang && h.outstanding() && elsewhere.newest > drain_since_) {
      phase_ = Phase::kRun;  // stranded here, and served there: go on together
      catching_up_ = false;
      window_since_ = drain_since_;
      h.window = 0;
      return;
    }
    if ((!h.outstanding() || h.seen.paused) && !elsewhere.draining) {
      h.missed_drains = 0;
      Pick();
    } else if (now - drain_since_ >= limit) {
      GiveUpDrain(now);
    } else if (!others_want && !FarAhead(h)) {
      phase_ = Phase::kRun;
      catching_up_ = false;
    }
    return;
  }
  if (!h.allowed()) {
    EndWindow(now);
  } else if (!h.want) {
    if (elsewhere.busy && now - h.empty_since < k_.gang_hold) return;
    ended_ = holder_;
    h.missed_drains = 0;
    Pick();
  } else if (FarAhead(h) || (others_want && WindowOver(h))) {
    EndWindow(now);
  } else {
    Yield(h);
  }
}

// While a light tenant wants, the holder's gate is shut: with little in flight its queue runs dry,
// and the hardware switches by itself.
void DeviceArbiter::Yield(const Seat& h) {
  const bool wanted = light_wants_ && !h.free();
  if (!yielded_ && wanted && (ran_ >= Ns(k_.shortest_run) || latency_wants_)) {
    yielded_ = true;
    ++stats_.yields;
  } else if (yielded_ && !wanted) {
    yielded_ = false;
    ran_ = 0;
  }
}

void DeviceArbiter::Reserve(TenantIndex t, bool stranded) {
  const Seat& s = seats_[t];
  if (!s.present || holder_ == t) return;
  if (!stranded && s.vt > v_[s.batch()] + kFarAhead * Ns(k_.window_longest) / s.part) return;
  reserved_ = t;
}

void DeviceArbiter::EndWindowOf(TenantIndex t) {
  if (holder_ == t && phase_ == Phase::kRun) end_asked_ = true;
}

GateMode DeviceArbiter::OpenMode(const Seat& s) const {
  const bool lone = wanting_ <= 1 && last_ - company_ >= k_.lone_after;
  if (s.latency()) return lone ? GateMode::kLone : GateMode::kBound;
  if (latency_seats_ > 0) return GateMode::kLightBound;
  if (!s.free() && !s.thin && light_wanted_.count() >= 0 &&
      last_ - light_wanted_ < k_.light_memory) {
    return GateMode::kLightBound;
  }
  return lone ? GateMode::kLone : GateMode::kBound;
}

void DeviceArbiter::SetGate(TenantIndex t, GateMode mode) {
  Seat& s = seats_[t];
  if (s.gate.mode == mode) return;
  s.gate.mode = mode;
  ++s.gate.sequence;
  changed_.push_back(t);
}

void DeviceArbiter::SetGates() {
  for (TenantIndex t : active_) {
    const Seat& s = seats_[t];
    const bool holds = t == holder_ && (phase_ == Phase::kRun ? !yielded_ : catching_up_);
    const bool open = s.allowed() && (wanting_ == 0 || s.free() || holds);
    const bool one = open && t == holder_ && catching_up_;
    SetGate(t, !open ? GateMode::kShut : one ? GateMode::kLightBound : OpenMode(s));
  }
}

Nanos DeviceArbiter::NextPoll() const {
  // A crowd is polled less often: the cost of a poll grows with it, its errors average out.
  const int crowd = std::clamp(int(active_.size()) / kCrowd, 1, 4);
  if (wanting_ > 1) {
    // Never finer because somebody runs or idles: what is billed between two samples would lean.
    if (phase_ == Phase::kDrain || yielded_) return k_.poll_edge * crowd;
    return k_.poll * crowd;
  }
  for (TenantIndex t : active_) {
    const Seat& s = seats_[t];
    if (s.share.cap < 1 && (s.want || s.cap_shut)) return k_.poll;
  }
  return wanting_ == 1 ? k_.poll_lone : k_.poll_idle;
}

}  // namespace divvy::arbiter
