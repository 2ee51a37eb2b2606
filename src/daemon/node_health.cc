// The node: faults that the driver reports, and devices that take no new tenants (cordoned): after
// such a fault, or because an operator said so.
#include <algorithm>

#include "src/daemon/node.h"

namespace divvy::daemon {
namespace {

constexpr size_t kReasonShown = 200;

std::string Listed(const std::vector<std::string>& names) {
  constexpr size_t kNamed = 6;
  std::string out;
  for (size_t i = 0; i < names.size() && i < kNamed; ++i) out += (i == 0 ? "" : ", ") + names[i];
  return names.size() > kNamed ? out + " and others" : out;
}

}  // namespace

// Who it was: the kernel's log says the pid; else whoever is alone on the device.
void Node::OnFault(const device::Fault& fault, const std::vector<XidLine>& lines) {
  const std::lock_guard lock(mutex_);
  if (fault.device >= devices_.size()) return;
  DeviceState& state = devices_[fault.device];
  const device::Info& info = source_.devices()[fault.device];
  const XidMeaning meaning = MeaningOf(fault.xid);
  ++state.xids[fault.xid];
  pid_t pid = 0;
  for (const XidLine& line : lines)
    if (line.xid == fault.xid && SamePci(line.pci, info.pci_bus_id)) pid = line.pid;
  std::vector<pid_t> there;
  std::vector<std::string> tenants;
  const Tenant* its = nullptr;
  for (const auto& [tenant, share] : state.shares) {
    bool any = false;
    for (const auto& [slot, process] : tenant->processes) {
      if (process.state == Process::State::kLeaving) continue;
      any = true;
      there.push_back(process.id.pid);
      if (pid != 0 && process.id.pid == pid) its = tenant;
    }
    if (any) tenants.push_back(tenant->record.name);
  }
  std::string who;
  if (pid == 0 && state.outside.empty() && tenants.size() == 1) {
    its = FindTenant(tenants.front());
    if (there.size() == 1) pid = there.front();
    who = "; nobody else is on the device";
  } else if (pid == 0 && !tenants.empty()) {
    who = "; the driver does not say whose: on the device are " + Listed(tenants) +
          (state.outside.empty() ? "" : " and processes outside of Divvy");
  }
  Tell({.cause = "xid",
        .severity = Severity::kError,
        .tenant = its != nullptr ? its->record.name : "",
        .pid = pid,
        .device = device::ToString(info.uuid),
        .message = "Xid " + std::to_string(fault.xid) + ": " + meaning.what +
                   (meaning.of_program       ? ", ends the program that met it"
                    : meaning.hits_every_one ? ", ends every program on the device"
                                             : "") +
                   who});
  if (!meaning.of_program)
    Cordon(fault.device, "Xid " + std::to_string(fault.xid) + " (" + meaning.what + ")");
}

void Node::Cordon(unsigned device, const std::string& reason) {
  DeviceState& state = devices_[device];
  if (!state.cordon.empty()) return;
  state.cordon = reason;
  dirty_ = true;
  Tell({.cause = "cordoned",
        .device = device::ToString(source_.devices()[device].uuid),
        .message = "takes no new tenants: " + reason + "; those that it has go on"});
}

Result<nlohmann::json> Node::PatchDevice(const std::string& name, const DevicePatch& patch) {
  const std::lock_guard lock(mutex_);
  const Result<std::vector<unsigned>> found = NamedDevices({name});
  if (!found.ok()) return found.error();
  const unsigned device = found->front();
  DeviceState& state = devices_[device];
  if (patch.cordoned) {
    const std::string reason =
        patch.reason.empty() ? "an operator said so" : patch.reason.substr(0, kReasonShown);
    if (!state.cordon.empty()) state.cordon = reason;
    Cordon(device, reason);
  } else if (!state.cordon.empty()) {
    state.cordon.clear();
    Tell({.cause = "uncordoned",
          .device = device::ToString(source_.devices()[device].uuid),
          .message = "takes new tenants again"});
  }
  if (const Status s = SaveState(); !s.ok())
    return Unavailable(s.error().message + ": the next divvyd will not know");
  return DeviceJson(device);
}

}  // namespace divvy::daemon
