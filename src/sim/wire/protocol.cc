// Messages with file descriptors over the broker's socket. See protocol.h.
#include "src/sim/wire/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace divvy::sim {

std::string SocketPath(const std::string& dir) { return dir + "/broker.sock"; }

Status Send(int sock, const void* data, size_t bytes, const int* fds, int fd_count) {
  iovec iov{const_cast<void*>(data), bytes};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {};
  if (fd_count > 0) {
    m.msg_control = control;
    m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
  }
  ssize_t n;
  do {
    n = sendmsg(sock, &m, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n != ssize_t(bytes)) return IoError("simulator socket: send", errno);
  return {};
}

Status Receive(int sock, void* data, size_t bytes, WireFds* fds) {
  iovec iov{data, bytes};
  msghdr m{};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {};
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  ssize_t n;
  do {
    n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return IoError("simulator socket: receive", errno);
  WireFds got;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && i < 3; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      got.fd[i] = UniqueFd(fd);
    }
  }
  if (n == 0) return Unavailable("simulator socket: closed by the other side");
  if (size_t(n) != bytes) return Invalid("simulator socket: message of the wrong size");
  if (fds != nullptr) *fds = std::move(got);
  return {};
}

Result<UniqueFd> SocketAt(const std::string& dir, sockaddr_un* addr, UniqueFd* folder) {
  *addr = {};
  addr->sun_family = AF_UNIX;
  std::string path = SocketPath(dir);
  if (path.size() >= sizeof addr->sun_path) {
    *folder = UniqueFd(open(dir.c_str(), O_PATH | O_CLOEXEC));
    if (!folder->valid()) return IoError(dir, errno);
    path = SocketPath("/proc/self/fd/" + std::to_string(folder->get()));
  }
  memcpy(addr->sun_path, path.c_str(), path.size() + 1);
  UniqueFd sock(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!sock.valid()) return IoError("socket", errno);
  return sock;
}

Result<UniqueFd> ConnectBroker(const std::string& dir) {
  sockaddr_un addr;
  UniqueFd folder;
  auto made = SocketAt(dir, &addr, &folder);
  if (!made) return made.error();
  UniqueFd sock = std::move(made).value();
  if (connect(sock.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr) != 0) {
    return IoError("no simulated machine at " + dir, errno);
  }
  return sock;
}

}  // namespace divvy::sim
