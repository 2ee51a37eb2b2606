// Variants of the arbiter's constants: dilated, and for a device.
#include "src/arbiter/tunables.h"

namespace divvy::arbiter {

Tunables Tunables::Dilated(double factor) const {
  Tunables out = *this;
  for (Nanos* t :
       {&out.window_longest, &out.window_shortest, &out.period,      &out.idle_credit,
        &out.wake_shortest,  &out.bound,           &out.space,       &out.light_bound,
        &out.light_space,    &out.lone_bound,      &out.lone_space,  &out.light_memory,
        &out.light_service,  &out.shortest_run,    &out.duty_memory, &out.duty_settle,
        &out.thin_patience,  &out.still_memory,    &out.thin_retry,  &out.entangled_longest,
        &out.idle,           &out.absence,         &out.slow,        &out.slow_memory,
        &out.gang_hold,      &out.short_burst,     &out.lone_after,  &out.stranded,
        &out.grace,          &out.entangled,       &out.stall,       &out.retry_stalled,
        &out.distrust,       &out.unproven,        &out.poll,        &out.poll_edge,
        &out.poll_lone,      &out.poll_idle,       &out.slice,       &out.switch_cost}) {
    *t = Nanos(static_cast<int64_t>(static_cast<double>(t->count()) * factor));
  }
  return out;
}

Tunables Tunables::For(Nanos slice, Nanos switch_cost) {
  Tunables out;
  out.slice = slice;
  out.switch_cost = switch_cost;
  if (switch_cost >= microseconds(100)) {
    out.window_longest = out.idle_credit = milliseconds(20);
    out.period = milliseconds(80);
  }
  return out;
}

}  // namespace divvy::arbiter
