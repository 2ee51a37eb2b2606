// Joining the tenant's region, and joining it again: at the first call of a process, in a forked
// child, and when the daemon that wrote the policy is gone and another one has taken its place.
// No thread of its own: everything happens in calls of the host, bounded in time, with a back-off.
#pragma once

#include "src/shim/process.h"

namespace divvy::shim {

// What may be waited for when a daemon does not answer: allocations give it a moment, once for each
// hello; launches nothing: they go on under the earlier grant and look again later.
enum class Wait { kNo, kBriefly };

// The current session, or nullptr. Says hello again first if the daemon's heart has stopped and the
// back-off allows. Called by what takes memory or submits; costs one coarse clock reading.
Session* FreshSession(Wait wait = Wait::kBriefly) noexcept;

// The session as it is, for what only gives back or looks.
inline Session* CurrentSession() noexcept {
  // Acquire: partner of the swap's release.
  return g_process.session.load(std::memory_order_acquire);
}

// Attaches now, whatever the back-off says (cuInit).
Standing AttachNow() noexcept;

}  // namespace divvy::shim
