// The NVML look-alike's connection and books. See state.h.
#include "src/sim/nvml/state.h"

#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include <map>

#include "src/sim/wire/find_broker.h"
#include "src/sim/wire/protocol.h"

namespace divvy::sim {

Nvml& Nvml::Get() {
  static Nvml& n = *new Nvml;
  return n;
}

nvmlReturn_t Nvml::Init() {
  std::lock_guard lock(mu_);
  if (inits_ > 0) {
    ++inits_;
    return NVML_SUCCESS;
  }
  auto dir = FindMachineDir();
  if (!dir) return NVML_ERROR_DRIVER_NOT_LOADED;
  auto sock = ConnectBroker(*dir);
  if (!sock) return NVML_ERROR_DRIVER_NOT_LOADED;
  Request hello;
  hello.arg[0] = uint64_t(ClientKind::kNvml);
  Reply reply;
  WireFds fds;
  if (!Send(sock->get(), &hello, sizeof hello).ok() ||
      !Receive(sock->get(), &reply, sizeof reply, &fds).ok() || reply.error != 0) {
    return NVML_ERROR_DRIVER_NOT_LOADED;
  }
  void* at = mmap(nullptr, sizeof(MachinePage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                  fds.fd[0].get(), 0);
  if (at == MAP_FAILED) return NVML_ERROR_OPERATING_SYSTEM;
  page_ = static_cast<MachinePage*>(at);
  sock_ = std::move(sock).value();  // while it is open, the broker does not end
  for (unsigned i = 0; i < kMaxDevices; ++i) device_[i].index = i;
  lost_ = false;
  ++inits_;
  return NVML_SUCCESS;
}

nvmlReturn_t Nvml::Shutdown() {
  std::lock_guard lock(mu_);
  if (inits_ == 0) return NVML_ERROR_UNINITIALIZED;
  if (--inits_ == 0) sock_.reset();
  return NVML_SUCCESS;
}

bool Nvml::lost() {
  constexpr uint64_t kBetweenLooksNs = 20'000'000;
  const uint64_t now = NowNs();
  if (lost_ || now - looked_ns_ < kBetweenLooksNs) return lost_;
  std::lock_guard lock(mu_);
  looked_ns_ = now;
  pollfd end{sock_.get(), 0, 0};  // a hang-up is told unasked
  if (inits_ > 0 && poll(&end, 1, 0) > 0) lost_ = true;
  return lost_;
}

nvmlReturn_t FindGpu(nvmlDevice_t device, Gpu* gpu) {
  Nvml& n = Nvml::Get();
  MachinePage* page = n.page();
  if (page == nullptr) return NVML_ERROR_UNINITIALIZED;
  for (unsigned i = 0; i < page->device_count; ++i) {
    if (device != n.handle(i)) continue;
    if (n.lost()) return NVML_ERROR_GPU_IS_LOST;
    *gpu = Gpu{page, i, &page->device[i], ProfileOf(page)};
    return NVML_SUCCESS;
  }
  return NVML_ERROR_INVALID_ARGUMENT;
}

std::string Gpu::Uuid() const {
  const unsigned char* u = head->uuid;
  char text[48];
  snprintf(text, sizeof text,
           "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
           u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
           u[15]);
  return text;
}

std::string Gpu::PciBusId() const {
  char text[32];
  snprintf(text, sizeof text, "00000000:%02X:00.0", head->pci_bus);
  return text;
}

uint64_t UsedBytes(const Gpu& g) {
  if (g.page->nvml_lag_ns == 0) return g.head->used_bytes.load(std::memory_order_relaxed);
  uint64_t now = NowNs(), sum = 0;
  uint32_t high = g.page->rows_high.load(std::memory_order_acquire);  // pairs with AddRow
  for (uint32_t i = 0; i < high; ++i) {
    if (g.page->row[i].state.load(std::memory_order_relaxed) != kClientFree) {
      sum += LaggedUsed(g.page, i, g.index, now);
    }
  }
  return sum;
}

std::vector<ProcessUse> Processes(const Gpu& g) {
  std::map<unsigned, uint64_t> by_pid;
  uint64_t now = NowNs();
  uint32_t high = g.page->rows_high.load(std::memory_order_acquire);  // pairs with AddRow
  for (uint32_t i = 0; i < high; ++i) {
    ClientRow& r = g.page->row[i];
    if (r.state.load(std::memory_order_acquire) == kClientFree) continue;  // pairs with AddRow
    if (r.dev[g.index].contexts.load(std::memory_order_relaxed) == 0) continue;
    by_pid[unsigned(r.pid.load(std::memory_order_relaxed))] += LaggedUsed(g.page, i, g.index, now);
  }
  std::vector<ProcessUse> out;
  for (auto [pid, used] : by_pid) out.push_back({pid, used});
  return out;
}

nvmlReturn_t CopyText(const std::string& text, char* out, unsigned length) {
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (length <= text.size()) return NVML_ERROR_INSUFFICIENT_SIZE;
  memcpy(out, text.c_str(), text.size() + 1);
  return NVML_SUCCESS;
}

}  // namespace divvy::sim
