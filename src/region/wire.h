// The tenant's socket: what a process of a tenant and divvyd say to each other.
//
// AF_UNIX, SOCK_SEQPACKET, one listening socket per tenant: which socket was connected to says
// which tenant it is, SO_PEERCRED says which process. One message per packet, fixed sizes, native
// byte order (never leaves the machine). The process speaks first:
//   Hello -> Welcome with three descriptors (policy, usage, bell), or Refused.
// After that the connection stays open and silent; its end tells each side that the other may be
// gone. A process that meets a dead daemon says Hello again with its charges in hand.
// Unknown types, wrong sizes and bad versions end the connection; nothing is parsed twice.
#pragma once

#include <cstdint>

#include "src/region/layout.h"

namespace divvy::wire {

constexpr uint32_t kMagic = 0x31565644;  // "DVV1"
constexpr uint16_t kProtocolVersion = 2;

// Where a shim looks for its tenant's socket, in this order. The first is there without any
// environment (private mount namespace, containers). A process that finds neither the directory's
// marker nor the variable is no tenant: the shim passes everything through.
constexpr char kSelfDir[] = "/run/divvy/self";
constexpr char kSelfSocket[] = "/run/divvy/self/tenant.sock";
constexpr char kSelfMarker[] = "/run/divvy/self/tenant";  // a file; its presence means: fail closed
// The same, on the mount namespace's own tmpfs: stays when the tenant's folder is gone, because its
// command has ended and something that it left behind goes on.
constexpr char kNamespaceMarker[] = "/run/divvy/tenant";
constexpr char kSocketVariable[] = "DIVVY_SOCKET";

enum class Type : uint16_t {
  kHello = 1,
  kWelcome = 2,
  kRefused = 3,
};

struct Header {
  uint32_t magic;
  Type type;
  uint16_t size_bytes;  // of the whole message
};

struct HeldCharge {
  uint8_t uuid[16];
  uint64_t units;
  uint64_t kind_units[region::kKinds];
};

struct Hello {
  Header header;
  uint16_t protocol_version;
  uint16_t layout_version;
  uint32_t ns_pid;           // getpid() as the process sees itself
  uint64_t last_generation;  // 0: first hello
  uint32_t flags;            // HelloFlags
  uint32_t held_count;       // entries of held[] in use
  char command[16];          // the program's name, cut
  HeldCharge held[region::kMaxDevices];
};

enum HelloFlags : uint32_t {
  kHelloForked = 1u << 0,      // child of a process that was attached
  kHelloSecondCopy = 1u << 1,  // another copy of the shim in this process (dlmopen)
};

struct Welcome {
  Header header;
  uint16_t protocol_version;
  uint16_t layout_version;
  uint32_t slot;  // of ProcessSlot and MeterPages, this process's alone
  uint64_t generation;
  uint64_t policy_bytes;
  uint64_t usage_bytes;
  uint32_t device_count;
  uint32_t reserved;
};  // + SCM_RIGHTS: policy memfd, usage memfd, bell memfd

struct Refused {
  Header header;
  uint32_t code;  // errno-like: EPROTO, EPERM, ENOSPC (no slot left), ESRCH (no such tenant)
  uint32_t reserved;
  char reason[240];  // one line, zero-terminated
};

constexpr unsigned kMaxMessage = 2048;
static_assert(sizeof(Hello) <= kMaxMessage && sizeof(Refused) <= kMaxMessage);

}  // namespace divvy::wire
