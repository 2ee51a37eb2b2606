// The node: every device and every tenant of one machine, and what may happen to them.
//
// The state is guarded by one lock. Three kinds of threads come in: the event loop (tenant sockets,
// ends of processes, the tick), the sampler (NVML readings) and the API's workers. None of them
// holds the lock across a call to NVML; /proc, sockets and the state file are quick enough.
// Lock order: source_mutex_, then mutex_, then what Loop and Events keep inside.
//
// Compute is the arbiter's thread (compute.h): the node tells it who came, went and changed, and
// asks it for figures; it alone writes gates, and holds no lock of the node's.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/base/result.h"
#include "src/daemon/admission.h"
#include "src/daemon/compute.h"
#include "src/daemon/events.h"
#include "src/daemon/figures.h"
#include "src/daemon/hello.h"
#include "src/daemon/learned.h"
#include "src/daemon/loop.h"
#include "src/daemon/request.h"
#include "src/daemon/socket.h"
#include "src/daemon/tenant.h"
#include "src/daemon/xid.h"
#include "src/device/source.h"

namespace divvy::daemon {

enum class AuditAction { kWarn, kGate, kKill };
const char* ToString(AuditAction action);

struct NodeOptions {
  std::string machine_dir;  // paths::MachineDir
  std::string sim_profile;  // "" = the real machine
  bool overcommit = false;
  AuditAction audit = AuditAction::kWarn;
  bool deny_on_fault = false;
  // How the devices take turns between processes, where it was measured; 0 = by their names.
  uint32_t slice_us = 0, switch_us = 0;
  bool private_daemon = false;  // the CLI's own: it may start the next one, too
};

class Node {
 public:
  // `on_change` is called under the node's lock, from any thread, when a tenant came or went or
  // there is something new to read from NVML; it must not call back into the node.
  Node(NodeOptions options, device::Source& source, Loop& loop, Events& events,
       std::function<void(bool has_tenants)> on_change);
  ~Node();

  // Reads every device once, then the state file, and adopts the tenants that still live.
  Status Start();

  // --- the API (node_tenants.cc, node_view.cc); any thread
  Result<nlohmann::json> CreateTenant(const TenantRequest& request);
  Result<nlohmann::json> PatchTenant(const std::string& name, const TenantPatch& patch);
  Status DeleteTenant(const std::string& name, bool force);
  nlohmann::json StatusJson() const;
  nlohmann::json DevicesJson() const;
  Result<nlohmann::json> PatchDevice(const std::string& name, const DevicePatch& patch);
  Result<nlohmann::json> Why(const std::string& name) const;    // node_why.cc
  Result<nlohmann::json> TenantsJson(const std::string& name);  // "" = all

  // A fault that the driver reported; `lines`: what the kernel's log has said since the last one.
  void OnFault(const device::Fault& fault, const std::vector<XidLine>& lines);

  Figures CollectFigures() const;  // node_figures.cc; one short hold of the lock
  Figures CollectUse() const;      // of them what UseHistory keeps, at a tenth of the cost

  // --- recording (node_record.cc): operations' lengths and gaps; ends by itself after for_ms
  Result<nlohmann::json> StartRecording(const std::string& name, uint64_t for_ms);
  Status StopRecording(const std::string& name);
  Result<nlohmann::json> Records(const std::string& name, uint64_t since) const;

  // --- the loop's tick: heartbeats, harvest of the tenants' events, overdue connections
  void Tick();
  bool HasTenants() const;
  // True: there is no tenant and none will be made any more (kEnding). False: there is one.
  bool CloseIfEmpty();

  // --- the sampler (node_sample.cc)
  struct Plan {
    std::vector<unsigned> devices;
    std::chrono::milliseconds next{0};  // zero: nothing to watch
  };
  Plan SamplePlan();
  void Sample(unsigned device);
  // The same, unless somebody else's reading began at `asked_ns` or later: many who ask at once
  // share one.
  void SampleSince(unsigned device, uint64_t asked_ns);

  uint64_t generation() const { return generation_; }
  const std::vector<device::Info>& devices() const { return source_.devices(); }
  Status SaveIfDirty();  // the lazily kept part of the state: processes, learned figures

 private:
  struct Connection {
    UniqueFd fd;
    uint64_t watch = 0;
    uint64_t tenant = 0;
    uint32_t slot = 0;  // 0 until its Hello
    uint64_t since_ns = 0;
  };
  struct Attribution {
    uint64_t start_ticks = 0;
    uint64_t tenant = 0;  // 0: outside
    std::string command;
  };
  struct ShareOf {
    Tenant* tenant;
    unsigned share;  // index into its shares
  };
  struct DeviceState {
    std::vector<ShareOf> shares;  // all of this device
    device::Reading reading;
    uint64_t read_ns = 0;
    uint64_t readings = 0;
    uint64_t uses_ns = 0;     // when the driver was asked for its processes' use
    bool tells_uses = false;  // it has answered once
    std::string fault;        // why there is no fresh reading; "" = healthy
    std::string cordon;       // why it takes no new tenants; "" = it does
    std::map<uint64_t, uint64_t> xids;
    std::vector<DeviceBooks::Outside> outside;
    Bytes outside_unlisted, driver;
    std::array<uint64_t, 3> free_history{};  // newest first
    bool short_of_memory = false;            // promises cannot all be kept: rest_bytes binds
  };

  // Below here the lock is held by the caller unless it says otherwise.

