// The broker's socket loop. See server.h.
#include "src/sim/broker/server.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "src/sim/wire/arena.h"

namespace divvy::sim {
namespace {

// What an epoll event is about: the low 32 bits hold a client's id.
constexpr uint64_t kTagListen = 1ull << 32, kTagStarter = 2ull << 32, kTagStop = 3ull << 32,
                   kTagSock = 4ull << 32, kTagPid = 5ull << 32;

int OpenPidfd(pid_t pid) { return int(syscall(SYS_pidfd_open, pid, 0)); }

}  // namespace

Server::Server(const ServerOptions& o, Machine* machine, Timeline* timeline)
    : options_(o), machine_(machine), timeline_(timeline), shared_(machine->page()) {}

void Server::Watch(int fd, uint64_t tag) {
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.u64 = tag;
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &e);
}

Status Server::Listen() {
  if (mkdir(options_.dir.c_str(), 0755) != 0 && errno != EEXIST) {
    return IoError(options_.dir, errno);
  }
  if (ConnectBroker(options_.dir).ok()) {
    return Error{ErrorCode::kExists, "a simulated machine already runs at " + options_.dir};
  }
  unlink(SocketPath(options_.dir).c_str());
  sockaddr_un addr;
  UniqueFd folder;
  auto sock = SocketAt(options_.dir, &addr, &folder);
  if (!sock) return sock.error();
  listen_ = std::move(sock).value();
  if (bind(listen_.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr) != 0 ||
      chmod(SocketPath(options_.dir).c_str(), 0666) != 0 || listen(listen_.get(), 512) != 0) {
    return IoError(SocketPath(options_.dir), errno);
  }
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return IoError("epoll_create1", errno);
  Watch(listen_.get(), kTagListen);
  starter_gone_ = true;
  if (options_.starter_pid > 0) {
    starter_ = UniqueFd(OpenPidfd(options_.starter_pid));
    if (starter_.valid()) {
      starter_gone_ = false;
      Watch(starter_.get(), kTagStarter);
    }
  }
  return {};
}

Status Server::Run(int stop_fd) {
  Watch(stop_fd, kTagStop);
  uint64_t idle_since = NowNs();
  for (;;) {
    uint64_t now = NowNs();
    ReleaseDue(now);
    bool idle = clients_.empty() && leaving_.empty() && starter_gone_;
    if (!idle) idle_since = now;
    uint64_t wake = UINT64_MAX;
    for (const Leaving& l : leaving_) wake = std::min(wake, l.at_ns);
    if (idle && options_.linger_ns != UINT64_MAX) {
      if (now - idle_since >= options_.linger_ns) return {};
      wake = std::min(wake, idle_since + options_.linger_ns);
    }
    int timeout = wake == UINT64_MAX ? -1 : int((wake - now) / 1'000'000 + 1);
    epoll_event events[64];
    int n = epoll_wait(epoll_.get(), events, 64, timeout);
    if (n < 0 && errno != EINTR) return IoError("epoll_wait", errno);
    for (int i = 0; i < n; ++i) {
      uint64_t tag = events[i].data.u64 & ~0xFFFFFFFFull;
      auto it = clients_.find(int(events[i].data.u64 & 0xFFFFFFFF));
      if (tag == kTagStop) return {};
      if (tag == kTagListen) Accept();
      if (tag == kTagStarter) {
        starter_gone_ = true;
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, starter_.get(), nullptr);
        starter_.reset();
      }
      if (it == clients_.end()) continue;
      if (tag == kTagPid) End(it->second.get(), true);
      if (tag == kTagSock) Serve(it->second.get());
    }
  }
}

void Server::Accept() {
  UniqueFd sock(accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!sock.valid()) return;
  auto c = std::make_unique<Client>();
  c->id = next_id_++;
  c->sock = std::move(sock);
  Watch(c->sock.get(), kTagSock | uint32_t(c->id));
  clients_[c->id] = std::move(c);
}

void Server::Serve(Client* c) {
  Request q;
  Status got = Receive(c->sock.get(), &q, sizeof q, nullptr);
  if (!got.ok() && (errno == EAGAIN || errno == EWOULDBLOCK) &&
      got.error().code == ErrorCode::kIo) {
    return;
  }
  // A connection that ends without a bye is a kill (or an exec): its end is often heard before the
  // pidfd's, and must not give the memory back sooner.
  if (!got.ok()) return End(c, true);
  if (q.version != kProtocolVersion || !Answer(c, q).ok()) End(c, false);
}

