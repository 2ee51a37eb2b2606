#include "src/device/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <thread>

#include "src/abi/nvml.h"

namespace divvy::device {
namespace {

// Some R5xx drivers give the _v3 process list 32-byte entries, others 24: the stride is found by
// looking how far the buffer was written. 0xA5 cannot be a whole untouched tail by accident twice.
constexpr uint8_t kUntouched = 0xA5;
constexpr size_t kLargestEntry = 32;

class Nvml : public Source {
 public:
  ~Nvml() override {
    if (faults_ != nullptr && free_set_ != nullptr) free_set_(faults_);
    if (shutdown_ != nullptr) shutdown_();
    if (library_ != nullptr) ::dlclose(library_);
  }

  Status Open(const std::string& path);
  const std::vector<Info>& devices() const override { return devices_; }
  const std::string& driver_version() const override { return driver_version_; }
  Result<Reading> Read(unsigned device) override;
  std::vector<ProcessUse> Uses(unsigned device) override;
  bool WatchFaults() override;
  std::optional<Fault> WaitFault(std::chrono::milliseconds timeout) override;

 private:
  using ListFn = nvmlReturn_t (*)(nvmlDevice_t, unsigned*, void*);
  struct List {
    ListFn fn = nullptr;
    size_t entry_bytes = 0;  // 0: find out (v3)
  };

  template <typename Fn>
  bool Find(Fn& fn, const char* name) {
    fn = reinterpret_cast<Fn>(::dlsym(library_, name));
    return fn != nullptr;
  }
  Error Failed(const char* call, nvmlReturn_t code) const;
  List FindList(const std::string& name);
  Status ReadDevices();
  Status ReadMemory(nvmlDevice_t device, Reading& out) const;
  bool ReadProcesses(const List& list, nvmlDevice_t device, Reading& out) const;

