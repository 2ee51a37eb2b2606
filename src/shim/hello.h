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

// A hello that was sent. All zero: none. A program may close and reuse any descriptor number, so
// one whose answer did not come within the same call is known again by its inode.
struct SentHello {
  bool sent;
  int fd;
  uint64_t inode;  // 0: not looked at yet, a call at a process's start counts
};

// Connects and sends `hello`. 0, or an errno: ECONNREFUSED and ENOENT (no daemon), ETIMEDOUT (its
// queue stayed full). `refused_ms`: for how long a socket that nobody listens on is tried again;
// its daemon died, and the next one may be starting. With 0 and 0 it never waits.
int SendHello(const char* socket_path, const wire::Hello& hello, unsigned timeout_ms,
              unsigned refused_ms, SentHello* out) noexcept;
// Waits for the answer for at most `timeout_ms` and maps what it brings. 0, ETIMEDOUT (none yet:
// ask again), EPROTO (an answer that is none), EBADF (the descriptor is
// another's), ECONNRESET (the daemon hung up: it died) or the code of a
// Refused message; `*sent` is cleared but for ETIMEDOUT.
int TakeWelcome(SentHello* sent, const wire::Hello& hello, unsigned timeout_ms,
                Welcomed* out) noexcept;
// No answer is wanted any more.
void DropHello(SentHello* sent) noexcept;

// The middle part of it: checks one received packet and maps the segments that came with it
// (policy, usage, bell; -1: none). 0 or an errno as above; the descriptors stay the caller's.
int TakeAnswer(const void* packet, size_t bytes, const int (&segments)[3], const wire::Hello& hello,
               Welcomed* out) noexcept;

// Fills header, versions, pid and command; the caller adds charges and flags.
void PrepareHello(wire::Hello* hello) noexcept;

// Unmaps what TakeWelcome mapped.
void Unmap(const region::Policy* policy, region::Usage* usage, region::Bell* bell) noexcept;

}  // namespace divvy::shim