  // node_tenants.cc
  Status MayBeMade(const TenantRecord& record, const std::vector<unsigned>& devices);
  bool Leaves(const Tenant& tenant) const;
  std::string WhyItLives(const Tenant& tenant) const;
  Result<Tenant*> MakeTenant(TenantRecord record, const std::vector<unsigned>& devices);
  Result<std::vector<unsigned>> NamedDevices(const std::vector<std::string>& gpus) const;
  std::vector<unsigned> RoomiestDevices(unsigned count, Percent compute) const;
  std::string ChooseName(const std::vector<std::string>& command) const;
  Status OpenTenantSocket(Tenant& tenant);
  Status WatchRunner(Tenant& tenant);
  void WritePolicy(Tenant& tenant);
  nlohmann::json TenantJson(const Tenant& tenant) const;
  nlohmann::json ProcessesJson(const Tenant& tenant) const;
  void PruneAwaited(Tenant& tenant);
  void EndIfOver(Tenant& tenant);  // may remove it: the reference is gone then
  bool CgroupLives(Tenant& tenant);
  void RemoveTenant(uint64_t id, const std::string& why);
  Tenant* FindTenant(const std::string& name);
  Tenant* FindTenant(uint64_t id);
  void Tell(Event event);
  void Cordon(unsigned device, const std::string& reason);
  nlohmann::json DeviceJson(unsigned device) const;
  void TellEnd(const Tenant& tenant, const Process& process);

  // node_adopt.cc
  Status Adopt(TenantRecord record);
  Status SaveState();
  void MustSave(Tenant& tenant);  // its record or processes changed: at the next tick

  // node_processes.cc
  void OnListener(uint64_t tenant_id);
  void OnConnection(uint64_t connection_id);
  void OnProcessEnd(uint64_t tenant_id, uint32_t slot);
  void CloseConnection(uint64_t connection_id);
  void HandleHello(Connection& connection, uint64_t connection_id, const HelloView& hello);
  Result<Process*> Attach(Tenant& tenant, Peer& peer, ProcessId id, const HelloView& hello);
  Result<Process*> AttachToNewSlot(Tenant& tenant, Peer& peer, ProcessId id,
                                   const HelloView& hello);
  bool MayJoin(const Tenant& tenant, pid_t pid, uid_t uid) const;
  void Bury(Tenant& tenant, Process& process, Process::State state);
  void Refuse(uint64_t connection_id, uint32_t code, const std::string& reason);
  void Release(Tenant& tenant, uint32_t slot);
  void Credit(Tenant& tenant, Process& process, unsigned share, uint64_t units);
  void HarvestEvents(Tenant& tenant);
  static void NoteRefusal(Tenant& tenant, uint64_t now_ns);  // node_why.cc

  // node_leaving.cc
  void SettleReplaced(Tenant& tenant);
  void ReleaseUnread(unsigned device);
  void ReleaseLeaving(Tenant& tenant, unsigned share, const device::Reading& reading,
                      uint64_t begin_ns, bool quiet);

  // node_sample.cc
  void Apply(unsigned device, const device::Reading& reading, uint64_t begin_ns,
             const std::map<uint64_t, BooksLook>& looks_before);
  struct Inhabited {
    std::unordered_map<pid_t, uint64_t> owner;  // tenants of all that said hello, by pid
    std::vector<Tenant*> tenants;               // that have a process
  };
  const Inhabited& WhoIsThere();
  Attribution& Attribute(pid_t pid);
  uint64_t TenantByAncestry(pid_t pid, uint64_t preferred = 0) const;
  void Learn(Tenant& tenant, unsigned share);
  void Measure(Tenant& tenant, unsigned share, bool quiet, const BooksLook& before);
  // node_publish.cc
  void PublishOverhead(Tenant& tenant, unsigned share);
  void Publish(unsigned device);
  void PublishShare(Tenant& tenant, unsigned share);
  void PublishLimits(unsigned device);
  DeviceBooks BooksOf(unsigned device) const;

  // node_compute.cc
  std::vector<ComputePromise> ComputePromises(unsigned device, const std::string& but = "") const;
  void JoinCompute(Tenant& tenant);
  void PublishTerms(Tenant& tenant);
  void AuditCompute(unsigned device, const std::vector<device::ProcessUse>& uses);
  void AuditShare(Tenant& tenant, unsigned share, double seen_ns, uint64_t now);
  void PublishUse(unsigned device);  // for NVML inside of its tenants
  void EndRecording(Tenant& tenant, uint64_t now);
  void TellCompute(Tenant& tenant);  // what the arbiter saw since the last tick, as events

  // node_figures.cc
  DeviceFigures FiguresOf(unsigned device) const;
  TenantFigures FiguresOf(const Tenant& tenant) const;

  // node_audit.cc
  void Report(Tenant& tenant, unsigned device, const std::string& code, pid_t pid, uint64_t bytes,
              const std::string& message);
  void CloseFindings(unsigned device);
  void SetGate(Tenant& tenant, unsigned share, bool shut);

  const NodeOptions options_;
  device::Source& source_;
  Loop& loop_;
  Events& events_;
  const std::function<void(bool)> on_change_;
  const uint64_t generation_;
  const uint64_t started_ns_;

  Compute compute_;

  std::mutex source_mutex_;  // one reader of NVML at a time
  mutable std::mutex mutex_;
  std::condition_variable ended_;  // with mutex_: a tenant is gone
  uint64_t next_tenant_ = 1, next_connection_ = 1;
  std::map<uint64_t, Tenant> tenants_;
  std::unordered_map<uint64_t, Connection> connections_;
  UniqueFd spare_fd_;  // given up to refuse a connection when descriptors run out
  std::vector<DeviceState> devices_;
  std::unordered_map<pid_t, Attribution> attributions_;
  Inhabited who_;
  bool who_stale_ = false;  // a process came or went
  Learned learned_;
  bool dirty_ = false;
  bool closed_ = false;
  uint64_t last_change_ns_ = 0;  // of any tenant's charges
  unsigned ticks_ = 0;
};

}  // namespace divvy::daemon
