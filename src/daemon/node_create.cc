// The node: a new tenant is asked for: which devices, which name, is there room, and if something
// that has just ended is in the way, a moment's wait for it.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "src/base/cgroup.h"
#include "src/base/paths.h"
#include "src/daemon/node.h"

namespace divvy::daemon {
namespace {
// How long a request waits for what is leaving: longer than most teardowns (0.4 to 26 s on record).
constexpr std::chrono::seconds kLeavingWait{3};
}  // namespace

Result<std::vector<unsigned>> Node::NamedDevices(const std::vector<std::string>& gpus) const {
  std::vector<unsigned> out;
  for (const std::string& text : gpus) {
    unsigned found = static_cast<unsigned>(devices_.size());
    for (unsigned d = 0; d < devices_.size(); ++d) {
      const device::Info& info = source_.devices()[d];
      const Result<device::Uuid> uuid = device::ParseUuid(text);
      if (uuid.ok() ? *uuid == info.uuid : text == std::to_string(info.index)) found = d;
    }
    if (found == devices_.size()) {
      std::string have;
      for (const device::Info& info : source_.devices())
        have += (have.empty() ? "" : ", ") + std::to_string(info.index);
      return NotFound("there is no GPU '" + text.substr(0, 64) + "' here; there are: " + have);
    }
    if (std::find(out.begin(), out.end(), found) != out.end())
      return Invalid("GPU '" + text.substr(0, 64) + "' is named twice");
    out.push_back(found);
  }
  return out;
}

std::vector<unsigned> Node::RoomiestDevices(unsigned count, Percent compute) const {
  std::vector<unsigned> all(devices_.size());
  std::iota(all.begin(), all.end(), 0u);
  std::vector<Bytes> room;
  for (const unsigned d : all) room.push_back(FreeToPromise(BooksOf(d)));
  std::vector<int> fits;  // those whose compute is promised come last, and last of all the cordoned
  for (const unsigned d : all)
    fits.push_back(!devices_[d].cordon.empty()                    ? 0
                   : compute <= FreeToPromise(ComputePromises(d)) ? 2
                                                                  : 1);
  std::stable_sort(all.begin(), all.end(), [&](unsigned a, unsigned b) {
    return fits[a] != fits[b] ? fits[a] : room[a] > room[b];
  });
  all.resize(std::min<size_t>(count, all.size()));
  std::sort(all.begin(), all.end());
  return all;
}

std::string Node::ChooseName(const std::vector<std::string>& command) const {
  std::string stem = command.empty() ? "tenant" : command[0];
  stem = paths::Sanitized(stem.substr(stem.rfind('/') + 1)).substr(0, 40);
  std::replace(stem.begin(), stem.end(), '@', '_');
  if (!ValidName(stem)) stem = "tenant";
  std::set<std::string> taken;
  for (const auto& [id, tenant] : tenants_) taken.insert(tenant.record.name);
  unsigned n = 1;
  while (taken.contains(stem + "-" + std::to_string(n))) ++n;
  return stem + "-" + std::to_string(n);
}

Result<nlohmann::json> Node::CreateTenant(const TenantRequest& request) {
  const uint64_t asked_ns = MonotonicNs();
  // Named devices first, so that only they are read; the rest needs the lock.
  Result<std::vector<unsigned>> devices = NamedDevices(request.gpus);
  if (!devices.ok()) return devices.error();
  if (devices->empty() && request.gpu_count > devices_.size())
    return NotFound(std::to_string(request.gpu_count) + " GPUs were asked for, there are " +
                    std::to_string(devices_.size()));
  if (devices->empty()) {
    for (unsigned d = 0; d < devices_.size(); ++d) SampleSince(d, asked_ns);
  } else {
    for (const unsigned d : *devices) SampleSince(d, asked_ns);
  }

  std::unique_lock lock(mutex_);
  if (tenants_.size() >= ComputeCore::kMostTenants)
    return NoRoom("there are " + std::to_string(tenants_.size()) +
                  " tenants, the most there can be");
  TenantRecord record{.name = request.name,
                      .share = request.share,
                      .cgroup = request.cgroup,
                      .command = request.command,
                      .cooperative = request.cooperative,
                      .overcommit = request.overcommit || options_.overcommit,
                      .created = WallClock()};
  if (request.runner_pid != 0) {
    const std::optional<ProcessId> runner = IdentityOf(request.runner_pid);
    struct stat st {};
    if (!runner || ::stat(("/proc/" + std::to_string(request.runner_pid)).c_str(), &st) != 0)
      return NotFound("runner_pid " + std::to_string(request.runner_pid) + " does not live");
    record.runner = *runner;
    record.runner_uid = st.st_uid;
  } else {
    record.runner_uid = ::geteuid();
  }
  // What has just ended is worth a moment's wait: its name and its memory are about to be free.
  const auto deadline = std::chrono::steady_clock::now() + kLeavingWait;
  const std::vector<unsigned> named = *devices;
  for (;;) {
    if (closed_) return Error{ErrorCode::kEnding, "this divvyd is ending; ask again"};
    if (named.empty()) *devices = RoomiestDevices(request.gpu_count, record.share.compute);
    Status s = MayBeMade(record, *devices);
    if (s.ok()) break;
    const bool wait = s.error().code == ErrorCode::kExists || s.error().code == ErrorCode::kNoRoom;
    const bool leaving = std::any_of(tenants_.begin(), tenants_.end(), [&](const auto& t) {
      return Leaves(t.second) &&
             (s.error().code == ErrorCode::kNoRoom || t.second.record.name == record.name);
    });
    if (wait && leaving && ended_.wait_until(lock, deadline) == std::cv_status::no_timeout)
      continue;
    if (s.error().code == ErrorCode::kNoRoom)
      Tell({.cause = "no_room",
            .tenant = record.name,
            .pid = request.runner_pid,
            .bytes = record.share.mem.n,
            .message = s.error().message});
    return s.error();
  }
  if (record.name.empty()) record.name = ChooseName(record.command);
  for (const unsigned d : *devices)
    record.device_uuids.push_back(device::ToString(source_.devices()[d].uuid));
  Result<Tenant*> made = MakeTenant(std::move(record), *devices);
  if (!made.ok()) return made.error();
  Tenant& tenant = **made;
  if (Status s = SaveState(); !s.ok()) {
    RemoveTenant(tenant.id, "");
    return Unavailable(s.error().message + ": a tenant that a restart would forget is not made");
  }
  for (const unsigned d : *devices) Publish(d);
  Tell({.cause = "created",
        .tenant = tenant.record.name,
        .pid = tenant.record.runner.pid,
        .bytes = tenant.record.share.mem.n,
        .message = "share of " + ToText(tenant.record.share)});
  on_change_(true);
  return TenantJson(tenant);
}

// Its name is free and its devices have room for it.
Status Node::MayBeMade(const TenantRecord& record, const std::vector<unsigned>& devices) {
  if (const Tenant* other = FindTenant(record.name); other != nullptr)
    return Error{ErrorCode::kExists,
                 "there is a tenant '" + record.name + "' already, " + WhyItLives(*other)};
  for (const unsigned d : devices) {
    if (!devices_[d].fault.empty())
      return Unavailable("GPU " + std::to_string(source_.devices()[d].index) + ": " +
                         devices_[d].fault);
    const std::string index = std::to_string(source_.devices()[d].index);
    if (!devices_[d].cordon.empty())
      return Unavailable("GPU " + index +
                         " is cordoned, it takes no new tenants: " + devices_[d].cordon +
                         "; choose another, or `divvy devices --uncordon " + index + "`");
    PublishLimits(d);  // takes back what others use above their promise while they can
    Status s = Admit(BooksOf(d), record.share.mem, record.overcommit);
    if (s.ok()) s = AdmitMost(BooksOf(d), record.share.mem_max);
    if (s.ok())
      s = AdmitCompute(source_.devices()[d].index, ComputePromises(d), record.share.compute,
                       record.overcommit);
    if (!s.ok()) return s;
  }
  return {};
}

// Whether it is over but for memory that the driver has not freed yet.
bool Node::Leaves(const Tenant& tenant) const {
  if (tenant.record.runner.pid == 0 && !tenant.ending) return false;
  if (!tenant.runner_gone && Alive(tenant.record.runner)) return false;
  for (const auto& [slot, process] : tenant.processes)
    if (process.state != Process::State::kLeaving && Alive(process.id)) return false;
  return std::none_of(tenant.awaited.begin(), tenant.awaited.end(), Alive) &&
         !cgroup::IsPopulated(tenant.record.cgroup);
}

// For people who wanted its name: who holds it, since when, and what can be done.
std::string Node::WhyItLives(const Tenant& tenant) const {
  const auto age = static_cast<long long>(std::max(0.0, WallClock() - tenant.record.created));
  const std::string since = "made " + std::to_string(age) + " s ago";
  if (Leaves(tenant)) {
    uint64_t bytes = 0;
    for (unsigned s = 0; s < tenant.shares.size(); ++s) bytes += UsedBytes(tenant, s);
    return since + ": it has ended, but is leaving still: the driver has not freed " +
           ToString(Bytes{bytes}) + " of its processes yet; wait, or choose another --name";
  }
  if (!tenant.runner_gone)
    return since +
           (tenant.record.runner.pid == 0 ? std::string()
                                          : " by pid " + std::to_string(tenant.record.runner.pid)) +
           "; choose another --name";
  for (const auto& [slot, process] : tenant.processes)
    if (process.state != Process::State::kLeaving)
      return since + ": its command has ended, but left pid " + std::to_string(process.id.pid) +
             " (" + process.command.substr(0, 40) + ") behind; end it, or choose another --name";
  return since +
         ": its command has ended, but processes that it left behind live on; end them "
         "(DELETE ?force=1 does), or choose another --name";
}

}  // namespace divvy::daemon
