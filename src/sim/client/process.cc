// This process's connection to the simulated machine. See process.h.
#include "src/sim/client/process.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/sim/client/device.h"
#include "src/sim/wire/find_broker.h"

namespace divvy::sim {
namespace {

// "GPU-" and the UUID's hexadecimal digits in groups.
std::string UuidText(const unsigned char u[16]) {
  char text[48];
  snprintf(text, sizeof text,
           "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
           u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
           u[15]);
  return text;
}

// The devices that CUDA_VISIBLE_DEVICES names, in its order: indices or (beginnings of) UUIDs. The
// first entry that names none, or one named before, ends the list (CUDA C++ Programming Guide,
// "CUDA Environment Variables").
std::vector<uint32_t> VisibleDevices(const MachinePage& page) {
  std::vector<uint32_t> out;
  const char* env = getenv("CUDA_VISIBLE_DEVICES");
  if (env == nullptr) {
    for (uint32_t d = 0; d < page.device_count; ++d) out.push_back(d);
    return out;
  }
  std::string list = env;
  for (size_t at = 0; at <= list.size();) {
    size_t end = std::min(list.find(',', at), list.size());
    std::string entry = list.substr(at, end - at);
    at = end + 1;
    entry.erase(0, entry.find_first_not_of(" \t"));
    entry.erase(entry.find_last_not_of(" \t") + 1);
    int found = -1;
    if (entry.rfind("GPU-", 0) == 0) {
      for (uint32_t d = 0; d < page.device_count; ++d) {
        if (UuidText(page.device[d].uuid).rfind(entry, 0) == 0) {
          if (found >= 0) return out;  // two devices begin like that
          found = int(d);
        }
      }
    } else if (!entry.empty() && entry.find_first_not_of("0123456789") == std::string::npos) {
      unsigned long n = strtoul(entry.c_str(), nullptr, 10);
      if (n < page.device_count) found = int(n);
    }
    if (found < 0) return out;
    for (uint32_t d : out) {
      if (d == uint32_t(found)) return {};  // named twice: an error, no device is visible
    }
    out.push_back(uint32_t(found));
  }
  return out;
}

}  // namespace

Process& Process::Get() {
  static Process& p = *new Process;
  return p;
}

Process::Process() {
  void* at = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  fork_mark_ = static_cast<unsigned char*>(at);
  madvise(at, 4096, MADV_WIPEONFORK);
  *fork_mark_ = 1;
}

CUresult Process::Ready() const {
  if (state_.load(std::memory_order_acquire) != CUDA_SUCCESS || forked()) {  // pairs with Init
    return CUDA_ERROR_NOT_INITIALIZED;
  }
  return CUDA_SUCCESS;
}

CUresult Process::Init() {
  int state = state_.load(std::memory_order_acquire);  // pairs with the release below
  if (state < 0) {
    std::lock_guard lock(init_mu_);
    state = state_.load(std::memory_order_relaxed);
    if (state < 0) {
      *fork_mark_ = 1;  // a child that never used the driver before may
      state = Connect();
      state_.store(state, std::memory_order_release);
    }
  }
  if (forked()) return CUDA_ERROR_NOT_INITIALIZED;
  return CUresult(state);
}

CUresult Process::Connect() {
  auto dir = FindMachineDir();
  if (!dir) return CUDA_ERROR_NO_DEVICE;
  auto sock = ConnectBroker(*dir);
  if (!sock) return CUDA_ERROR_NO_DEVICE;
  sock_ = std::move(sock).value();
  Request hello;
  hello.arg[0] = uint64_t(ClientKind::kCuda);
  strncpy(hello.name, ProgramPath().c_str(), sizeof hello.name - 1);
  Reply reply;
  WireFds fds;
  if (!AskBroker(hello, &reply, &fds).ok()) return CUDA_ERROR_NO_DEVICE;
  void* page = mmap(nullptr, sizeof(MachinePage), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_NORESERVE, fds.fd[0].get(), 0);
  void* channel =
      mmap(nullptr, sizeof(Channel), PROT_READ | PROT_WRITE, MAP_SHARED, fds.fd[1].get(), 0);
  if (page == MAP_FAILED || channel == MAP_FAILED) return CUDA_ERROR_OPERATING_SYSTEM;
  page_ = static_cast<MachinePage*>(page);
  channel_ = static_cast<Channel*>(channel);
  if (page_->magic != kMachineMagic) return CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
  row_ = reply.row;
  profile_ = ProfileOf(page_);
  for (uint32_t d : VisibleDevices(*page_)) {
    devices_.push_back(new Device(this, d, CUdevice(devices_.size())));
  }
  if (devices_.empty()) return CUDA_ERROR_NO_DEVICE;
  // An orderly exit gives memory back at once; nothing else is torn down, calls may still come.
  atexit([] {
    Process& p = Process::Get();
    Request bye;
    bye.ask = Ask::kBye;
    Reply ignored;
    if (p.Ready() == CUDA_SUCCESS) (void)p.AskBroker(bye, &ignored);
  });
  return CUDA_SUCCESS;
}

Device* Process::physical(uint32_t index) const {
  for (Device* d : devices_) {
    if (d->index() == index) return d;
  }
  return nullptr;
}

Status Process::AskBroker(const Request& request, Reply* reply, WireFds* fds) {
  std::lock_guard lock(sock_mu_);
  if (Status s = Send(sock_.get(), &request, sizeof request); !s.ok()) return s;
  if (Status s = Receive(sock_.get(), reply, sizeof *reply, fds); !s.ok()) return s;
  if (reply->error != 0) return IoError("simulator", reply->error);
  return {};
}

}  // namespace divvy::sim
