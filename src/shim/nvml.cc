// Devices and processes of the tenant in NVML's terms; see nvml.h.
#include "src/shim/nvml.h"

#include <string.h>
#include <unistd.h>

#include "src/shim/attach.h"
#include "src/shim/driver.h"

namespace divvy::shim {
namespace {

// A slot that was never used ends the walk over the tenant's processes after this many.
constexpr unsigned kEmptyRun = 64;

// "GPU-" or "MIG-" and 32 hexadecimal digits with dashes.
bool ParseUuid(const char* text, uint8_t (&out)[16]) noexcept {
  const char* p = strchr(text, '-');
  if (p == nullptr) return false;
  unsigned digits = 0;
  for (++p; *p != 0 && digits < 32; ++p) {
    if (*p == '-') continue;
    const int v = *p >= '0' && *p <= '9'   ? *p - '0'
                  : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
                  : *p >= 'A' && *p <= 'F' ? *p - 'A' + 10
                                           : -1;
    if (v < 0) return false;
    out[digits / 2] = static_cast<uint8_t>(digits % 2 == 0 ? v << 4 : out[digits / 2] | v);
    ++digits;
  }
  return digits == 32;
}

void WriteUuid(const uint8_t (&uuid)[16], char (&out)[41]) noexcept {
  constexpr char kHex[] = "0123456789abcdef";
  memcpy(out, "GPU-", 4);
  char* p = out + 4;
  for (unsigned i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *p++ = '-';
    *p++ = kHex[uuid[i] >> 4];
    *p++ = kHex[uuid[i] & 15];
  }
  *p = 0;
}

struct Order {
  uint8_t policy[region::kMaxDevices];
  nvmlDevice_t handle[region::kMaxDevices];
  unsigned count = 0;
};

// The shares' devices that NVML knows, by the host's index.
Order Visible(const Session& s) noexcept {
  Order order;
  bool done[region::kMaxDevices] = {};
  for (unsigned n = 0; n < s.policy->device_count; ++n) {
    int next = -1;
    for (unsigned i = 0; i < s.policy->device_count; ++i)
      if (!done[i] &&
          (next < 0 || s.policy->device[i].nvml_index < s.policy->device[next].nvml_index))
        next = static_cast<int>(i);
    done[next] = true;
    char uuid[41];
    WriteUuid(s.policy->device[next].uuid, uuid);
    nvmlDevice_t handle;
    if (g_nvml.nvmlDeviceGetHandleByUUID(uuid, &handle) != NVML_SUCCESS) {
      memcpy(uuid, "MIG-", 4);
      if (g_nvml.nvmlDeviceGetHandleByUUID(uuid, &handle) != NVML_SUCCESS) continue;
    }
    order.policy[order.count] = static_cast<uint8_t>(next);
    order.handle[order.count++] = handle;
  }
  return order;
}

}  // namespace

int NvmlLocalOf(nvmlDevice_t device) noexcept {
  const Session* s = CurrentSession();
  char text[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
  uint8_t uuid[16];
  if (s == nullptr || device == nullptr ||
      g_nvml.nvmlDeviceGetUUID(device, text, sizeof(text)) != NVML_SUCCESS ||
      !ParseUuid(text, uuid))
    return -1;
  for (unsigned i = 0; i < s->policy->device_count; ++i)
    if (memcmp(s->policy->device[i].uuid, uuid, 16) == 0) return s->local_index[i];
  return -1;
}

unsigned NvmlCount() noexcept {
  const Session* s = CurrentSession();
  return s != nullptr ? Visible(*s).count : 0;
}

nvmlReturn_t NvmlHandle(unsigned index, nvmlDevice_t* out) noexcept {
  const Session* s = CurrentSession();
  const Order order = Visible(*s);
  if (index >= order.count || out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *out = order.handle[index];
  return NVML_SUCCESS;
}

int NvmlIndexOf(int local) noexcept {
  const Session* s = CurrentSession();
  if (s == nullptr || local < 0 || s->policy_index[local] < 0) return -1;
  const Order order = Visible(*s);
  for (unsigned i = 0; i < order.count; ++i)
    if (order.policy[i] == s->policy_index[local]) return static_cast<int>(i);
  return -1;
}

bool NvmlOwnProcess(unsigned pid) noexcept {
  if (pid == static_cast<unsigned>(getpid())) return true;
  const Session* s = CurrentSession();
  unsigned empty = 0;
  for (unsigned i = 1; s != nullptr && i < region::kMaxSlots && empty < kEmptyRun; ++i) {
    const region::ProcessSlot& slot = s->usage->slot[i];
    if (slot.owner_tag.load(std::memory_order_acquire) == 0) {
      ++empty;
      continue;
    }
    empty = 0;
    if (slot.ns_pid.load(std::memory_order_relaxed) == pid) return true;
  }
  return false;
}

}  // namespace divvy::shim
