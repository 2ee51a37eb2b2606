#include "src/shim/testing/fake_daemon.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <new>

#include "src/shim/lock.h"
#include "src/shim/process.h"
#include "src/shim/tenancy.h"

namespace divvy::shim::testing {

FakeDaemon::FakeDaemon(std::vector<FakeShare> shares, uint64_t generation)
    : shares_(std::move(shares)) {
  char folder[] = "/tmp/divvy-shim-test-XXXXXX";
  folder_ = mkdtemp(folder);
  path_ = folder_ + "/tenant.sock";
  MakeSegments(generation);
  Listen();
}

FakeDaemon::~FakeDaemon() {
  Die();
  unlink(path_.c_str());
  rmdir(folder_.c_str());
}

void FakeDaemon::MakeSegments(uint64_t generation) {
  policy_fd_ = memfd_create("policy", MFD_CLOEXEC);
  usage_fd_ = memfd_create("usage", MFD_CLOEXEC);
  bell_fd_ = memfd_create("bell", MFD_CLOEXEC);
  if (ftruncate(policy_fd_, region::kPolicyBytes) != 0 ||
      ftruncate(bell_fd_, region::kBellBytes) != 0 ||
      ftruncate(usage_fd_, region::kUsageBytes) != 0)
    abort();
  policy_ = static_cast<region::Policy*>(
      mmap(nullptr, region::kPolicyBytes, PROT_READ | PROT_WRITE, MAP_SHARED, policy_fd_, 0));
  usage_ = static_cast<region::Usage*>(
      mmap(nullptr, region::kUsageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, usage_fd_, 0));
  bell_ = static_cast<region::Bell*>(
      mmap(nullptr, region::kBellBytes, PROT_READ | PROT_WRITE, MAP_SHARED, bell_fd_, 0));
  policy_->magic = region::kPolicyMagic;
  policy_->version = region::kLayoutVersion;
  policy_->size_bytes = region::kPolicyBytes;
  policy_->generation = generation;
  policy_->device_count = static_cast<uint32_t>(shares_.size());
  usage_->magic = region::kUsageMagic;
  usage_->version = region::kLayoutVersion;
  usage_->size_bytes = region::kUsageBytes;
  usage_->generation = generation;
  for (size_t i = 0; i < shares_.size(); ++i) {
    region::PolicyDevice& d = policy_->device[i];
    memset(d.uuid, shares_[i].uuid_byte, 16);
    if (shares_[i].uuid.size() == 16) memcpy(d.uuid, shares_[i].uuid.data(), 16);
    d.nvml_index = shares_[i].nvml_index;
    d.limit_bytes = shares_[i].limit_bytes;
    d.rest_bytes = UINT64_MAX;
    d.context_bytes = shares_[i].context_bytes;
    d.total_bytes = uint64_t{80} << 30;
  }
  next_slot_ = 1;
  Beat();
}

// Alive however long a busy machine takes over a test.
void FakeDaemon::Beat() { policy_->heartbeat_ns = UINT64_MAX / 2; }

void FakeDaemon::SetGate(uint32_t bits, unsigned device) {
  region::U32& word = gate(device).word;
  const uint32_t sequence = bits == 0 ? 0 : ++gate_sequence_ * region::kGateSequence;
  word.store(bits | sequence, std::memory_order_release);
  Futex(&word, FUTEX_WAKE, INT32_MAX, nullptr);
}

void FakeDaemon::Listen() {
  listener_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path_.c_str(), sizeof(address.sun_path) - 1);
  unlink(path_.c_str());
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener_, 64) != 0 || pipe(stop_) != 0)
    abort();
  thread_ = std::thread([this] { Serve(); });
}

void FakeDaemon::Die() {
  if (!thread_.joinable()) return;
  GoOn();
  close(stop_[1]);
  thread_.join();
  close(stop_[0]);
  close(listener_);
  for (int fd : connections_) close(fd);
  connections_.clear();
  close(policy_fd_);
  close(usage_fd_);
  close(bell_fd_);
  policy_->heartbeat_ns = 1;  // long ago
}

