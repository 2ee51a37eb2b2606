// Seats of one device: joining and leaving, samples in, GPU time billed, who wants and who is
// light. The window itself moves in device_window.cc.
#include "src/arbiter/device_arbiter.h"

#include <algorithm>

namespace divvy::arbiter {
namespace {

// Work may finish this often while a tenant says that it only copies; then it is not believed until
// it is seen at work.
constexpr uint32_t kPausesBelieved = 3;

}  // namespace

DeviceArbiter::DeviceArbiter(unsigned max_tenants, const Tunables& tunables)
    : k_(tunables), seats_(max_tenants) {
  active_.reserve(max_tenants);
  changed_.reserve(max_tenants);
}

// Parts are relative to the tenants present. When their sum changes, everybody keeps what they are
// owed or owe in GPU time: the distance to the device's virtual time is rescaled.
void DeviceArbiter::Renormalize() {
  sum_weights_ = 0;
  for (TenantIndex t : active_) sum_weights_ += seats_[t].share.weight;
  for (TenantIndex t : active_) {
    Seat& s = seats_[t];
    const double part = s.share.weight / sum_weights_;
    const double v = v_[s.batch()];
    s.vt = v + (s.vt - v) * s.part / part;
    s.part = part;
  }
}

void DeviceArbiter::Join(TenantIndex t, const ComputeShare& share, Nanos now) {
  last_ = std::max(last_, now);
  Seat& s = seats_[t];
  const uint32_t sequence = s.gate.sequence + 1;  // a gate word never repeats
  s = Seat{};
  s.present = true;
  s.gate.sequence = sequence;
  s.share = share;
  s.part = 1;
  s.vt = v_[s.batch()];
  s.tokens = Ns(k_.window_longest) * share.cap;
  s.life = s.last_run = last_;
  active_.insert(std::lower_bound(active_.begin(), active_.end(), t), t);
  latency_seats_ += s.latency();
  Renormalize();
}

void DeviceArbiter::SetShare(TenantIndex t, const ComputeShare& share) {
  Seat& s = seats_[t];
  latency_seats_ -= s.latency();
  const bool had_cap = s.share.cap < 1;
  s.vt -= v_[s.batch()];
  s.share = share;
  s.vt += v_[s.batch()];
  // What was used while no cap was in force is not owed, nor what an earlier cap's debt was then.
  s.tokens = !had_cap ? Ns(k_.window_longest) * share.cap
                      : std::min(s.tokens, 2 * Ns(k_.window_longest) * share.cap);
  latency_seats_ += s.latency();
  Renormalize();
}

void DeviceArbiter::Leave(TenantIndex t) {
  Seat& s = seats_[t];
  if (!s.present) return;
  latency_seats_ -= s.latency();
  const Gate gate = s.gate;
  s = Seat{};
  s.gate = gate;
  active_.erase(std::lower_bound(active_.begin(), active_.end(), t));
  if (holder_ == t) {
    holder_ = kNoTenant;
    phase_ = Phase::kRun;
    yielded_ = false;
  }
  if (reserved_ == t) reserved_ = kNoTenant;
  Renormalize();
}

void DeviceArbiter::Pause(TenantIndex t, bool paused) { seats_[t].op_paused = paused; }

void DeviceArbiter::Debit(TenantIndex t, Nanos gpu_time) {
  if (gpu_time.count() > 0) Charge(seats_[t], Ns(gpu_time));
}

void DeviceArbiter::Observe(TenantIndex t, const Progress& p) {
  Seat& s = seats_[t];
  const bool nonsense = p.garbage || p.done > p.issued || p.issued - p.done > kMaxBacklog ||
                        (!s.rebase && (p.issued < s.seen.issued || p.done < s.seen.done));
  if (nonsense) {
    // Nothing of it is used. The next sample that makes sense is the new base.
    s.fault = true;
    s.rebase = true;
    ++s.stats.faults;
    return;
  }
  // A pause that is true for more than a moment lets nothing finish.
  const bool moved = !s.rebase && p.done != s.seen.done;
  s.ran_in_pause = p.paused && p.issued != p.done && moved;
  if (s.ran_in_pause) {
    ++s.pauses_moved;
  } else if (p.begun && !p.paused) {
    s.pauses_moved = 0;
  }
  const bool believe_pause = p.paused && s.pauses_moved < kPausesBelieved;
  s.seen = p;
  s.seen.paused = believe_pause;
  if (p.paused && !believe_pause) s.seen.begun = true;
  s.rebase = false;
}

void DeviceArbiter::Charge(Seat& s, double ns) {
  s.vt += ns / s.part;
  s.service += ns;
  s.window += ns;
  s.used += ns;
  if (s.share.cap < 1) s.tokens -= ns;
}

// The past interval belongs to those that ran at its beginning, in equal parts: the hardware gives
// equal slices. Lateness at the start and at the end of a stretch of work cancel.
void DeviceArbiter::Bill(Nanos now) {
  const double dt = Ns(now - last_);
  if (dt <= 0) return;
  unsigned running = 0, able = 0;
  TenantIndex sole = kNoTenant;
  for (TenantIndex t : active_) {
    const Seat& s = seats_[t];
    running += s.running;
    if (!s.want || !s.gate.open()) continue;
    ++able;
    sole = t;
  }
  if (able != 1 || running > (seats_[sole].running ? 1u : 0u)) sole = kNoTenant;
  if (sole != sole_) sole_since_ = last_;
  sole_ = sole;
  double each = 0;
  if (running > 0) {
    each = dt / running;
    if (running > 1) each *= Ns(k_.slice) / Ns(k_.slice + k_.switch_cost);
  }
  for (TenantIndex t : active_) {
    Seat& s = seats_[t];
    if (t == sole_ && last_ - sole_since_ >= k_.duty_settle) WatchDuty(s, dt);
    if (s.share.cap < 1) {
      s.tokens = std::min(s.tokens + s.share.cap * dt, 2 * Ns(k_.window_longest) * s.share.cap);
    }
    if (!s.running) continue;
    Charge(s, each);
    if (running == 1) s.unfinished += each;  // others in between only look like a long one
    stats_.billed += Nanos(static_cast<int64_t>(each));
    if (t == holder_) ran_ += each;
  }
}

// How much of the time a tenant keeps the device busy when nobody else does and its gate is open.
// One that waits for its own bound is limited by the device, not by its host.
void DeviceArbiter::WatchDuty(Seat& s, double dt) {
  const bool busy = s.running || s.seen.waiters > 0;
  s.duty += ((busy ? 1 : 0) - s.duty) * std::min(1.0, dt / Ns(k_.duty_memory));
  s.thin = last_ >= s.thick_until && s.duty < (s.thin ? k_.thick_duty : k_.thin_duty);
}

// Asking with an open gate and not submitting for long (a stopped process, a stale or forged waiter
// flag): not asking, until a new sign of life.
void DeviceArbiter::WatchLife(Seat& s, Nanos now) {
  if (s.seen.issued != s.issued_then) s.issue_time = now;
  if (s.seen.done != s.done_then) s.done_time = now;
  s.done_then = s.seen.done;
  if (s.seen.issued != s.issued_then || s.seen.waits != s.waits_then) {
    s.issued_then = s.seen.issued;
    s.waits_then = s.seen.waits;
    s.life = now;
    s.stalled = false;
  }
  if (s.stalled) {
    if (now - s.life < k_.retry_stalled) return;
    s.stalled = false;
    s.life = now;
  }
  if (!s.gate.open() || s.outstanding() || s.seen.waiters == 0) {
    s.life = std::max(s.life, now - k_.stall / 2);
  } else if (now - s.life > k_.stall) {
    s.stalled = true;
    s.life = now;
  }
}

// Long operations outlast every window: their debts are not forgiven as long as they grow.
void DeviceArbiter::WatchSlow(Seat& s, Nanos now) {
  if (s.done_time == now || !s.outstanding()) s.unfinished = 0;
  const bool owes = s.slow(now) && s.vt > v_[s.batch()] + Ns(k_.window_longest) / s.part;
  if (owes || s.unfinished >= Ns(k_.slow)) s.slow_until = now + k_.slow_memory;
}

void DeviceArbiter::RefreshSeat(Seat& s, Nanos now) {
  if (s.fault) s.distrust_until = now + k_.distrust;
  if (s.share.cap < 1) {
    s.cap_shut = s.tokens < (s.cap_shut ? Ns(k_.window_longest) * s.share.cap : 0);
  } else {
    s.cap_shut = false;
  }
  WatchLife(s, now);
  WatchSlow(s, now);
  const bool asks = s.fault || (s.outstanding() && !s.seen.paused) || s.seen.waiters > 0;
  s.raw_want = asks && !s.stalled && s.allowed();
  if (s.raw_want) {
    if (!s.want) {
      s.woke = true;
      s.vt = std::max(s.vt, v_[s.batch()] - Ns(k_.idle_credit) / s.part);
    }
    s.want = true;
    s.empty_since = Nanos(-1);
  } else if (s.want && s.empty_since.count() < 0) {
    s.empty_since = now;  // perhaps only the moment between two operations
  } else if (s.want && now - s.empty_since >= k_.idle) {
    s.want = s.woke = false;
    s.burst += (s.service - s.burst) / 8;
    s.service = 0;
  }
  if (!s.allowed()) s.want = false;
  s.fault = false;
}

void DeviceArbiter::Refresh(Nanos now, Nanos elapsed) {
  wanting_ = wanting_standard_ = 0;
  wanting_parts_ = 0;
  for (TenantIndex t : active_) {
    Seat& s = seats_[t];
    RefreshSeat(s, now);
    if (!s.want) continue;
    ++wanting_;
    if (t != last_wanting_) company_ = now;
    last_wanting_ = t;
    wanting_standard_ += !s.batch();
    wanting_parts_ += s.part;
    s.last_want = now;
  }
  AdvanceClocks(now, elapsed);
}

// The device's virtual time is that of the least of those that want. While others pause for a
// moment between two steps it goes no faster than work could be done for a slow one: otherwise a
// long operation would be forgiven whenever its neighbours look away.
void DeviceArbiter::AdvanceClocks(Nanos now, Nanos elapsed) {
  double least[2] = {-1, -1}, parts[2] = {0, 0};
  bool pausing[2] = {false, false}, slow[2] = {false, false};
  for (TenantIndex t : active_) {
    const Seat& s = seats_[t];
    const int group = s.batch();
    if (s.want) {
      parts[group] += s.part;
      if (least[group] < 0 || s.vt < least[group]) {
        least[group] = s.vt;
        slow[group] = s.slow(now);
      }
    } else if (s.allowed() && s.last_want.count() >= 0 && now - s.last_want < k_.absence) {
      pausing[group] = true;
    }
  }
  for (int group : {0, 1}) {
    if (slow[group] && pausing[group] && parts[group] > 0) {
      least[group] = std::min(least[group], v_[group] + Ns(elapsed) / parts[group]);
    }
    v_[group] = std::max(v_[group], least[group]);
  }
}

// A thin tenant runs ahead of the device. One whose host keeps standing still while its work waits
// behind others' was only waiting for answers: it needs windows. Once proves nothing: hosts are
// preempted, collect garbage, miss a page.
void DeviceArbiter::WatchThin(Seat& s, Nanos now, Nanos elapsed) {
  if (!s.thin) {
    s.still = 0;
    return;
  }
  if (!s.outstanding() || s.seen.waiters > 0) return;
  const double stands = now - s.issue_time < k_.thin_patience ? 0 : 1;
  s.still += (stands - s.still) * std::min(1.0, Ns(elapsed) / Ns(k_.still_memory));
  if (s.still < k_.still_part) return;
  s.thin = false;
  s.still = 0;
  s.duty = 1;
  s.thick_until = now + k_.thin_retry;
}

// Does the holder have to give way to this light seat?
bool DeviceArbiter::Presses(Seat& s, Nanos now) {
  if (s.latency() || s.service < Ns(k_.light_service)) return now >= s.entangled_until;
  // Thin and entangled tenants share by the hardware's slices: the queue of a thin one is its
  // buffer. Only one that falls behind, and waits for its queue, is held up by the holder.
  const double window = Ns(k_.window_longest);
  const double ahead = holder_ == kNoTenant ? s.vt : seats_[holder_].vt;
  if (s.seen.waiters == 0) s.vt = std::max(s.vt, ahead - window / s.part);
  return s.seen.waiters > 0 && s.vt + window / 2 / s.part < ahead;
}

void DeviceArbiter::FindLights(Nanos now, Nanos elapsed) {
  light_wants_ = latency_wants_ = false;
  wanting_heavy_ = 0;
  const double window = Ns(k_.window_longest);
  for (TenantIndex t : active_) {
    Seat& s = seats_[t];
    WatchThin(s, now, elapsed);
    const bool little = s.service < Ns(k_.light_service);
    const bool may = !s.batch() && s.allowed() && s.trusted(now) && s.vt <= v_[0] + window / s.part;
    s.light = may && (s.latency() || little || s.thin);
    s.corun = may && !s.light && now < s.entangled_until;
    wanting_heavy_ += s.want && !s.light && !s.batch();
    s.pressing = s.free() && s.want && t != holder_ && Presses(s, now);
    if (!s.pressing) continue;
    light_wants_ = true;
    latency_wants_ |= s.latency();
    // Running dry after every operation pays for short bursts; a long one waits for the yield.
    const bool shortly = little && (s.gang || s.burst < Ns(k_.short_burst));
    if ((shortly || s.latency()) && wanting_ > 1) light_wanted_ = now;
  }
}

// Decides who is billed until the next tick.
void DeviceArbiter::FindRunning(Nanos now, Nanos elapsed) {
  bool any = false;
  for (TenantIndex t : active_) {
    Seat& s = seats_[t];
    if (!s.trusted(now)) {
      // Its markers mean nothing: it pays for all the time in which it could run.
      s.running = s.want && (s.gate.open() || (t == holder_ && phase_ == Phase::kDrain));
    } else {
      s.running = (s.outstanding() && s.seen.begun && !s.seen.paused) || s.ran_in_pause;
    }
    any |= s.running;
    // Holding others back without running is free only for a moment.
    const bool blocks = s.want && s.gate.open() && (t == holder_ || (yielded_ && s.pressing));
    if (s.running || !blocks || wanting_ < 2) s.last_run = now;
  }
  for (TenantIndex t : active_) {
    Seat& s = seats_[t];
    // The same of one that the holder gives way to, however often it looks away in between.
    const bool held = !any && yielded_ && s.pressing && s.want && s.gate.open();
    s.held_back = std::max(0.0, s.held_back + Ns(elapsed) * (held ? 1 : -k_.unproven_refill));
    if (any) continue;
    s.running = now - s.last_run > k_.unproven || (held && s.held_back > Ns(k_.unproven));
  }
}

Nanos DeviceArbiter::Tick(Nanos now, const Elsewhere& elsewhere) {
  now = std::max(now, last_);
  ++stats_.ticks;
  granted_ = ended_ = kNoTenant;
  changed_.clear();
  const Nanos elapsed = now - last_;
  Bill(now);
  last_ = now;
  Refresh(now, elapsed);
  FindLights(now, elapsed);
  MovePhase(now, elsewhere);
  SetGates();
  FindRunning(now, elapsed);
  return NextPoll();
}

SeatStats DeviceArbiter::StatsOf(TenantIndex t) const {
  const Seat& s = seats_[t];
  SeatStats out = s.stats;
  out.used = Nanos(static_cast<int64_t>(s.used));
  out.distrusted = !s.trusted(last_);
  out.entangled = last_ < s.entangled_until;
  out.stalled = s.stalled;
  out.light = s.light;
  out.throttled = s.cap_shut;
  out.duty = s.duty;
  out.thin = s.thin;
  return out;
}

}  // namespace divvy::arbiter
