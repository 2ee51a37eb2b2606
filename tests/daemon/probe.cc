// A tenant's process on a string: speaks the tenant protocol and uses the (simulated) driver as the
// script on its stdin says, so that tests can stop, kill and misuse it at any point. It is not the
// shim and shares only the region's headers with it.
//
// One command a line, one answer a line. See Run().
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "src/region/books.h"
#include "src/region/wire.h"

namespace {
namespace region = divvy::region;
namespace wire = divvy::wire;

int g_socket = -1;
wire::Welcome g_welcome{};
region::Policy* g_policy = nullptr;
region::Usage* g_usage = nullptr;
region::Bell* g_bell = nullptr;
int g_fds[3] = {-1, -1, -1};
uint32_t g_sequence = 0;

int Connect(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

// hello SOCKET [gen=N] [flags=N] [held=UNITS: of each device of the last policy]
std::string SayHello(std::istringstream& in) {
  std::string path, word;
  in >> path;
  wire::Hello h{};
  h.header = {wire::kMagic, wire::Type::kHello, sizeof h};
  h.protocol_version = wire::kProtocolVersion;
  h.layout_version = region::kLayoutVersion;
  h.ns_pid = static_cast<uint32_t>(::getpid());
  std::strcpy(h.command, "probe");
  while (in >> word) {
    const auto value = std::strtoull(word.c_str() + word.find('=') + 1, nullptr, 0);
    if (word.starts_with("gen=")) h.last_generation = value;
    if (word.starts_with("flags=")) h.flags = static_cast<uint32_t>(value);
    if (word.starts_with("held=") && g_policy != nullptr) {
      h.held_count = g_policy->device_count;
      for (uint32_t d = 0; d < h.held_count; ++d) {
        std::memcpy(h.held[d].uuid, g_policy->device[d].uuid, 16);
        h.held[d].units = value;
        h.held[d].kind_units[0] = value;
      }
    }
  }
  g_socket = Connect(path);
  if (g_socket < 0) return std::string("unreachable ") + std::strerror(errno);
  if (::send(g_socket, &h, sizeof h, MSG_NOSIGNAL) != sizeof h) return "unsent";
  char buffer[wire::kMaxMessage];
  iovec part{buffer, sizeof buffer};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof g_fds)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(g_socket, &message, MSG_CMSG_CLOEXEC);
  if (n <= 0) return "closed";
  if (n == sizeof(wire::Refused)) {
    wire::Refused r;
    std::memcpy(&r, buffer, sizeof r);
    return "refused " + std::to_string(r.code) + " " + r.reason;
  }
  const cmsghdr* c = CMSG_FIRSTHDR(&message);
  if (n != sizeof g_welcome || c == nullptr || c->cmsg_len != CMSG_LEN(sizeof g_fds))
    return "strange";
  std::memcpy(&g_welcome, buffer, sizeof g_welcome);
  std::memcpy(g_fds, CMSG_DATA(c), sizeof g_fds);
  g_policy = static_cast<region::Policy*>(
      ::mmap(nullptr, g_welcome.policy_bytes, PROT_READ, MAP_SHARED, g_fds[0], 0));
  g_usage = static_cast<region::Usage*>(
      ::mmap(nullptr, g_welcome.usage_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, g_fds[1], 0));
  g_bell = static_cast<region::Bell*>(
      ::mmap(nullptr, region::kBellBytes, PROT_READ | PROT_WRITE, MAP_SHARED, g_fds[2], 0));
  g_sequence = 0;
  return "welcome " + std::to_string(g_welcome.slot) + " " + std::to_string(g_welcome.generation) +
         " " + std::to_string(g_welcome.device_count);
}

// charge DEVICE BYTES [KIND [BEGUN]]: as the shim does, against limit - overhead; BEGUN 1: the
// driver has still to answer
std::string Charge(std::istringstream& in) {
  unsigned device = 0, kind = 0;
  int64_t bytes = 0;
  int begun = 0;
  in >> device >> bytes >> kind >> begun;
  const region::PolicyDevice& p = g_policy->device[device];
  const int64_t room = static_cast<int64_t>(p.limit_bytes.load()) - p.overhead_bytes.load();
  const auto units = static_cast<int64_t>(region::UnitsOf(static_cast<uint64_t>(std::abs(bytes))));
  const bool ok = region::Change(*g_usage, g_welcome.slot, device, bytes < 0 ? -units : units,
                                 room < 0 ? 0 : static_cast<uint64_t>(room) / region::kUnitBytes,
                                 static_cast<region::Kind>(kind), g_sequence, begun);
  return ok ? "ok" : "refused";
}

std::string Exec() {
  ::execl("/proc/self/exe", "probe-again", nullptr);
  return "error";
}

// charge_and_die DEVICE BYTES [exec]: killed, or another program, halfway: the charge stands in the
// book, the slot has not been told.
std::string ChargeAndDie(std::istringstream& in) {
  unsigned device = 0;
  uint64_t bytes = 0;
  std::string how;
  in >> device >> bytes >> how;
  region::Change(*g_usage, g_welcome.slot, device, static_cast<int64_t>(region::UnitsOf(bytes)),
                 region::kMaxUnits, region::Kind::kLinear, g_sequence, 0, [&](region::BookStep at) {
                   if (at != region::BookStep::kSwapped) return;
                   if (how == "exec") Exec();
                   ::raise(SIGKILL);
                 });
  return "alive";
}

// answered: the driver's answer to what was begun
std::string Answered() {
  g_usage->slot[g_welcome.slot].answered.fetch_add(1, std::memory_order_release);
  return "ok";
}

std::string Policy(std::istringstream& in) {
  unsigned d = 0;
  in >> d;
  const region::PolicyDevice& p = g_policy->device[d];
  std::ostringstream out;
  out << "limit=" << p.limit_bytes << " rest=" << p.rest_bytes << " overhead=" << p.overhead_bytes
      << " context=" << p.context_bytes << " heartbeat=" << g_policy->heartbeat_ns
      << " gate=" << p.gate.word << " bound=" << p.gate.bound_us << " space=" << p.gate.space_us
      << " patience=" << p.gate.patience_us << " cap=" << p.cap_milli;
  return out.str();
}

// lane DEVICE LANE ISSUED MARKED MARKER KIND [START]: a stream's counters, as shim and GPU write
// them
std::string SetLane(std::istringstream& in) {
  unsigned device = 0, lane = 0, kind = 0;
  uint64_t issued = 0, marked = 0, marker = 0, start = 0;
  in >> device >> lane >> issued >> marked >> marker >> kind >> start;
  region::Meter& m = g_usage->meter[g_welcome.slot].device[device];
  if (lane >= region::kLanes) return "what?";
  if (m.lanes <= lane) m.lanes = lane + 1;
  region::Lane& l = m.lane[lane];
  auto& launches = g_usage->slot[g_welcome.slot].launches;
  launches += issued - l.issued;
  m.operations += issued - l.issued;
  l.issued = issued;
  l.start = start;
  l.marked = marked;
  l.marker = marker << 2 | kind;
  return "ok";
}

// meter DEVICE WAITERS WAITS GATE_WAIT_NS
std::string SetMeter(std::istringstream& in) {
  unsigned device = 0;
  uint32_t waiters = 0;
  uint64_t waits = 0, wait_ns = 0;
  in >> device >> waiters >> waits >> wait_ns;
  region::Meter& m = g_usage->meter[g_welcome.slot].device[device];
  m.waiters = waiters;
  m.waits = waits;
  m.gate_wait_ns = wait_ns;
  return "ok";
}

std::string Ring() {
  g_bell->rung.fetch_add(1);
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&g_bell->rung), FUTEX_WAKE, 1 << 30, nullptr,
            nullptr, 0);
  return "ok";
}

