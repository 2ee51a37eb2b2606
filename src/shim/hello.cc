// The tenant's side of the handshake; see hello.h.
#include "src/shim/hello.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace divvy::shim {
namespace {

// Programs expect low descriptors for themselves, and some close all that they did not open.
constexpr int kLowestFd = 512;
constexpr unsigned kKnockMs = 200;
constexpr long kCloseRange = 436;  // asm-generic/unistd.h since Linux 5.9, the same everywhere

// Fills an address even when the path is longer than sun_path: through the folder's descriptor.
bool FillAddress(const char* path, sockaddr_un* address, int* folder) noexcept {
  *folder = -1;
  memset(address, 0, sizeof(*address));
  address->sun_family = AF_UNIX;
  const size_t length = strlen(path);
  if (length < sizeof(address->sun_path)) {
    memcpy(address->sun_path, path, length + 1);
    return true;
  }
  const char* slash = strrchr(path, '/');
  char parent[4096];
  if (slash == nullptr || slash == path || static_cast<size_t>(slash - path) >= sizeof(parent))
    return false;
  memcpy(parent, path, static_cast<size_t>(slash - path));
  parent[slash - path] = 0;
  *folder = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (*folder < 0) return false;
  char* out = address->sun_path;
  const char prefix[] = "/proc/self/fd/";
  memcpy(out, prefix, sizeof(prefix) - 1);
  out += sizeof(prefix) - 1;
  char digits[12];
  int n = 0;
  for (int v = *folder; n == 0 || v > 0; v /= 10) digits[n++] = static_cast<char>('0' + v % 10);
  while (n > 0) *out++ = digits[--n];
  const size_t left = static_cast<size_t>(address->sun_path + sizeof(address->sun_path) - out);
  if (strlen(slash) >= left) return false;
  strcpy(out, slash);
  return true;
}

// Tells whoever keeps the daemon alive that somebody waits for the next one: it watches for the
// tenant's folder being opened, which works from inside a mount namespace or a container, too.
void Knock(const char* path) noexcept {
  char folder[4096];
  const char* slash = strrchr(path, '/');
  if (slash == nullptr || slash == path || static_cast<size_t>(slash - path) >= sizeof(folder))
    return;
  memcpy(folder, path, static_cast<size_t>(slash - path));
  folder[slash - path] = 0;
  const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) close(fd);
}

// A socket that never blocks: what has to be waited for is waited for with a limit.
int Connect(const char* path, unsigned timeout_ms, unsigned refused_ms, int* out) noexcept {
  sockaddr_un address;
  int folder;
  if (!FillAddress(path, &address, &folder)) return ENAMETOOLONG;
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int error = fd < 0 ? errno : 0;
  for (unsigned waited_ms = 0;
       error == 0 && connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0;) {
    if (errno == EINTR) continue;
    // Many processes start together and the daemon's queue is full for a moment.
    const int why = errno;
    const unsigned limit_ms = why == EAGAIN ? timeout_ms : why == ECONNREFUSED ? refused_ms : 0;
    // Nobody may have watched yet when it was done last.
    if (why == ECONNREFUSED && limit_ms > 0 && waited_ms % kKnockMs == 0) Knock(path);
    if (waited_ms++ < limit_ms)
      usleep(1000);
    else
      error = why == EAGAIN ? ETIMEDOUT : why;
  }
  if (error != 0 && fd >= 0) close(fd);
  if (folder >= 0) close(folder);
  *out = fd;
  return error;
}

struct Answer {
  char bytes[wire::kMaxMessage];
  ssize_t size = 0;
  int fd[3] = {-1, -1, -1};
};

int Receive(int socket_fd, unsigned timeout_ms, Answer* out) noexcept {
  pollfd readable{socket_fd, POLLIN, 0};
  int ready;
  do ready = poll(&readable, 1, static_cast<int>(timeout_ms));
  while (ready < 0 && errno == EINTR);
  if (ready <= 0) return ready == 0 ? ETIMEDOUT : errno;
  iovec part{out->bytes, sizeof(out->bytes)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  do out->size = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
  while (out->size < 0 && errno == EINTR);
  if (out->size < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
  unsigned taken = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      if (taken < 3)
        out->fd[taken++] = fd;
      else
        close(fd);
    }
  }
  return 0;
}

int Map(const wire::Welcome& w, const int (&fd)[3], Welcomed* out) noexcept {
  // The daemon's word is taken for the segments' sizes: it sealed them, and a tenant trusts it.
  if (w.policy_bytes < region::kPolicyBytes || w.usage_bytes < region::kUsageBytes || w.slot == 0 ||
      w.slot >= region::kMaxSlots || w.device_count > region::kMaxDevices || fd[0] < 0 || fd[1] < 0)
    return EPROTO;
  void* policy = mmap(nullptr, region::kPolicyBytes, PROT_READ, MAP_SHARED, fd[0], 0);
  void* usage = mmap(nullptr, region::kUsageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd[1], 0);
  if (policy == MAP_FAILED || usage == MAP_FAILED) {
    if (policy != MAP_FAILED) munmap(policy, region::kPolicyBytes);
    if (usage != MAP_FAILED) munmap(usage, region::kUsageBytes);
    return ENOMEM;
  }
  // Without a bell the daemon is not called, only found out a little later.
  void* bell =
      fd[2] < 0 ? MAP_FAILED
                : mmap(nullptr, region::kBellBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd[2], 0);
  out->bell = bell == MAP_FAILED ? nullptr : static_cast<region::Bell*>(bell);
  out->policy = static_cast<const region::Policy*>(policy);
  out->usage = static_cast<region::Usage*>(usage);
  if (out->policy->magic != region::kPolicyMagic || out->usage->magic != region::kUsageMagic ||
      out->policy->version != region::kLayoutVersion ||
      out->usage->version != region::kLayoutVersion || out->policy->generation != w.generation ||
      out->policy->device_count > region::kMaxDevices) {
    Unmap(out->policy, out->usage, out->bell);
    out->policy = nullptr;
    out->usage = nullptr;
    out->bell = nullptr;
    return EPROTO;
  }
  return 0;
}

