// The simulated machine's page: devices and client rows. See machine.h.
#include "src/sim/broker/machine.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

namespace divvy::sim {
namespace {

// 64-bit mix (SplitMix64's finaliser): spreads a name over a UUID.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

void MakeUuid(const std::string& seed, uint32_t index, unsigned char out[16]) {
  uint64_t a = 0xD1FF5EED, b = index + 1;
  for (unsigned char c : seed) a = Mix(a ^ c), b = Mix(b + a);
  a = Mix(a ^ (uint64_t(index) << 32));
  b = Mix(b ^ a);
  memcpy(out, &a, 8);
  memcpy(out + 8, &b, 8);
  out[6] = (out[6] & 0x0F) | 0x40;  // RFC 4122 version 4
  out[8] = (out[8] & 0x3F) | 0x80;
}

}  // namespace

Result<Machine> Machine::Make(const MachineOptions& o) {
  Machine m;
  m.fd_ = UniqueFd(memfd_create("divvy-sim-machine", MFD_CLOEXEC));
  if (!m.fd_.valid()) return IoError("memfd_create", errno);
  if (ftruncate(m.fd_.get(), sizeof(MachinePage)) != 0) return IoError("ftruncate", errno);
  void* at = mmap(nullptr, sizeof(MachinePage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                  m.fd_.get(), 0);
  if (at == MAP_FAILED) return IoError("mmap of the machine page", errno);
  MachinePage* p = static_cast<MachinePage*>(at);
  const Profile& profile = *o.spec.profile;
  p->version = 1;
  p->device_count = o.spec.count;
  p->dilation = o.spec.dilation;
  p->nvml_mode = uint32_t(o.nvml_mode);
  p->usable_bytes = profile.nvml_total_bytes - profile.reserved_bytes;
  p->nvml_lag_ns = o.nvml_lag_ns;
  p->util_bucket_ns = 20'000'000;
  strncpy(p->profile_key, profile.key, sizeof p->profile_key - 1);
  for (uint32_t d = 0; d < o.spec.count; ++d) {
    InitDeviceLock(&p->device[d]);
    MakeUuid(o.seed, d, p->device[d].uuid);
    p->device[d].pci_bus = 0x04 + 0x10 * d;
  }
  p->magic = kMachineMagic;
  m.page_ = p;
  return m;
}

Result<uint32_t> Machine::AddRow(pid_t pid, const char* name) {
  for (uint32_t i = 0; i < kMaxClients; ++i) {
    ClientRow& r = page_->row[i];
    if (r.state.load(std::memory_order_relaxed) != kClientFree) continue;
    if (i >= page_->rows_high.load(std::memory_order_relaxed)) {
      page_->rows_high.store(i + 1, std::memory_order_release);  // pairs with readers of the rows
    }
    r.generation.fetch_add(1, std::memory_order_relaxed);
    r.pid.store(pid, std::memory_order_relaxed);
    strncpy(r.process_name, name, sizeof r.process_name - 1);
    r.state.store(kClientLive, std::memory_order_release);  // pairs with readers of the rows
    return i;
  }
  return NoRoom("simulated machine: too many processes (" + std::to_string(kMaxClients) + ")");
}

void Machine::FreeRow(uint32_t row) {
  ClearBooks(page_, row);
  page_->row[row].state.store(kClientFree, std::memory_order_release);
}

}  // namespace divvy::sim