void* g_cuda = nullptr;
template <typename... Args>
int Cuda(const char* name, Args... args) {
  auto* fn = reinterpret_cast<int (*)(Args...)>(::dlsym(g_cuda, name));
  return fn == nullptr ? -1 : fn(args...);
}

// cuda LIBRARY DEVICE: a context on the device, uncharged unless the test charges it
std::string OpenCuda(std::istringstream& in) {
  std::string library;
  int device = 0;
  in >> library >> device;
  g_cuda = ::dlopen(library.c_str(), RTLD_NOW);
  if (g_cuda == nullptr) return std::string("error ") + ::dlerror();
  void* context = nullptr;
  int r = Cuda("cuInit", 0u);
  if (r == 0) r = Cuda("cuCtxCreate_v2", &context, 0u, device);
  return r == 0 ? "ok" : "error " + std::to_string(r);
}

// spin NS COUNT: kernels that no meter hears of; waits for them
std::string Spin(std::istringstream& in) {
  unsigned long long ns = 0;
  int count = 0;
  in >> ns >> count;
  static void* spin = nullptr;
  if (spin == nullptr) {
    void* module = nullptr;
    const char* const ptx =
        ".version 6.0\n.target sm_50\n.address_size 64\n"
        ".visible .entry spin(.param .u64 ns) { ret; }\n";
    if (int r = Cuda("cuModuleLoadData", &module, static_cast<const void*>(ptx)); r != 0)
      return "error " + std::to_string(r);
    Cuda("cuModuleGetFunction", &spin, module, "spin");
  }
  for (int i = 0; i < count; ++i) {
    void* params[] = {&ns};
    const int r =
        Cuda("cuLaunchKernel", spin, 1u, 1u, 1u, 1u, 1u, 1u, 0u, static_cast<void*>(nullptr),
             static_cast<void**>(params), static_cast<void**>(nullptr));
    if (r != 0) return "error " + std::to_string(r);
  }
  return Cuda("cuCtxSynchronize") == 0 ? "ok" : "error";
}

