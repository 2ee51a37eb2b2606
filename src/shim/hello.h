// The handshake with divvyd over the tenant's socket (src/region/wire.h), and the mapping of the
// two segments that it hands over. Called at attach and after a daemon's death, under the attach
// lock, never on a launch path. Bounded in time; no allocation.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/region/wire.h"

namespace divvy::shim {

struct Welcomed {
  wire::Welcome welcome;
  const region::Policy* policy = nullptr;  // read-only; nullptr if `same_generation`
  region::Usage* usage = nullptr;
  region::Bell* bell = nullptr;  // nullptr also where the daemon gives none
  bool same_generation = false;  // the daemon we already know: nothing was mapped
};

// Connects, says `hello` and maps what comes back. 0, or an errno: ECONNREFUSED and ENOENT (no
// daemon), ETIMEDOUT, EPROTO (an answer that is none), or the code of a Refused message.
// `refused_ms`: for how long a socket that nobody listens on is tried again; its daemon died, and
// the next one may be starting.
int SayHello(const char* socket_path, const wire::Hello& hello, unsigned timeout_ms,
             unsigned refused_ms, Welcomed* out) noexcept;

// The middle part of it: checks one received packet and maps the segments that came with it
// (policy, usage, bell; -1: none). 0 or an errno as above; the descriptors stay the caller's.
int TakeAnswer(const void* packet, size_t bytes, const int (&segments)[3], const wire::Hello& hello,
               Welcomed* out) noexcept;

// Fills header, versions, pid and command; the caller adds charges and flags.
void PrepareHello(wire::Hello* hello) noexcept;

// Unmaps what SayHello mapped.
void Unmap(const region::Policy* policy, region::Usage* usage, region::Bell* bell) noexcept;

}  // namespace divvy::shim
