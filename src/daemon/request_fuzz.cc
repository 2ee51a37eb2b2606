// Any bytes as a body of the API or as a state file's tenant: refused with one line, or taken with
// every value in range; and what is taken survives the state file unchanged.
#include <cstdlib>

#include "src/daemon/request.h"
#include "src/region/layout.h"

namespace {
using namespace divvy;  // NOLINT

void Check(bool good) {
  if (!good) std::abort();
}

void CheckShare(const daemon::ShareSpec& s) {
  Check(s.mem.n >= 1 && s.mem <= s.mem_max);
  Check(s.mem_max.n <= region::kMaxUnits * region::kUnitBytes);
  Check(s.compute <= s.compute_max && s.compute_max.milli <= 100'000);
  Check(s.weight <= 10'000 && s.on_full_wait_ms <= 86'400'000);
}

void CheckError(const Error& error) {
  Check(!error.message.empty() && error.message.find('\n') == std::string::npos);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string body(reinterpret_cast<const char*>(data), size);
  const auto request = daemon::ParseTenantRequest(body);
  if (request.ok()) {
    CheckShare(request->share);
    Check(request->name.empty() || daemon::ValidName(request->name));
    Check(request->gpus.size() <= region::kMaxDevices && request->gpu_count >= 1);
    daemon::TenantRecord record{.name = request->name.empty() ? "t" : request->name,
                                .device_uuids = {"GPU-x"},
                                .share = request->share,
                                .cgroup = request->cgroup,
                                .command = request->command,
                                .cooperative = request->cooperative,
                                .overcommit = request->overcommit};
    const auto back = daemon::RecordFromJson(daemon::ToJson(record));
    Check(back.ok() && daemon::ToJson(*back).dump() == daemon::ToJson(record).dump());
  } else {
    CheckError(request.error());
  }
  const auto patch = daemon::ParseTenantPatch(body);
  if (patch.ok()) {
    daemon::ShareSpec share;
    share.mem = share.mem_max = Bytes{1 << 30};
    const auto patched = daemon::Patched(share, *patch);
    if (patched.ok()) CheckShare(*patched);
  } else {
    CheckError(patch.error());
  }
  const auto record = nlohmann::json::parse(body, nullptr, false);
  if (!record.is_discarded())
    if (const auto r = daemon::RecordFromJson(record); r.ok()) CheckShare(r->share);
  return 0;
}
