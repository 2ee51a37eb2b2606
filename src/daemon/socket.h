// The tenant's listening socket and its packets: thin shells around the system calls.
//
// Side: the daemon. Non-blocking throughout. Threads: any; no state.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>

#include "src/base/result.h"
#include "src/base/unique_fd.h"

namespace divvy::daemon {

// A listening AF_UNIX socket at `path` with `mode`; replaces a stale file of that name. The path
// may be longer than the 107 bytes of a socket address, its last part may not.
Result<UniqueFd> ListenUnix(const std::string& path, int type, mode_t mode);

// Whether somebody listens at `path`; false also for a path too long for an address.
bool CanConnect(const std::string& path, int type);

struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  UniqueFd pidfd;  // of the very process that connected; invalid before Linux 6.5
};
// The process that connected. kNotFound: it is already gone.
Result<Peer> PeerOf(int connection);

// Sends one packet, with `count` descriptors. False when the peer is gone or does not read.
bool SendPacket(int connection, const void* data, size_t size, const int* fds = nullptr,
                unsigned count = 0);

}  // namespace divvy::daemon
