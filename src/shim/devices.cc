// Devices and visibility; see devices.h.
#include "src/shim/devices.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/shim/attach.h"
#include "src/shim/cancel.h"
#include "src/shim/driver.h"
#include "src/shim/pages.h"

namespace divvy::shim {
namespace {

constexpr char kVariable[] = "CUDA_VISIBLE_DEVICES";
constexpr size_t kUuidText = 40;  // "GPU-" and 36 characters

void AppendUuid(const uint8_t (&uuid)[16], char* out) noexcept {
  constexpr char kHex[] = "0123456789abcdef";
  memcpy(out, "GPU-", 4);
  out += 4;
  for (unsigned i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *out++ = '-';
    *out++ = kHex[uuid[i] >> 4];
    *out++ = kHex[uuid[i] & 15];
  }
}

// Where the environment lies that the driver sees while it starts.
alignas(8) char environment_copy[16384];
// One thread at a time exchanges the environment; the others wait for it, this long at most.
constexpr unsigned kStartPatienceMs = 30000;

struct List {
  uint8_t index[region::kMaxDevices];  // in the policy
  unsigned count = 0;
  void Add(unsigned i) noexcept {
    for (unsigned k = 0; k < count; ++k)
      if (index[k] == i) return;
    if (count < region::kMaxDevices) index[count++] = static_cast<uint8_t>(i);
  }
};

// What the program asked for, among the shares. `value` is as the CUDA documentation describes it:
// numbers or (beginnings of) UUIDs; what follows an entry that names no device is not seen. A
// device that exists but is not shared counts as not there and hides nothing that follows.
void Choose(const region::Policy& policy, const char* value, List* out) noexcept {
  if (value == nullptr) {
    for (unsigned i = 0; i < policy.device_count; ++i) out->Add(i);
    return;
  }
  for (const char* p = value; *p != 0;) {
    while (*p == ' ') ++p;
    const char* end = p + strcspn(p, ",");
    const auto length = static_cast<size_t>(end - p);
    if (length > 4 && strncmp(p, "GPU-", 4) == 0) {
      for (unsigned i = 0; i < policy.device_count; ++i) {
        char text[kUuidText];
        AppendUuid(policy.device[i].uuid, text);
        if (length <= kUuidText && strncasecmp(p, text, length) == 0) out->Add(i);
      }
    } else {
      char* stop;
      const long number = strtol(p, &stop, 10);
      if (stop == p || number < 0) return;
      for (unsigned i = 0; i < policy.device_count; ++i)
        if (policy.device[i].nvml_index == static_cast<unsigned long>(number)) out->Add(i);
    }
    p = *end == ',' ? end + 1 : end;
  }
}

// Instances of a partitioned device are named otherwise; the driver finds them by itself.
bool NamesPartitions(const char* value) noexcept {
  return value != nullptr && strncmp(value, "MIG-", 4) == 0;
}

struct Shown {
  int8_t local_of_ordinal[kOrdinals];
  int32_t visible[kLocalDevices];
  uint32_t count = 0;
};

// Asks the driver for its devices; false before cuInit.
bool AskDriver(const Session& s, Shown* out) noexcept {
  memset(out->local_of_ordinal, -1, sizeof(out->local_of_ordinal));
  int count = 0;
  if (g_driver.cuDeviceGetCount(&count) != CUDA_SUCCESS) return false;
  for (int i = 0; i < count && i < static_cast<int>(kOrdinals); ++i) {
    CUdevice ordinal;
    CUuuid uuid;
    if (g_driver.cuDeviceGet(&ordinal, i) != CUDA_SUCCESS || ordinal < 0 ||
        ordinal >= static_cast<int>(kOrdinals))
      continue;
    // The second version tells the instances of a partitioned device apart.
    if (g_driver.cuDeviceGetUuid_v2(&uuid, ordinal) != CUDA_SUCCESS &&
        g_driver.cuDeviceGetUuid(&uuid, ordinal) != CUDA_SUCCESS)
      continue;
    for (unsigned local = 0; local < kLocalDevices; ++local) {
      if (s.policy_index[local] < 0 || memcmp(g_process.device[local].uuid, uuid.bytes, 16) != 0)
        continue;
      out->local_of_ordinal[ordinal] = static_cast<int8_t>(local);
      if (out->count < kLocalDevices) out->visible[out->count++] = ordinal;
    }
  }
  return true;
}

bool Enumerated() noexcept {
  if (__builtin_expect(g_process.enumerated.load(std::memory_order_acquire) != 0, 1)) return true;
  const Session* s = CurrentSession();
  Shown shown;
  if (s == nullptr || !AskDriver(*s, &shown) || !g_process.attach_lock.Lock()) return false;
  if (g_process.enumerated.load(std::memory_order_relaxed) == 0) {
    memcpy(g_process.local_of_ordinal, shown.local_of_ordinal, sizeof(shown.local_of_ordinal));
    memcpy(g_process.visible, shown.visible, sizeof(shown.visible));
    g_process.visible_count = shown.count;
    for (uint32_t i = 0; i < shown.count; ++i) {
      DeviceState& d = g_process.device[shown.local_of_ordinal[shown.visible[i]]];
      d.ordinal = shown.visible[i];
      d.present = true;
    }
    // Release: partner of the load above.
    g_process.enumerated.store(1, std::memory_order_release);
  }
  g_process.attach_lock.Unlock();
  return true;
}

CUresult StartShowing(unsigned flags) noexcept {
  const Session* s = CurrentSession();
  const char* value = getenv(kVariable);
  if (s == nullptr || NamesPartitions(value) ||
      g_process.enumerated.load(std::memory_order_acquire) != 0)
    return g_driver.cuInit(flags);

  // The driver reads the variable from `environ`. The array is exchanged for a copy, not changed:
  // setenv would move the host's own environment under it.
  size_t entries = 0;
  while (environ != nullptr && environ[entries] != nullptr) ++entries;
  const size_t text_bytes = sizeof(kVariable) + region::kMaxDevices * (kUuidText + 1) + 1;
  const size_t bytes = (entries + 2) * sizeof(char*) + text_bytes;
  const bool in_place = bytes <= sizeof(environment_copy);
  auto* copy = static_cast<char**>(in_place ? environment_copy : MapPages(bytes));
  if (copy == nullptr) return g_driver.cuInit(flags);
  List chosen;
  Choose(*s->policy, value, &chosen);
  char* text = reinterpret_cast<char*>(copy + entries + 2);
  char* out = text;
  memcpy(out, kVariable, sizeof(kVariable) - 1);
  out += sizeof(kVariable) - 1;
  *out++ = '=';
  for (unsigned i = 0; i < chosen.count; ++i) {
    if (i != 0) *out++ = ',';
    AppendUuid(s->policy->device[chosen.index[i]].uuid, out);
    out += kUuidText;
  }
  *out = 0;
  size_t kept = 0;
  for (size_t i = 0; i < entries; ++i)
    if (strncmp(environ[i], text, sizeof(kVariable)) != 0) copy[kept++] = environ[i];
  copy[kept] = text;
  char** const theirs = environ;
  environ = copy;
  const CUresult r = g_driver.cuInit(flags);
  // Unless somebody has set a variable meanwhile; then the copy is what grew, and has to stay.
  if (environ == copy) {
    environ = theirs;
    if (!in_place) UnmapPages(copy, bytes);
  }
  return r;
}

}  // namespace

int LocalOf(CUdevice ordinal) noexcept {
  if (ordinal < 0 || ordinal >= static_cast<int>(kOrdinals) || !Enumerated()) return -1;
  return g_process.local_of_ordinal[ordinal];
}

unsigned VisibleCount() noexcept { return Enumerated() ? g_process.visible_count : 0; }
CUdevice VisibleAt(unsigned index) noexcept { return g_process.visible[index]; }

bool DeviceAllowed(CUdevice ordinal, DriverSymbol symbol) noexcept {
  if (!Enumerated() || LocalOf(ordinal) >= 0) return true;
  CUuuid uuid;
  if (g_driver.cuDeviceGetUuid(&uuid, ordinal) != CUDA_SUCCESS) return true;
  Report(region::EventCause::kForeignDevice, kNoDevice, 0, symbol);
  return false;
}

CUresult InitDriver(unsigned flags) noexcept {
  const NoCancellation until_started;
  for (unsigned waited_ms = 0; g_process.starting.exchange(true); ++waited_ms) {
    if (waited_ms == kStartPatienceMs) return g_driver.cuInit(flags);
    usleep(1000);
  }
  const CUresult r = StartShowing(flags);
  g_process.starting.store(false);
  Enumerated();
  return r;
}

}  // namespace divvy::shim
