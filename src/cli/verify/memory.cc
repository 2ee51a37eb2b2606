#include "src/cli/verify/memory.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <optional>

#include "src/base/paths.h"
#include "src/base/unique_fd.h"
#include "src/cli/load/paths.h"
#include "src/cli/process/supervise.h"
#include "src/cli/verify/nvml_meter.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

// The probe inside the share (`divvy load --probe`), one line at a time.
class InsideProbe {
 public:
  ~InsideProbe() { End(); }

  Status Start(const Tenancy& tenancy, const std::string& path, Bytes cap) {
    int down[2], up[2];
    if (::pipe2(down, O_CLOEXEC) != 0) return IoError("pipe", errno);
    UniqueFd down_read(down[0]), down_write(down[1]);
    if (::pipe2(up, O_CLOEXEC) != 0) return IoError("pipe", errno);
    UniqueFd up_read(up[0]), up_write(up[1]);
    std::vector<std::string> command{paths::BinDir() + "/divvy", "load", "--probe", "--path", path};
    if (cap.n != 0) {
      command.push_back("--probe-cap");
      command.push_back(std::to_string(cap.n));
    }
    const Result<pid_t> child = Launch(command, [&]() -> Status {
      if (::dup2(down_read.get(), 0) < 0 || ::dup2(up_write.get(), 1) < 0 ||
          ::dup2(up_write.get(), 2) < 0)
        return IoError("dup2", errno);
      return Prepare(tenancy.delivery);
    });
    if (!child.ok()) return child.error();
    pid_ = *child;
    to_ = ::fdopen(down_write.release(), "w");
    from_ = ::fdopen(up_read.release(), "r");
    return {};
  }

  // The probe's next line, or what it said as it ended.
  Result<json> Next() {
    char text[4096];
    if (std::fgets(text, sizeof(text), from_) == nullptr)
      return Internal("the probe ended without a word");
    json line = json::parse(text, nullptr, false);
    if (line.is_object()) return line;
    std::string message(text);
    while (!message.empty() && message.back() == '\n') message.pop_back();
    return Unavailable(message.rfind("divvy: ", 0) == 0 ? message.substr(7) : message);
  }

  void Continue() {
    std::fputs("\n", to_);
    std::fflush(to_);
  }

  void End() {
    if (to_ != nullptr) std::fclose(to_);
    if (from_ != nullptr) std::fclose(from_);
    to_ = from_ = nullptr;
    if (pid_ > 0) Reap(pid_);
    pid_ = 0;
  }

  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
};

int64_t Over(Bytes measured, Bytes limit) {
  return static_cast<int64_t>(measured.n) - static_cast<int64_t>(limit.n);
}

Status Try(const Tenancy& tenancy, NvmlMeter& meter, Bytes limit, Bytes cap, MemoryRow& row) {
  InsideProbe probe;
  if (const Status s = probe.Start(tenancy, row.path, cap); !s.ok()) return s;
  const auto measured = [&](json& line) -> Result<Bytes> {
    auto next = probe.Next();
    if (!next.ok()) return next.error();
    line = std::move(*next);
    return meter.Settled(probe.pid());
  };
  // Only what has no size of its own is known by its difference to before.
  const bool sized = (*FindMemoryPath(row.path))->sized;
  json full, again;
  Bytes before;
  if (const auto idle = probe.Next(); !idle.ok()) return idle.error();
  if (!sized) {
    const auto at_idle = meter.Settled(probe.pid());
    if (!at_idle.ok()) return at_idle.error();
    before = *at_idle;
  }
  probe.Continue();
  const auto at_full = measured(full);
  if (!at_full.ok()) return at_full.error();
  probe.Continue();
  if (const auto released = probe.Next(); !released.ok()) return released.error();
  probe.Continue();
  const auto at_again = measured(again);
  if (!at_again.ok()) return at_again.error();
  probe.Continue();
  row.tried = true;
  row.granted_bytes = sized ? full.value("granted_bytes", uint64_t{0}) : at_full->Less(before).n;
  row.again_bytes = sized ? again.value("granted_bytes", uint64_t{0}) : at_again->Less(before).n;
  row.refused_at_bytes = full.value("refused_at_bytes", uint64_t{0});
  if (!sized && !full.value("refusal", "").empty())
    row.refused_at_bytes =
        row.granted_bytes + row.granted_bytes / std::max(1, full.value("takes", 1));
  row.note = full.value("refusal", "");
  if (cap.n != 0 && row.refused_at_bytes == 0)
    row.note = "not refused: kept below half of what the device has free";
  row.over_limit_bytes = Over(std::max(*at_full, *at_again), limit);
  // A limit that leaves no room for the path's least step was not put to the test by it.
  if (row.granted_bytes == 0 && row.over_limit_bytes <= kToleranceBytes) {
    row.tried = false;
    row.note = "nothing fits beside the driver's own part of the limit" +
               (row.note.empty() ? "" : ": " + row.note) + "; try a larger --mem";
  }
  return {};
}

// Until the driver has given back what the last probe held: it would count against the next one.
Status AwaitEmpty(const Tenancy& tenancy) {
  constexpr timespec kBetween{0, 20'000'000};
  for (int look = 0; look < 1500; ++look) {
    const auto tenant = tenancy.machine.api.Get("/v1/tenants/" + tenancy.name);
    if (!tenant.ok()) return tenant.error();
    bool empty = tenant->value("processes", json::array()).empty();
    for (const json& share : tenant->value("shares", json::array()))
      empty = empty && share.value("charged_bytes", uint64_t{1}) == 0;
    if (empty) return {};
    ::nanosleep(&kBetween, nullptr);
  }
  return Unavailable("the last probe's memory has not come back in 30 s; `divvy ps -p` shows it");
}

}  // namespace

bool MemoryRow::Passed() const {
  return tried && over_limit_bytes <= kToleranceBytes &&
         again_bytes + kToleranceBytes >= granted_bytes;
}

Result<std::vector<MemoryRow>> VerifyMemory(const ShareRequest& request,
                                            const std::vector<std::string>& names,
                                            const std::function<void(const MemoryRow&)>& done) {
  const Result<Tenancy> tenancy = MakeTenant(request);
  if (!tenancy.ok()) return tenancy.error();
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const std::string uuid =
      tenancy->devices.empty() ? "" : tenancy->devices.front().value("uuid", std::string());
  auto meter = NvmlMeter::Open(tenancy->delivery.sim_dir, uuid);
  std::vector<MemoryRow> rows;
  std::optional<Error> failed;
  if (!meter.ok()) failed = meter.error();
  for (const std::string& name : names) {
    if (failed) break;
    MemoryRow row;
    row.path = name;
    // A simulated host has all the room there is; on a real one, memory that the host backs must
    // not push the host out of memory.
    Bytes cap;
    if (name == "managed" && request.sim.empty()) {
      const auto device = meter->Look();
      if (device.ok() && device->free.n / 2 < request.mem.n) cap = {device->free.n / 2};
    }
    if (const Status tried = Try(*tenancy, *meter, request.mem, cap, row); !tried.ok())
      row.note = tried.error().message;
    done(row);
    rows.push_back(std::move(row));
    if (const Status empty = AwaitEmpty(*tenancy); !empty.ok()) failed = empty.error();
  }
  DropTenant(*tenancy);
  if (failed) return *failed;
  return rows;
}

}  // namespace divvy::cli