void FakeDaemon::Restart(uint64_t generation) {
  Die();
  MakeSegments(generation);
  Listen();
}

void FakeDaemon::Stop() {
  const std::lock_guard lock(stopped_mu_);
  stopped_ = true;
}

void FakeDaemon::GoOn() {
  {
    const std::lock_guard lock(stopped_mu_);
    stopped_ = false;
  }
  goes_on_.notify_all();
}

void FakeDaemon::Serve() {
  for (;;) {
    pollfd wait[2] = {{listener_, POLLIN, 0}, {stop_[0], POLLIN, 0}};
    poll(wait, 2, -1);
    if (wait[1].revents != 0) return;
    {
      std::unique_lock lock(stopped_mu_);
      goes_on_.wait(lock, [this] { return !stopped_; });
    }
    const int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection >= 0) Answer(connection);
  }
}

void FakeDaemon::Answer(int connection) {
  connections_.push_back(connection);
  wire::Hello hello;
  if (recv(connection, &hello, sizeof(hello), 0) != sizeof(hello)) return;
  last_hello_ = hello;
  ++hellos_;
  if (hang_up_ > 0) {
    --hang_up_;
    connections_.pop_back();
    close(connection);
    return;
  }
  if (refuse_ != 0) {
    wire::Refused refused{};
    refused.header = {wire::kMagic, wire::Type::kRefused, sizeof(refused)};
    refused.code = refuse_;
    send(connection, &refused, sizeof(refused), MSG_NOSIGNAL);
    return;
  }
  wire::Welcome welcome{};
  welcome.header = {wire::kMagic, wire::Type::kWelcome, sizeof(welcome)};
  welcome.protocol_version = wire::kProtocolVersion;
  welcome.layout_version = region::kLayoutVersion;
  welcome.generation = policy_->generation;
  welcome.policy_bytes = region::kPolicyBytes;
  welcome.usage_bytes = region::kUsageBytes;
  welcome.device_count = policy_->device_count;
  welcome.slot = next_slot_;
  if (hello.last_generation != policy_->generation) {
    ++next_slot_;
    for (uint32_t h = 0; h < hello.held_count; ++h)
      for (uint32_t d = 0; d < policy_->device_count; ++d) {
        if (memcmp(hello.held[h].uuid, policy_->device[d].uuid, 16) != 0) continue;
        region::SlotDevice& account = usage_->slot[welcome.slot].device[d];
        account.charged_units = hello.held[h].units;
        for (unsigned k = 0; k < region::kKinds; ++k)
          account.kind_units[k] = hello.held[h].kind_units[k];
        region::AdjustBook(*usage_, d, static_cast<int64_t>(hello.held[h].units), daemon_sequence_);
      }
  }
  iovec part{&welcome, sizeof(welcome)};
  const int fds[3] = {policy_fd_, usage_fd_, bell_fd_};
  const size_t bytes = (gives_bell_ ? 3 : 2) * sizeof(int);
  alignas(cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(bytes);
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(bytes);
  memcpy(CMSG_DATA(c), fds, bytes);
  sendmsg(connection, &message, MSG_NOSIGNAL);
}

std::vector<region::UsageEvent*> FakeDaemon::Events() {
  std::vector<region::UsageEvent*> events;
  for (uint64_t n = 0; n < usage_->event_head; ++n) {
    region::UsageEvent& e = usage_->event[n % region::kMaxEvents];
    if (e.sequence == 2 * n + 2) events.push_back(&e);
  }
  return events;
}

void FreshProcess(const std::string& socket) {
  g_process.live.Reset();
  // As fork leaves it.
  memset(static_cast<void*>(&g_process), 0, sizeof(g_process));
  if (socket.empty())
    unsetenv(wire::kSocketVariable);
  else
    setenv(wire::kSocketVariable, socket.c_str(), 1);
  ForgetTenancy();
}

}  // namespace divvy::shim::testing