std::string Allocate(std::istringstream& in) {
  size_t bytes = 0;
  in >> bytes;
  unsigned long long pointer = 0;
  const int r = Cuda("cuMemAlloc_v2", &pointer, bytes);
  return r == 0 ? std::to_string(pointer) : "error " + std::to_string(r);
}

std::string Free(std::istringstream& in) {
  unsigned long long pointer = 0;
  in >> pointer;
  return Cuda("cuMemFree_v2", pointer) == 0 ? "ok" : "error";
}

// record COUNT LENGTH GAP: operations as a recorded shim writes them
std::string Record(std::istringstream& in) {
  unsigned count = 0, length = 0, gap = 0;
  in >> count >> length >> gap;
  for (unsigned i = 0; i < count; ++i) {
    const uint64_t ticket = g_usage->record_head.fetch_add(1);
    region::OperationRecord& r = g_usage->record[ticket % region::kMaxRecords];
    r.length = length;
    r.gap = gap;
    r.key = 7;
    r.device = 0;
    r.kind = i % 2 == 0 ? 0 : 3;
    r.synced = i % 10 == 0 ? 1 : 0;
    r.sequence.store(ticket + 1, std::memory_order_release);
  }
  return "ok";
}

// event BYTES CAUSE COUNT: refusals told as the shim tells them
std::string TellEvents(std::istringstream& in) {
  uint64_t bytes = 0;
  unsigned cause = 0, count = 0, symbol = 0;
  in >> bytes >> cause >> count;
  if (!(in >> symbol)) symbol = 0;
  for (unsigned i = 0; i < count; ++i) {
    const uint64_t n = g_usage->event_head.fetch_add(1);
    region::UsageEvent& e = g_usage->event[n % region::kMaxEvents];
    e.sequence = 2 * n + 1;
    e.bytes = bytes;
    e.limit = g_policy->device[0].limit_bytes;
    e.slot = g_welcome.slot;
    e.device = 0;
    e.cause = static_cast<uint16_t>(cause);
    e.symbol = symbol;
    e.sequence.store(2 * n + 2, std::memory_order_release);
  }
  return "ok";
}

// scribble PATTERN: over the whole usage segment
std::string Scribble(std::istringstream& in) {
  unsigned pattern = 0xff;
  in >> pattern;
  std::memset(static_cast<void*>(g_usage), static_cast<int>(pattern), 1 << 20);
  return "ok";
}

// fork: a child that lives until this process's pid is written to its pipe; keeps every descriptor
std::string Fork() {
  int hold[2];
  if (::pipe(hold) != 0) return "error";
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(hold[1]);
    char byte;
    while (::read(hold[0], &byte, 1) > 0) {
    }
    for (;;) ::pause();
  }
  ::close(hold[0]);
  return std::to_string(child);
}