  void* library_ = nullptr;
  nvmlReturn_t (*shutdown_)() = nullptr;
  const char* (*error_string_)(nvmlReturn_t) = nullptr;
  nvmlReturn_t (*memory_v1_)(nvmlDevice_t, nvmlMemory_t*) = nullptr;
  nvmlReturn_t (*memory_v2_)(nvmlDevice_t, nvmlMemory_v2_t*) = nullptr;
  nvmlReturn_t (*uses_)(nvmlDevice_t, nvmlProcessUtilizationSample_t*, unsigned*,
                        unsigned long long) = nullptr;
  nvmlReturn_t (*wait_)(nvmlEventSet_t, nvmlEventData_t*, unsigned) = nullptr;
  nvmlReturn_t (*free_set_)(nvmlEventSet_t) = nullptr;
  nvmlEventSet_t faults_ = nullptr;
  List compute_, graphics_, mps_;
  std::vector<unsigned long long> uses_seen_us_;  // by device: the newest sample's time
  std::vector<Info> devices_;
  std::vector<nvmlDevice_t> handles_;
  std::string driver_version_;
};

Error Nvml::Failed(const char* call, nvmlReturn_t code) const {
  const char* text = error_string_ != nullptr ? error_string_(code) : nullptr;
  return Unavailable(std::string(call) + ": " +
                     (text != nullptr ? text : "error " + std::to_string(code)));
}

Nvml::List Nvml::FindList(const std::string& name) {
  List list;
  if (Find(list.fn, (name + "_v3").c_str())) return list;
  list.entry_bytes = sizeof(nvmlProcessInfo_v2_t);
  if (Find(list.fn, (name + "_v2").c_str())) return list;
  list.entry_bytes = sizeof(nvmlProcessInfo_v1_t);
  Find(list.fn, name.c_str());
  return list;
}

Status Nvml::Open(const std::string& path) {
  library_ = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr)
    return Unavailable("no NVIDIA driver here (" + path + " cannot be loaded); --sim h100 " +
                       "works without a GPU");
  nvmlReturn_t (*init)() = nullptr;
  Find(error_string_, "nvmlErrorString");
  if (!Find(init, "nvmlInit_v2") && !Find(init, "nvmlInit"))
    return Unavailable(path + " is not NVML: nvmlInit_v2 is missing");
  if (const nvmlReturn_t r = init(); r != NVML_SUCCESS) return Failed("nvmlInit_v2", r);
  Find(shutdown_, "nvmlShutdown");
  Find(memory_v2_, "nvmlDeviceGetMemoryInfo_v2");
  if (!Find(memory_v1_, "nvmlDeviceGetMemoryInfo"))
    return Unavailable(path + " is not NVML: nvmlDeviceGetMemoryInfo is missing");
  compute_ = FindList("nvmlDeviceGetComputeRunningProcesses");
  Find(uses_, "nvmlDeviceGetProcessUtilization");
  graphics_ = FindList("nvmlDeviceGetGraphicsRunningProcesses");
  mps_ = FindList("nvmlDeviceGetMPSComputeRunningProcesses");
  nvmlReturn_t (*driver_version)(char*, unsigned) = nullptr;
  char text[96] = {};
  if (Find(driver_version, "nvmlSystemGetDriverVersion") &&
      driver_version(text, sizeof text) == NVML_SUCCESS)
    driver_version_ = text;
  return ReadDevices();
}

Status Nvml::ReadDevices() {
  nvmlReturn_t (*count)(unsigned*) = nullptr;
  nvmlReturn_t (*handle)(unsigned, nvmlDevice_t*) = nullptr;
  nvmlReturn_t (*get_uuid)(nvmlDevice_t, char*, unsigned) = nullptr;
  nvmlReturn_t (*get_name)(nvmlDevice_t, char*, unsigned) = nullptr;
  nvmlReturn_t (*pci)(nvmlDevice_t, nvmlPciInfo_t*) = nullptr;
  if (!Find(count, "nvmlDeviceGetCount_v2") || !Find(handle, "nvmlDeviceGetHandleByIndex_v2") ||
      !Find(get_uuid, "nvmlDeviceGetUUID"))
    return Unavailable("this NVML is too old: nvmlDeviceGetCount_v2 and friends are missing");
  Find(get_name, "nvmlDeviceGetName");
  Find(pci, "nvmlDeviceGetPciInfo_v3");
  unsigned n = 0;
  if (const nvmlReturn_t r = count(&n); r != NVML_SUCCESS) return Failed("nvmlDeviceGetCount", r);
  for (unsigned i = 0; i < n; ++i) {
    nvmlDevice_t device = nullptr;
    char text[96] = {};
    // A lost device keeps its index but gives no handle: it is left out, the others go on.
    if (handle(i, &device) != NVML_SUCCESS || get_uuid(device, text, sizeof text) != NVML_SUCCESS)
      continue;
    const Result<Uuid> uuid = ParseUuid(text);
    if (!uuid.ok()) return uuid.error();
    Info info{.uuid = *uuid, .index = i};
    if (get_name != nullptr && get_name(device, text, sizeof text) == NVML_SUCCESS)
      info.name = text;
    nvmlPciInfo_t bus{};
    if (pci != nullptr && pci(device, &bus) == NVML_SUCCESS)
      info.pci_bus_id.assign(bus.busId, ::strnlen(bus.busId, sizeof bus.busId));
    Reading reading;
    if (Status s = ReadMemory(device, reading); !s.ok()) return s;
    info.total = reading.total;
    devices_.push_back(std::move(info));
    handles_.push_back(device);
  }
  if (devices_.empty()) return Unavailable("NVML lists no device; --sim h100 works without a GPU");
  return {};
}

Status Nvml::ReadMemory(nvmlDevice_t device, Reading& out) const {
  nvmlMemory_v2_t v2{};
  v2.version = nvml_struct_version<nvmlMemory_v2_t>(2);
  if (memory_v2_ != nullptr && memory_v2_(device, &v2) == NVML_SUCCESS) {
    out.total = Bytes{v2.total};
    out.reserved = Bytes{v2.reserved};
    out.free = Bytes{v2.free};
    out.used = Bytes{v2.used + v2.reserved};  // v2 tells them apart, v1 does not
    return {};
  }
  nvmlMemory_t v1{};
  if (const nvmlReturn_t r = memory_v1_(device, &v1); r != NVML_SUCCESS)
    return Failed("nvmlDeviceGetMemoryInfo", r);
  out.total = Bytes{v1.total};
  out.free = Bytes{v1.free};
  out.used = Bytes{v1.used};
  return {};
}

bool Nvml::ReadProcesses(const List& list, nvmlDevice_t device, Reading& out) const {
  if (list.fn == nullptr) return false;
  std::vector<uint8_t> buffer;
  unsigned room = 64;
  for (int attempt = 0; attempt < 8; ++attempt) {
    // One entry's room more than is told, so that a 32-byte driver cannot write past the end.
    buffer.assign((room + 1) * kLargestEntry, kUntouched);
    unsigned n = room;
    const nvmlReturn_t r = list.fn(device, &n, buffer.data());
    if (r == NVML_ERROR_INSUFFICIENT_SIZE) {
      room = std::max(n + n / 4, room * 2);
      continue;
    }
    if (r != NVML_SUCCESS || n > room) return false;
    size_t stride = list.entry_bytes;
    if (stride == 0) {
      const auto tail = buffer.begin() + static_cast<ptrdiff_t>(n * sizeof(nvmlProcessInfo_v2_t));
      const bool beyond = std::any_of(tail, tail + static_cast<ptrdiff_t>(n * 8),
                                      [](uint8_t b) { return b != kUntouched; });
      stride = beyond ? kLargestEntry : sizeof(nvmlProcessInfo_v2_t);
    }
    for (unsigned i = 0; i < n; ++i) {
      nvmlProcessInfo_v1_t entry;  // the common head: pid, used
      std::memcpy(&entry, buffer.data() + i * stride, sizeof entry);
      std::optional<Bytes> used;
      if (entry.usedGpuMemory != NVML_VALUE_NOT_AVAILABLE_ULL) used = Bytes{entry.usedGpuMemory};
      const auto pid = static_cast<pid_t>(entry.pid);
      const auto known = std::find_if(out.processes.begin(), out.processes.end(),
                                      [&](const ProcessMemory& p) { return p.pid == pid; });
      if (known == out.processes.end()) {
        out.processes.push_back({pid, used});
      } else if (used) {  // a process of both kinds is listed twice, each time with its whole sum
        known->used = std::max(known->used.value_or(Bytes{}), *used);
      }
    }
    return true;
  }
  return false;
}

Result<Reading> Nvml::Read(unsigned device) {
  if (device >= handles_.size()) return Internal("no device " + std::to_string(device));
  Reading out;
  if (Status s = ReadMemory(handles_[device], out); !s.ok()) return s.error();
  out.lists_processes = ReadProcesses(compute_, handles_[device], out);
  ReadProcesses(graphics_, handles_[device], out);
  ReadProcesses(mps_, handles_[device], out);
  return out;
}

std::vector<ProcessUse> Nvml::Uses(unsigned device) {
  if (uses_ == nullptr || device >= handles_.size()) return {};
  uses_seen_us_.resize(handles_.size());
  unsigned long long& seen_us = uses_seen_us_[device];
  std::vector<nvmlProcessUtilizationSample_t> samples(256);
  auto n = static_cast<unsigned>(samples.size());
  nvmlReturn_t r = uses_(handles_[device], samples.data(), &n, seen_us);
  if (r == NVML_ERROR_INSUFFICIENT_SIZE && n > samples.size() && n < 65536) {
    samples.resize(n + 64);
    n = static_cast<unsigned>(samples.size());
    r = uses_(handles_[device], samples.data(), &n, seen_us);
  }
  if (r != NVML_SUCCESS || n > samples.size()) return {};
  struct Sum {
    double percent = 0;
    unsigned count = 0;
  };
  std::map<pid_t, Sum> sums;
  for (unsigned i = 0; i < n; ++i) {
    seen_us = std::max(seen_us, samples[i].timeStamp);
    if (samples[i].pid == 0 || samples[i].smUtil > 100) continue;  // unused entries
    Sum& sum = sums[static_cast<pid_t>(samples[i].pid)];
    sum.percent += samples[i].smUtil;
    ++sum.count;
  }
  std::vector<ProcessUse> out;
  for (const auto& [pid, sum] : sums) out.push_back({pid, sum.percent / sum.count});
  return out;
}

// NVML API Reference, "Event Handling Methods": Linux only, and not on every device.
bool Nvml::WatchFaults() {
  nvmlReturn_t (*create)(nvmlEventSet_t*) = nullptr;
  nvmlReturn_t (*add)(nvmlDevice_t, unsigned long long, nvmlEventSet_t) = nullptr;
  if (!Find(create, "nvmlEventSetCreate") || !Find(add, "nvmlDeviceRegisterEvents") ||
      !Find(free_set_, "nvmlEventSetFree") ||
      (!Find(wait_, "nvmlEventSetWait_v2") && !Find(wait_, "nvmlEventSetWait")))
    return false;
  if (create(&faults_) != NVML_SUCCESS) return false;
  bool any = false;
  for (nvmlDevice_t device : handles_)
    any = add(device, nvmlEventTypeXidCriticalError, faults_) == NVML_SUCCESS || any;
  return any;
}

std::optional<Fault> Nvml::WaitFault(std::chrono::milliseconds timeout) {
  nvmlEventData_t data{};
  const nvmlReturn_t r = wait_(faults_, &data, static_cast<unsigned>(timeout.count()));
  // An error, as of a GPU that is lost, comes at once each time.
  if (r != NVML_SUCCESS && r != NVML_ERROR_TIMEOUT) std::this_thread::sleep_for(timeout);
  if (r != NVML_SUCCESS || data.eventType != nvmlEventTypeXidCriticalError) return std::nullopt;
  const auto at = std::find(handles_.begin(), handles_.end(), data.device);
  if (at == handles_.end()) return std::nullopt;
  return Fault{static_cast<unsigned>(at - handles_.begin()), data.eventData};
}

}  // namespace

Result<std::unique_ptr<Source>> OpenNvml(const std::string& library) {
  auto nvml = std::make_unique<Nvml>();
  if (Status s = nvml->Open(library); !s.ok()) return s.error();
  return std::unique_ptr<Source>(std::move(nvml));
}

}  // namespace divvy::device