// Those that are not -1. In a row, as a process with few descriptors gets them, by one call.
void CloseAll(const int* fds, unsigned count) noexcept {
  int least = INT_MAX, most = -1, open = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (fds[i] < 0) continue;
    ++open;
    if (fds[i] < least) least = fds[i];
    if (fds[i] > most) most = fds[i];
  }
  if (open > 1 && most - least + 1 == open &&
      syscall(kCloseRange, static_cast<unsigned>(least), static_cast<unsigned>(most), 0u) == 0)
    return;
  for (unsigned i = 0; i < count; ++i)
    if (fds[i] >= 0) close(fds[i]);
}

}  // namespace

void PrepareHello(wire::Hello* hello) noexcept {
  memset(hello, 0, sizeof(*hello));
  hello->header = {wire::kMagic, wire::Type::kHello, sizeof(wire::Hello)};
  hello->protocol_version = wire::kProtocolVersion;
  hello->layout_version = region::kLayoutVersion;
  hello->ns_pid = static_cast<uint32_t>(getpid());
  // What the kernel calls it, without a call: each counts at a process's start.
  strncpy(hello->command, program_invocation_short_name, sizeof(hello->command) - 1);
}

int TakeAnswer(const void* packet, size_t bytes, const int (&segments)[3], const wire::Hello& hello,
               Welcomed* out) noexcept {
  if (bytes == 0) return ECONNRESET;
  wire::Header header;
  if (bytes < sizeof(header)) return EPROTO;
  memcpy(&header, packet, sizeof(header));
  if (header.magic != wire::kMagic || header.size_bytes != bytes) return EPROTO;
  if (header.type == wire::Type::kRefused && bytes == sizeof(wire::Refused)) {
    wire::Refused refused;
    memcpy(&refused, packet, sizeof(refused));
    return refused.code > 0 && refused.code < 4096 ? static_cast<int>(refused.code) : EPERM;
  }
  if (header.type != wire::Type::kWelcome || bytes != sizeof(wire::Welcome)) return EPROTO;
  memcpy(&out->welcome, packet, sizeof(out->welcome));
  if (out->welcome.protocol_version != wire::kProtocolVersion ||
      out->welcome.layout_version != region::kLayoutVersion)
    return EPROTO;
  out->same_generation =
      hello.last_generation != 0 && hello.last_generation == out->welcome.generation;
  return out->same_generation ? 0 : Map(out->welcome, segments, out);
}

int SendHello(const char* socket_path, const wire::Hello& hello, unsigned timeout_ms,
              unsigned refused_ms, SentHello* out) noexcept {
  *out = {};
  int fd;
  if (const int error = Connect(socket_path, timeout_ms, refused_ms, &fd)) return error;
  ssize_t sent;
  do sent = send(fd, &hello, sizeof(hello), MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent != sizeof(hello)) {
    const int error = sent < 0 ? (errno == EAGAIN ? ETIMEDOUT : errno) : EPROTO;
    close(fd);
    return error;
  }
  *out = {true, fd, 0};
  return 0;
}

int TakeWelcome(SentHello* sent, const wire::Hello& hello, unsigned timeout_ms,
                Welcomed* out) noexcept {
  const SentHello at = *sent;
  struct stat st;
  if (!at.sent || (at.inode != 0 && (fstat(at.fd, &st) != 0 || st.st_ino != at.inode))) {
    *sent = {};
    return EBADF;
  }
  Answer answer;
  int error = Receive(at.fd, timeout_ms, &answer);
  if (error == ETIMEDOUT) {
    if (at.inode == 0) {
      if (const int high = fcntl(at.fd, F_DUPFD_CLOEXEC, kLowestFd); high >= 0) {
        close(at.fd);
        sent->fd = high;
      }
      if (fstat(sent->fd, &st) == 0) sent->inode = st.st_ino;
    }
    return error;
  }
  if (error == 0)
    error = TakeAnswer(answer.bytes, static_cast<size_t>(answer.size), answer.fd, hello, out);
  // A connection that was welcomed stays open and silent until the process ends; nothing here names
  // it again.
  int done[] = {-1, answer.fd[0], answer.fd[1], answer.fd[2]};
  if (error == 0 && at.fd < kLowestFd && fcntl(at.fd, F_DUPFD_CLOEXEC, kLowestFd) >= 0)
    done[0] = at.fd;
  CloseAll(done, 4);
  if (error != 0)
    DropHello(sent);
  else
    *sent = {};
  return error;
}

void DropHello(SentHello* sent) noexcept {
  struct stat st;
  if (sent->sent && (sent->inode == 0 || (fstat(sent->fd, &st) == 0 && st.st_ino == sent->inode)))
    close(sent->fd);
  *sent = {};
}

void Unmap(const region::Policy* policy, region::Usage* usage, region::Bell* bell) noexcept {
  if (policy != nullptr) munmap(const_cast<region::Policy*>(policy), region::kPolicyBytes);
  if (usage != nullptr) munmap(usage, region::kUsageBytes);
  if (bell != nullptr) munmap(bell, region::kBellBytes);
}

}  // namespace divvy::shim
