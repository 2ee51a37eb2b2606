// What a client and the broker say over DIR/broker.sock (SOCK_SEQPACKET, one Request, one Reply).
// The first request is kHello; SO_PEERCRED tells the broker who asks. File descriptors travel as
// SCM_RIGHTS with the message that names them. Only rare things go this way: frequent ones are on
// the machine page and in the client's channel.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <string>

#include "src/base/result.h"
#include "src/base/unique_fd.h"

namespace divvy::sim {

inline constexpr uint32_t kProtocolVersion = 1;

enum class Ask : uint32_t {
  kHello = 1,     // arg[0] = ClientKind; reply: row, fds {machine page, channel (CUDA only)}
  kArena = 2,     // arg[0] = device; reply fd: the contents of this client's memory there
  kExport = 3,    // arg = {device, offset, bytes}: value[0] = id that others can import
  kUnexport = 4,  // arg[0] = id: the exporter frees it; importers keep it alive and booked
  kImport = 5,    // arg[0] = id: value = {device, offset, bytes}, fd: the exporter's arena
  kUnimport = 6,  // arg[0] = id
  kBye = 7,       // orderly end: memory is given back without the teardown delay
};

enum class ClientKind : uint64_t { kCuda = 1, kNvml = 2 };

struct Request {
  uint32_t version = kProtocolVersion;
  Ask ask = Ask::kHello;
  uint64_t arg[4] = {};
  char name[48] = {};  // kHello: the program
};

struct Reply {
  int32_t error = 0;  // errno
  uint32_t row = 0;
  uint64_t value[4] = {};
};

struct WireFds {
  UniqueFd fd[3];
};

std::string SocketPath(const std::string& dir);

// One message with up to three descriptors. kUnavailable when the other side is gone.
Status Send(int sock, const void* data, size_t bytes, const int* fds = nullptr, int fd_count = 0);
Status Receive(int sock, void* data, size_t bytes, WireFds* fds);

// A socket of the right type and the address of `dir`'s broker. When the path is too long for a
// sockaddr_un the address goes through `folder`, which has to stay open while it is used.
Result<UniqueFd> SocketAt(const std::string& dir, sockaddr_un* addr, UniqueFd* folder);

// A connected socket to the broker of `dir`.
Result<UniqueFd> ConnectBroker(const std::string& dir);

}  // namespace divvy::sim
