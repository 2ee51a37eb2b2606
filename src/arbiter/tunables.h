// The arbiter's constants and what each is for. Settled in the model (docs/arbiter.md has the
// evidence); Dilated() multiplies every duration, for a device whose time runs slower.
#pragma once

#include <chrono>

#include "src/arbiter/types.h"

namespace divvy::arbiter {

using std::chrono::microseconds;
using std::chrono::milliseconds;

struct Tunables {
  // Windows: a holder's turn is clamp(period * part of the wanting weights, shortest, longest).
  Nanos window_longest = milliseconds(10);
  Nanos window_shortest = microseconds(2500);
  Nanos period = milliseconds(40);
  Nanos idle_credit = milliseconds(10);   // how far behind the others an idle tenant may come back
  Nanos wake_shortest = milliseconds(2);  // a turn lasts this long before a woken tenant ends it

  // In-flight work by gate mode, and the estimated work between two markers.
  Nanos bound = milliseconds(1);
  Nanos space = microseconds(250);
  Nanos light_bound = microseconds(250);
  Nanos light_space = microseconds(100);
  Nanos lone_bound = milliseconds(2);
  Nanos lone_space = microseconds(500);
  Nanos lone_after = seconds(1);         // without company for this long: the lone bound
  Nanos light_memory = milliseconds(8);  // how long light tenants keep the others' bound short

  // Light tenants.
  Nanos light_service = microseconds(2250);  // GPU time since it last idled, so that a request of
                                             // 2 ms is light to its end; above: not light
  Nanos short_burst = milliseconds(1);       // bursts up to this make the holder run dry often
  Nanos shortest_run = milliseconds(2);      // a holder runs this long between two yields

  // Thin tenants (launch-bound): busy for less than this part of the time they have the device.
  double thin_duty = 0.85;
  double thick_duty = 0.95;             // thin no longer
  Nanos duty_memory = milliseconds(4);  // of the running average
  Nanos duty_settle =
      microseconds(200);  // a tenant is the only one that may run for this long first

  Nanos thin_patience = microseconds(400);  // no submission for longer: its host stands still
  Nanos still_memory = milliseconds(40);    // of the running average of standing still
  double still_part = 0.25;                 // so much of the time: not thin
  Nanos thin_retry = seconds(1);            // ... for this long

  // Ends of work.
  Nanos idle = microseconds(50);         // without work for this long: idle, the turn ends
  Nanos absence = milliseconds(10);      // beside slow work: idle for less, and it keeps its claim
  Nanos slow = microseconds(2500);       // GPU time without a completion: slow work
  Nanos slow_memory = seconds(10);       // ... for this long
  Nanos gang_hold = microseconds(300);   // the same, while it works on another of its devices
  Nanos stranded = milliseconds(1);      // a gang's drain takes longer: its other windows are due
  Nanos grace = milliseconds(60);        // a drain is waited for this long
  Nanos entangled = milliseconds(500);   // tenants that could not drain twice running co-run
  Nanos entangled_longest = seconds(8);  // ... doubling each time that it happens again at once
  Nanos stall = milliseconds(2);         // asks, has an open gate, submits nothing: not asking
  Nanos retry_stalled = milliseconds(200);
  Nanos distrust = seconds(1);         // after nonsense in the counters
  Nanos unproven = microseconds(500);  // holds others back without running: billed from here on
  double unproven_refill = .1;  // of one that is given way to, forgiven by so much of the time

  // How often to look.
  Nanos poll = microseconds(50);
  Nanos poll_edge = microseconds(15);  // while draining or yielding
  Nanos poll_lone = microseconds(200);
  Nanos poll_idle = milliseconds(1);

  // The hardware's own time slicing, for billing while several run at once.
  Nanos slice = milliseconds(2);
  Nanos switch_cost = microseconds(60);

  Nanos Bound(GateMode mode) const {
    switch (mode) {
      case GateMode::kBound:
        return bound;
      case GateMode::kLightBound:
        return light_bound;
      case GateMode::kLone:
        return lone_bound;
      case GateMode::kShut:
        break;
    }
    return Nanos(0);
  }
  Nanos Space(GateMode mode) const {
    switch (mode) {
      case GateMode::kBound:
        return space;
      case GateMode::kLightBound:
        return light_space;
      case GateMode::kLone:
        return lone_space;
      case GateMode::kShut:
        break;
    }
    return space;
  }
  Tunables Dilated(double factor) const;
  // For a device with this slice and cost of a switch; windows are longer where switches are dear
  // (100 us and more).
  static Tunables For(Nanos slice, Nanos switch_cost);

 private:
  using seconds = std::chrono::seconds;
};

}  // namespace divvy::arbiter