Status Server::Greet(Client* c, const Request& q) {
  ucred cred{};
  socklen_t len = sizeof cred;
  Reply reply;
  if (getsockopt(c->sock.get(), SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0 || cred.pid <= 0) {
    reply.error = EPERM;
    (void)Send(c->sock.get(), &reply, sizeof reply);
    return Invalid("client without a process id here");
  }
  c->kind = ClientKind(q.arg[0]);
  c->pidfd = UniqueFd(OpenPidfd(cred.pid));
  if (!c->pidfd.valid()) return Invalid("client already gone");
  int fds[2] = {machine_->fd(), -1};
  if (c->kind == ClientKind::kCuda) {
    char name[48];
    memcpy(name, q.name, sizeof name);
    name[sizeof name - 1] = '\0';
    auto row = machine_->AddRow(cred.pid, name);
    if (!row) {
      reply.error = ENOSPC;
      (void)Send(c->sock.get(), &reply, sizeof reply);
      return row.error();
    }
    c->row = *row;
    fds[1] = timeline_->AddClient(c->row);
    if (fds[1] < 0) {
      machine_->FreeRow(c->row);
      return Internal("no channel");
    }
  }
  c->greeted = true;
  reply.row = c->row;
  Watch(c->pidfd.get(), kTagPid | uint32_t(c->id));
  return Send(c->sock.get(), &reply, sizeof reply, fds, fds[1] < 0 ? 1 : 2);
}

Result<std::shared_ptr<UniqueFd>> Server::ArenaOf(Client* c, uint32_t device) {
  auto& arena = c->arena[device];
  if (arena == nullptr) {
    UniqueFd fd(memfd_create("divvy-sim-memory", MFD_CLOEXEC));
    if (!fd.valid()) return IoError("memfd_create", errno);
    if (ftruncate(fd.get(), off_t(ArenaBytes(*machine_->page()))) != 0) {
      return IoError("ftruncate of device memory", errno);
    }
    arena = std::make_shared<UniqueFd>(std::move(fd));
  }
  return arena;
}

Status Server::Answer(Client* c, const Request& q) {
  if (!c->greeted) {
    if (q.ask != Ask::kHello) return Invalid("no hello");
    return Greet(c, q);
  }
  Reply reply;
  reply.row = c->row;
  int fd = -1;
  uint32_t devices = machine_->page()->device_count;
  bool cuda = c->kind == ClientKind::kCuda;
  switch (q.ask) {
    case Ask::kArena:
    case Ask::kExport: {
      if (!cuda || q.arg[0] >= devices) return Invalid("bad device");
      auto arena = ArenaOf(c, uint32_t(q.arg[0]));
      if (!arena) {
        reply.error = ENOMEM;
      } else if (q.ask == Ask::kArena) {
        fd = (*arena)->get();
      } else {
        reply.value[0] = shared_.Export(c->row, uint32_t(q.arg[0]), q.arg[1], q.arg[2], *arena);
      }
      break;
    }
    case Ask::kImport: {
      const Exported* e = cuda ? shared_.Import(q.arg[0], c->row) : nullptr;
      if (e == nullptr) {
        reply.error = ENOENT;
        break;
      }
      reply.value[0] = e->device;
      reply.value[1] = e->offset;
      reply.value[2] = e->bytes;
      fd = e->arena->get();
      break;
    }
    case Ask::kUnexport:
      reply.error = shared_.Unexport(q.arg[0], c->row) ? 0 : ENOENT;
      break;
    case Ask::kUnimport:
      reply.error = shared_.Unimport(q.arg[0], c->row) ? 0 : ENOENT;
      break;
    case Ask::kBye:
      c->bye = true;
      break;
    default:
      return Invalid("unknown request");
  }
  return Send(c->sock.get(), &reply, sizeof reply, &fd, fd < 0 ? 0 : 1);
}

void Server::End(Client* c, bool process_gone) {
  if (c->greeted && c->kind == ClientKind::kCuda) {
    timeline_->RemoveClient(c->row);
    // A killed process: the driver takes its time. Its arenas live on for whoever imported them.
    if (process_gone && !c->bye && options_.teardown_delay_ns > 0) {
      machine_->page()->row[c->row].state.store(kClientLeaving, std::memory_order_release);
      leaving_.push_back({c->row, NowNs() + options_.teardown_delay_ns});
    } else {
      Release(c->row);
    }
  }
  clients_.erase(c->id);  // closing takes the descriptors out of epoll
}

void Server::Release(uint32_t row) {
  shared_.Drop(row);
  machine_->FreeRow(row);
}

void Server::ReleaseDue(uint64_t now) {
  for (size_t i = 0; i < leaving_.size();) {
    if (leaving_[i].at_ns > now) {
      ++i;
      continue;
    }
    Release(leaving_[i].row);
    leaving_.erase(leaving_.begin() + i);
  }
}

}  // namespace divvy::sim