// many SOCKET COUNT: children that say hello and stay until the last line of stdin
std::string Many(std::istringstream& in) {
  std::string path;
  int count = 0, good = 0;
  in >> path >> count;
  int ready[2], hold[2];
  if (::pipe(ready) != 0 || ::pipe(hold) != 0) return "error";
  for (int i = 0; i < count; ++i) {
    if (::fork() != 0) continue;
    ::close(hold[1]);
    std::istringstream words(path + " flags=1");
    const std::string answer = SayHello(words);
    if (answer.starts_with("welcome")) {
      std::istringstream charge("0 1048576");
      if (Charge(charge) != "ok") ::_exit(1);
    }
    const char c = answer.starts_with("welcome") ? '+' : '-';
    if (::write(ready[1], &c, 1) != 1) ::_exit(1);
    char byte;
    [[maybe_unused]] const ssize_t n = ::read(hold[0], &byte, 1);  // the parent's end closes it
    ::_exit(0);
  }
  for (int i = 0; i < count; ++i) {
    char c = 0;
    if (::read(ready[0], &c, 1) == 1) good += c == '+';
  }
  static std::vector<int> kept;
  kept.push_back(hold[1]);
  return std::to_string(good);
}

// garbage SOCKET COUNT SEED: packets of noise, some of them nearly a Hello
std::string Garbage(std::istringstream& in) {
  std::string path;
  unsigned count = 0, seed = 0;
  in >> path >> count >> seed;
  std::srand(seed);
  for (unsigned i = 0; i < count; ++i) {
    const int fd = Connect(path);
    if (fd < 0) return "unreachable";
    wire::Hello h{};
    h.header = {wire::kMagic, wire::Type::kHello, sizeof h};
    h.protocol_version = wire::kProtocolVersion;
    h.layout_version = region::kLayoutVersion;
    auto* bytes = reinterpret_cast<unsigned char*>(&h);
    for (int n = std::rand() % 64; n > 0; --n)
      bytes[static_cast<size_t>(std::rand()) % sizeof h] = static_cast<unsigned char>(std::rand());
    ::send(fd, &h, static_cast<size_t>(std::rand()) % (sizeof h + 1), MSG_NOSIGNAL);
    if (i % 2 != 0) ::send(fd, &h, sizeof h, MSG_NOSIGNAL);
    ::close(fd);
  }
  return "ok";
}

std::string Run(const std::string& line) {
  std::istringstream in(line);
  std::string verb;
  in >> verb;
  if (verb == "hello") return SayHello(in);
  if (verb == "charge") return Charge(in);
  if (verb == "charge_and_die") return ChargeAndDie(in);
  if (verb == "answered") return Answered();
  if (verb == "policy") return Policy(in);
  if (verb == "lane") return SetLane(in);
  if (verb == "meter") return SetMeter(in);
  if (verb == "ring") return Ring();
  if (verb == "cuda") return OpenCuda(in);
  if (verb == "spin") return Spin(in);
  if (verb == "alloc") return Allocate(in);
  if (verb == "free") return Free(in);
  if (verb == "record") return Record(in);
  if (verb == "event") return TellEvents(in);
  if (verb == "scribble") return Scribble(in);
  if (verb == "fork") return Fork();
  if (verb == "many") return Many(in);
  if (verb == "garbage") return Garbage(in);
  if (verb == "truncate")
    return ::ftruncate(g_fds[1], 0) == 0 || ::ftruncate(g_fds[0], 0) == 0 ? "done" : "refused";
  if (verb == "hangup") return ::close(g_socket) == 0 ? "ok" : "error";
  if (verb == "eof") {  // has the daemon closed its end?
    char byte;
    return ::recv(g_socket, &byte, 1, MSG_DONTWAIT) == 0 ? "yes" : "no";
  }
  if (verb == "exec") return Exec();
  return "what?";
}

}  // namespace

int main(int, char** argv) {
  if (std::strcmp(argv[0], "probe-again") == 0) std::cout << "again" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) std::cout << Run(line) << std::endl;
}
