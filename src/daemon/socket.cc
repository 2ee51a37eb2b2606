#include "src/daemon/socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace divvy::daemon {
namespace {
constexpr int kPeerPidfd = 77;  // SO_PEERPIDFD, asm-generic/socket.h since Linux 6.5
}

Result<UniqueFd> ListenUnix(const std::string& path, int type, mode_t mode) {
  // A path longer than an address holds is reached through its folder's descriptor.
  UniqueFd folder;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t slash = path.rfind('/');
  std::string in = slash == std::string::npos ? "." : path.substr(0, slash);
  if (path.size() >= sizeof address.sun_path) {
    folder = UniqueFd(::open(in.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid()) return IoError("cannot open " + in, errno);
    in = "/proc/self/fd/" + std::to_string(folder.get());
  }
  if (in.size() + path.size() - slash >= sizeof address.sun_path)
    return Invalid("the file name of " + path + " is too long for a socket");
  // Made beside and renamed: whoever connects finds the old one, which refuses, or the new one.
  const std::string beside = in + "/.new";
  std::memcpy(address.sun_path, beside.c_str(), beside.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return IoError("cannot make a socket", errno);
  if (::unlink(beside.c_str()) != 0 && errno != ENOENT)
    return IoError("cannot replace " + beside, errno);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return IoError("cannot make the socket " + path, errno);
  if (::chmod(beside.c_str(), mode) != 0) return IoError("cannot set the mode of " + path, errno);
  if (::listen(fd.get(), 512) != 0) return IoError("cannot listen on " + path, errno);
  if (::rename(beside.c_str(), path.c_str()) != 0)
    return IoError("cannot make the socket " + path, errno);
  return fd;
}

bool CanConnect(const std::string& path, int type) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  return fd.valid() &&
         ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

Result<Peer> PeerOf(int connection) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return IoError("SO_PEERCRED", errno);
  Peer peer{credentials.pid, credentials.uid, UniqueFd()};
  if (peer.pid <= 0) return NotFound("the peer is in a pid namespace that divvyd cannot see into");
  int pidfd = -1;
  size = sizeof pidfd;
  if (::getsockopt(connection, SOL_SOCKET, kPeerPidfd, &pidfd, &size) == 0) {
    peer.pidfd = UniqueFd(pidfd);
    ::fcntl(pidfd, F_SETFD, FD_CLOEXEC);
  } else if (errno == ESRCH || errno == EINVAL) {
    return NotFound("the peer is gone");
  }
  return peer;
}

bool SendPacket(int connection, const void* data, size_t size, const int* fds, unsigned count) {
  iovec part{const_cast<void*>(data), size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
  if (count != 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  return ::sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(size);
}

}  // namespace divvy::daemon
