// The node: a tenant's processes say hello, lose their connection, replace their image and die.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "src/daemon/node.h"
#include "src/region/shared_memory.h"

namespace divvy::daemon {
namespace {
// Connections of one tenant that have not said hello: more than any honest storm of forks keeps
// open at once, few enough that a hostile one cannot use up the daemon's descriptors.
constexpr unsigned kMostSilent = 512;
// Connections of one process that are open at once. An honest one has one; a second while a worker
// that it forked holds the end that it lost itself.
constexpr size_t kMostConnections = 4;
}  // namespace

void Node::OnListener(uint64_t tenant_id) {
  const std::lock_guard lock(mutex_);
  Tenant* tenant = FindTenant(tenant_id);
  if (tenant == nullptr) return;
  for (int burst = 0; burst < 64; ++burst) {  // level-triggered: the rest comes at the next turn
    UniqueFd fd(::accept4(tenant->listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) {
      if (errno != EMFILE && errno != ENFILE) return;
      // Out of descriptors: the spare one takes the connection and drops it, or epoll would spin.
      spare_fd_.reset();
      UniqueFd dropped(::accept4(tenant->listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      dropped.reset();
      spare_fd_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
      Tell({.cause = "no_descriptors",
            .tenant = tenant->record.name,
            .message = "a process was turned away: divvyd has no descriptor left (ulimit -n)"});
      return;
    }
    const auto silent = static_cast<unsigned>(std::count_if(
        connections_.begin(), connections_.end(),
        [&](const auto& c) { return c.second.tenant == tenant_id && c.second.slot == 0; }));
    if (silent >= kMostSilent) continue;
    const uint64_t id = next_connection_++;
    Connection& connection = connections_[id];
    connection.fd = std::move(fd);
    connection.tenant = tenant_id;
    connection.since_ns = MonotonicNs();
    connection.watch = loop_.Add(connection.fd.get(), [this, id] { OnConnection(id); });
    if (connection.watch == 0) connections_.erase(id);
  }
}

void Node::OnConnection(uint64_t connection_id) {
  const std::lock_guard lock(mutex_);
  const auto it = connections_.find(connection_id);
  if (it == connections_.end()) return;
  Connection& connection = it->second;
  alignas(wire::Hello) char packet[wire::kMaxMessage];
  // recv, not recvmsg: descriptors that a hostile peer attaches are dropped by the kernel.
  const ssize_t n = ::recv(connection.fd.get(), packet, sizeof packet, MSG_DONTWAIT | MSG_TRUNC);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0 || connection.slot != 0) {  // the end, or talk after Welcome
    CloseConnection(connection_id);
    return;
  }
  const Result<HelloView> hello = ParseHello(packet, static_cast<size_t>(n));
  if (hello.ok()) {
    HandleHello(connection, connection_id, *hello);
    return;
  }
  if (const Tenant* tenant = FindTenant(connection.tenant))
    Tell({.cause = "bad_hello", .tenant = tenant->record.name, .message = hello.error().message});
  Refuse(connection_id, EPROTO, hello.error().message);
}

void Node::Refuse(uint64_t connection_id, uint32_t code, const std::string& reason) {
  const wire::Refused refused = MakeRefused(code, reason);
  SendPacket(connections_[connection_id].fd.get(), &refused, sizeof refused);
  CloseConnection(connection_id);
}

void Node::CloseConnection(uint64_t connection_id) {
  const auto it = connections_.find(connection_id);
  if (it == connections_.end()) return;
  Connection& connection = it->second;
  loop_.Remove(connection.watch, connection.fd.get());
  if (Tenant* tenant = FindTenant(connection.tenant); tenant != nullptr && connection.slot != 0) {
    if (const auto p = tenant->processes.find(connection.slot); p != tenant->processes.end()) {
      std::erase(p->second.connections, connection_id);
      if (p->second.connections.empty() && p->second.state == Process::State::kLive)
        p->second.since_ns = MonotonicNs();
    }
  }
  connections_.erase(it);
}

bool Node::MayJoin(const Tenant& tenant, pid_t pid, uid_t uid) const {
  // A tenant without a runner is a container's: any user of it may, and nobody else gets to its
  // socket, which only the container has mounted.
  return uid == 0 || uid == ::geteuid() || uid == tenant.record.runner_uid ||
         tenant.record.runner.pid == 0 || TenantByAncestry(pid) == tenant.id;
}

void Node::HandleHello(Connection& connection, uint64_t connection_id, const HelloView& hello) {
  Tenant* tenant = FindTenant(connection.tenant);
  if (tenant == nullptr || tenant->ending) {
    Refuse(connection_id, ESRCH, "this tenant has ended");
    return;
  }
  Result<Peer> peer = PeerOf(connection.fd.get());
  const std::optional<ProcessId> id = peer.ok() ? IdentityOf(peer->pid) : std::nullopt;
  if (!id) {
    Refuse(connection_id, ESRCH, peer.ok() ? "the process is gone" : peer.error().message);
    return;
  }
  if (!MayJoin(*tenant, peer->pid, peer->uid)) {
    Tell({.cause = "foreign_user",
          .tenant = tenant->record.name,
          .pid = peer->pid,
          .message = "user " + std::to_string(peer->uid) + " may not join this tenant"});
    Refuse(connection_id, EPERM, "this tenant belongs to another user");
    return;
  }
  for (const auto& [other_id, other] : tenants_) {  // its memory must count where it belongs
    if (other_id == tenant->id) continue;
    for (const auto& [slot, process] : other.processes) {
      if (process.id != *id || process.state == Process::State::kLeaving) continue;
      Refuse(connection_id, EPERM, "this process belongs to tenant '" + other.record.name + "'");
      return;
    }
  }
  // Before its first Hello its parents and its cgroup tell.
  if (const Tenant* own = FindTenant(TenantByAncestry(peer->pid, tenant->id));
      own && own != tenant) {
    Tell({.cause = "foreign_process",
          .tenant = tenant->record.name,
          .pid = peer->pid,
          .message = "a process of tenant '" + own->record.name + "' may not join this one"});
    Refuse(connection_id, EPERM, "this process belongs to tenant '" + own->record.name + "'");
    return;
  }
  Result<Process*> attached = Attach(*tenant, *peer, *id, hello);
  if (!attached.ok()) {
    Tell({.cause = "not_attached",
          .tenant = tenant->record.name,
          .pid = peer->pid,
          .message = attached.error().message});
    Refuse(connection_id, attached.error().code == ErrorCode::kNoRoom ? ENOSPC : ESRCH,
           attached.error().message);
    return;
  }
  Process& process = **attached;
  tenant->segments->policy().heartbeat_ns.store(MonotonicNs(), std::memory_order_relaxed);
  process.connections.push_back(connection_id);
  process.ns_pid = hello.ns_pid;
  connection.slot = process.slot;
  const wire::Welcome welcome{.header = {wire::kMagic, wire::Type::kWelcome, sizeof(wire::Welcome)},
                              .protocol_version = wire::kProtocolVersion,
                              .layout_version = region::kLayoutVersion,
                              .slot = process.slot,
                              .generation = generation_,
                              .policy_bytes = region::kPolicyBytes,
                              .usage_bytes = region::kUsageBytes,
                              .device_count = static_cast<uint32_t>(tenant->shares.size())};
  const int fds[] = {tenant->segments->policy_fd(), tenant->segments->usage_fd(),
                     compute_.bell_fd()};
  if (!SendPacket(connection.fd.get(), &welcome, sizeof welcome, fds, std::size(fds)))
    CloseConnection(connection_id);
  MustSave(*tenant);
}

Result<Process*> Node::Attach(Tenant& tenant, Peer& peer, ProcessId id, const HelloView& hello) {
  Process* same = nullptr;
  std::vector<uint32_t> reused;
  for (auto& [slot, process] : tenant.processes) {
    if (process.id.pid != id.pid || process.state == Process::State::kLeaving) continue;
    if (process.id != id) {
      reused.push_back(slot);  // its end has not been heard yet, and the pid lives again
    } else if (process.state == Process::State::kLive && process.second_copy == hello.second_copy) {
      if (same == nullptr || !same->connections.empty()) same = &process;
    }
  }
  for (const uint32_t slot : reused) Bury(tenant, tenant.processes[slot], Process::State::kLeaving);
  if (same != nullptr && hello.last_generation == generation_) {  // it lost its socket
    if (same->connections.size() < kMostConnections) return same;
    return NoRoom("the process has " + std::to_string(kMostConnections) +
                  " connections already, the most it may have");
  }
  if (same != nullptr && hello.last_generation == 0) {
    Bury(tenant, *same, Process::State::kReplaced);  // exec: the old image's memory leaves
  } else if (same != nullptr) {
    // Said hello with the same charges before, but never got the answer: they are booked once.
    for (unsigned s = 0; s < tenant.shares.size(); ++s)
      Credit(tenant, *same, s, SlotBytes(tenant, same->slot, s) / region::kUnitBytes);
    Release(tenant, same->slot);
  }
  return AttachToNewSlot(tenant, peer, id, hello);
}

Result<Process*> Node::AttachToNewSlot(Tenant& tenant, Peer& peer, ProcessId id,
                                       const HelloView& hello) {
  if (tenant.free_slots.empty() && tenant.next_slot == region::kMaxSlots)
    return NoRoom("tenant '" + tenant.record.name + "' has " +
                  std::to_string(region::kMaxSlots - 1) + " processes, the most there can be");
  Process process;
  process.id = id;
  process.uid = peer.uid;
  process.second_copy = hello.second_copy;
  process.command = CommandOf(id.pid);
  if (process.command.empty()) process.command = hello.command;
  if (!peer.pidfd.valid()) {
    Result<UniqueFd> pidfd = OpenPidfd(id.pid);
    if (!pidfd.ok()) return pidfd.error();
    peer.pidfd = std::move(*pidfd);
    if (!Alive(id)) return NotFound("the process is gone");
  }
  process.pidfd = std::move(peer.pidfd);
  if (tenant.free_slots.empty()) {
    process.slot = tenant.next_slot++;
  } else {
    process.slot = *tenant.free_slots.begin();
    tenant.free_slots.erase(tenant.free_slots.begin());
  }
  const uint64_t tenant_id = tenant.id;
  const uint32_t slot = process.slot;
  process.watch =
      loop_.Add(process.pidfd.get(), [this, tenant_id, slot] { OnProcessEnd(tenant_id, slot); });
  if (process.watch == 0) {
    tenant.free_slots.insert(slot);
    return Internal("no room for another watch");
  }

  // A restart: what it says it holds is booked before it goes on. It can only burden itself.
  region::Usage& usage = tenant.segments->usage();
  for (const HelloView::Held& held : hello.held) {
    if (hello.last_generation == 0) break;
    for (unsigned s = 0; s < tenant.shares.size(); ++s) {
      if (source_.devices()[tenant.shares[s].device].uuid != held.uuid) continue;
      region::SlotDevice& account = usage.slot[slot].device[s];
      account.charged_units = held.units;
      for (unsigned k = 0; k < region::kKinds; ++k) account.kind_units[k] = held.kind_units[k];
      region::AdjustBook(usage, s, static_cast<int64_t>(held.units),
                         tenant.segments->book_sequence());
    }
  }
  // What was not published while nobody was there to read it.
  for (unsigned s = 0; s < tenant.shares.size(); ++s)
    if (Dormant(tenant, s)) PublishShare(tenant, s);
  ++tenant.epoch;
  const auto was_awaited = std::erase(tenant.awaited, id);
  for (unsigned s = 0; was_awaited != 0 && s < tenant.shares.size(); ++s) {
    Share& share = tenant.shares[s];
    for (const device::ProcessMemory& p : devices_[share.device].reading.processes)
      if (p.pid == id.pid)
        share.unattached_bytes -= std::min(share.unattached_bytes, p.used.value_or(Bytes{}).n);
    // Held over from before the restart, under a limit that this daemon has never seen.
    share.highest_limit = std::max(share.highest_limit, share.nvml_bytes);
    share.highest_room =
        std::max(share.highest_room, static_cast<int64_t>(ChargedBytes(tenant, s)));
    PublishOverhead(tenant, s);
  }
  attributions_.erase(id.pid);
  const std::string mode = EnvironmentOf(id.pid, "CUDA_MODULE_LOADING");
  if (mode != tenant.module_loading) {
    tenant.module_loading = mode;
    for (unsigned s = 0; s < tenant.shares.size(); ++s) {
      const device::Info& info = source_.devices()[tenant.shares[s].device];
      tenant.segments->policy().device[s].context_bytes =
          learned_.Context(Learned::Key(info.name, source_.driver_version(), mode)).n;
    }
  }
  compute_.AddProcess(tenant.id, slot);
  last_change_ns_ = MonotonicNs();
  on_change_(true);
  who_stale_ = true;
  return &(tenant.processes[slot] = std::move(process));
}

void Node::OnProcessEnd(uint64_t tenant_id, uint32_t slot) {
  const std::lock_guard lock(mutex_);
  Tenant* tenant = FindTenant(tenant_id);
  if (tenant == nullptr) return;
  const auto it = tenant->processes.find(slot);
  if (it == tenant->processes.end() || it->second.state == Process::State::kLeaving) return;
  if (Alive(it->second.id)) return;  // a late call for the slot's former process
  HarvestEvents(*tenant);
  TellEnd(*tenant, it->second);
  Bury(*tenant, it->second, Process::State::kLeaving);
  EndIfOver(*tenant);
}

void Node::Bury(Tenant& tenant, Process& process, Process::State state) {
  uint64_t held[region::kMaxDevices] = {};
  if (process.state == Process::State::kLive) {
    region::Bury(tenant.segments->usage(), process.slot, held);
    for (unsigned s = 0; s < tenant.shares.size(); ++s)  // its own word: no more than the book has
      process.device[s].held_units = std::min(held[s], BookedBytes(tenant, s) / region::kUnitBytes);
    region::CloseHolds(tenant.segments->usage(), process.slot);
  }
  process.state = state;
  process.since_ns = MonotonicNs();
  compute_.RemoveProcess(tenant.id, process.slot);
  const std::vector<uint64_t> open = process.connections;  // a forked worker may hold the other end
  if (state == Process::State::kLeaving) {
    loop_.Remove(process.watch, process.pidfd.get());
    process.watch = 0;
  }
  for (const uint64_t id : open) CloseConnection(id);
  ++tenant.epoch;
  last_change_ns_ = process.since_ns;
  uint64_t units = 0;
  for (unsigned s = 0; s < tenant.shares.size(); ++s) units += process.device[s].held_units;
  on_change_(true);
  if (units == 0) return Release(tenant, process.slot);
  const Bytes leaving{units * region::kUnitBytes};
  Tell({.cause = "leaving",
        .tenant = tenant.record.name,
        .pid = process.id.pid,
        .bytes = leaving.n,
        .message = ToString(leaving) + " of a process that " +
                   (state == Process::State::kLeaving ? "ended" : "replaced its program") +
                   " count until the driver has freed them"});
}

void Node::Credit(Tenant& tenant, Process& process, unsigned share, uint64_t units) {
  region::DropHolds(tenant.segments->usage(), process.slot, share);
  region::AdjustBook(tenant.segments->usage(), share, -static_cast<int64_t>(units),
                     tenant.segments->book_sequence());
  process.device[share].held_units -= std::min(process.device[share].held_units, units);
  ++tenant.epoch;
  last_change_ns_ = MonotonicNs();
  tenant.segments->WakeRoomWaiters();
}

void Node::Release(Tenant& tenant, uint32_t slot) {
  region::Usage& usage = tenant.segments->usage();
  // The sum that LookAtBooks makes must not fall back to a former value.
  tenant.epoch += usage.slot[slot].charges.load(std::memory_order_relaxed) + 1;
  compute_.RemoveProcess(tenant.id, slot);
  const auto it = tenant.processes.find(slot);
  const std::vector<uint64_t> open = it->second.connections;
  for (const uint64_t id : open) CloseConnection(id);
  for (unsigned s = 0; s < tenant.shares.size(); ++s) region::DropHolds(usage, slot, s);
  region::ResetSlot(usage, slot, tenant.segments->book_sequence());
  ResetMeters(usage, slot, static_cast<unsigned>(tenant.shares.size()));
  loop_.Remove(it->second.watch, it->second.pidfd.get());
  tenant.processes.erase(it);
  who_stale_ = true;
  tenant.free_slots.insert(slot);
  MustSave(tenant);
}

void Node::HarvestEvents(Tenant& tenant) {
  static const char* const kCauses[] = {
      "", "out_of_share", "device_full", "foreign_device", "driver_refused", "degraded", "denied"};
  region::Usage& usage = tenant.segments->usage();
  const uint64_t head = usage.event_head.load(std::memory_order_acquire);
  if (head == tenant.events_seen) return;
  tenant.events_seen = head;
  for (unsigned i = 0; i < region::kMaxEvents; ++i) {
    region::UsageEvent& e = usage.event[i];
    const uint64_t sequence = e.sequence.load(std::memory_order_acquire);
    if (sequence == 0 || sequence % 2 != 0 || sequence == tenant.event_sequence[i]) continue;
    // Copied field by field from memory that may change under us; whole if the sequence holds until
    // after the last (acquire: the second look at the sequence stays behind them).
    const auto copy = [](auto& field) {
      return std::atomic_ref(field).load(std::memory_order_acquire);
    };
    const uint64_t bytes = copy(e.bytes), limit = copy(e.limit);
    const uint32_t slot = copy(e.slot), symbol = copy(e.symbol);
    const uint16_t device = copy(e.device), cause = copy(e.cause);
    if (e.sequence.load(std::memory_order_relaxed) != sequence) continue;
    tenant.event_sequence[i] = sequence;
    if (cause == 0 || cause >= std::size(kCauses)) continue;
    ++tenant.refusals[kCauses[cause]];
    if (cause != static_cast<uint16_t>(region::EventCause::kDegraded))
      NoteRefusal(tenant, MonotonicNs());
    const auto process = tenant.processes.find(slot);
    Event event{.cause = kCauses[cause],
                .tenant = tenant.record.name,
                .pid = process == tenant.processes.end() ? 0 : process->second.id.pid,
                .bytes = bytes,
                .limit_bytes = limit,
                .symbol = symbol};
    if (device < tenant.shares.size())
      event.device = device::ToString(source_.devices()[tenant.shares[device].device].uuid);
    if (cause == static_cast<uint16_t>(region::EventCause::kOutOfShare) && limit != 0 &&
        device < tenant.shares.size()) {
      const uint64_t contexts = KindBytes(tenant, device, region::Kind::kContext);
      event.message = ToString(Bytes{bytes}) + " refused: of " + ToString(Bytes{limit}) + ", " +
                      ToString(Bytes{contexts}) + " are the driver's";
    } else if (bytes != 0) {
      event.message = ToString(Bytes{bytes}) + " refused";
    }
    Tell(std::move(event));
  }
}

}  // namespace divvy::daemon
