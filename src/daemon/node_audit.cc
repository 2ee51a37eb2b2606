// The node: what the audit found, and what is done about it. A finding is told at once in the
// tenant's list, and acted on (warn, gate, kill: the operator's choice) when a second reading
// agrees; NVML's lists lag.
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/daemon/node.h"

namespace divvy::daemon {
namespace {
constexpr size_t kFindingsKept = 32;
}

void Node::Report(Tenant& tenant, unsigned device, const std::string& code, pid_t pid,
                  uint64_t bytes, const std::string& message) {
  const std::string uuid = device::ToString(source_.devices()[device].uuid);
  Finding* finding = nullptr;
  for (Finding& f : tenant.findings)
    if (f.code == code && f.pid == pid && f.device == uuid) finding = &f;
  if (finding == nullptr) {
    if (tenant.findings.size() == kFindingsKept) tenant.findings.erase(tenant.findings.begin());
    finding = &tenant.findings.emplace_back();
    finding->code = code;
    finding->pid = pid;
    finding->device = uuid;
  }
  finding->bytes = bytes;
  finding->message = message;
  finding->seen_now = true;
  finding->readings = finding->active ? finding->readings + 1 : 1;
  finding->active = true;
  if (finding->readings != 2) return;
  finding->time =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  finding->action = ToString(options_.audit);
  Tell({.kind = "finding",
        .cause = code,
        .severity = Severity::kError,
        .tenant = tenant.record.name,
        .pid = pid,
        .device = uuid,
        .bytes = bytes,
        .message = message + " (" + finding->action + ")"});
  if (options_.audit == AuditAction::kGate)
    for (unsigned s = 0; s < tenant.shares.size(); ++s) SetGate(tenant, s, true);
  if (options_.audit != AuditAction::kKill) return;
  if (pid != 0) {
    const std::optional<ProcessId> id = IdentityOf(pid);
    const Result<UniqueFd> pidfd = OpenPidfd(pid);
    if (id && pidfd.ok() && Alive(*id))
      ::syscall(SYS_pidfd_send_signal, pidfd->get(), SIGKILL, nullptr, 0);
    return;
  }
  // No single process can be blamed: any of them may have done it.
  for (const auto& [slot, process] : tenant.processes)
    if (process.state != Process::State::kLeaving)
      ::syscall(SYS_pidfd_send_signal, process.pidfd.get(), SIGKILL, nullptr, 0);
}

// Ends the findings that this reading of the device no longer showed; the gate opens when none is
// left.
void Node::CloseFindings(unsigned device) {
  const std::string uuid = device::ToString(source_.devices()[device].uuid);
  for (auto& [id, tenant] : tenants_) {
    bool any = false;
    if (tenant.processes.empty() && tenant.findings.empty()) continue;  // no gate was ever shut
    for (Finding& f : tenant.findings) {
      if (f.device == uuid) {
        f.active = f.active && f.seen_now;
        f.seen_now = false;
      }
      any = any || f.active;
    }
    for (unsigned s = 0; !any && s < tenant.shares.size(); ++s)
      if (tenant.shares[s].gated) SetGate(tenant, s, false);
  }
}

void Node::SetGate(Tenant& tenant, unsigned share, bool shut) {
  if (tenant.shares[share].gated == shut) return;
  tenant.shares[share].gated = shut;
  compute_.Pause(tenant.id, share, PausedBy::kAudit, shut);
  tenant.segments->policy().device[share].rest_bytes = shut ? 0 : UINT64_MAX;
}

}  // namespace divvy::daemon
