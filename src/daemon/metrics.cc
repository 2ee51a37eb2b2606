#include "src/daemon/metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "src/daemon/metrics_page.h"
#include "src/daemon/version.h"
#include "src/region/layout.h"

namespace divvy::daemon {
namespace {

using enum Metric;
using Clock = std::chrono::system_clock;

const double kStarted = std::chrono::duration<double>(Clock::now().time_since_epoch()).count();

constexpr auto kWaitBounds = [] {
  std::array<double, region::kWaitBuckets - 1> seconds{};
  for (size_t i = 0; i < seconds.size(); ++i) seconds[i] = region::kWaitBoundsUs[i] / 1e6;
  return seconds;
}();

double SecondsOf(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
}

void AddSelf(MetricsPage& page, const Figures& all, const SelfFigures& self) {
  page.Add<kDivvyBuildInfo>(1, kVersion, all.driver_version);
  page.Add<kDivvyTenants>(static_cast<double>(all.tenants.size()));
  page.Add<kDivvyWatchers>(static_cast<double>(self.watchers));
  page.Add<kDivvyWatchersDroppedTotal>(static_cast<double>(self.watchers_dropped));
  page.Add<kDivvyLogDroppedTotal>(static_cast<double>(self.log_dropped));
  page.Add<kProcessCpuSecondsTotal>(self.cpu_s);
  page.Add<kProcessResidentMemoryBytes>(static_cast<double>(self.resident_bytes));
  page.Add<kProcessOpenFds>(static_cast<double>(self.descriptors));
  page.Add<kProcessStartTimeSeconds>(self.started);
}

void AddDevice(MetricsPage& page, const DeviceFigures& d) {
  const auto bytes = [](uint64_t n) { return static_cast<double>(n); };
  page.Add<kDivvyDeviceInfo>(1, d.uuid, std::to_string(d.index), d.name, d.pci_bus_id);
  page.Add<kDivvyDeviceHealthy>(d.fault.empty(), d.uuid);
  page.Add<kDivvyDeviceCordoned>(!d.cordon.empty(), d.uuid);
  for (const auto& [xid, count] : d.xids)
    page.Add<kDivvyDeviceXidsTotal>(bytes(count), d.uuid, std::to_string(xid));
  page.Add<kDivvyDeviceMemoryBytes>(bytes(d.total_bytes), d.uuid);
  page.Add<kDivvyDeviceMemoryUsedBytes>(bytes(d.used_bytes), d.uuid);
  page.Add<kDivvyDeviceMemoryDriverBytes>(bytes(d.driver_bytes), d.uuid);
  page.Add<kDivvyDeviceMemoryOutsideBytes>(bytes(d.outside_bytes), d.uuid);
  page.Add<kDivvyDeviceMemoryPromisedBytes>(bytes(d.promised_bytes), d.uuid);
  page.Add<kDivvyDeviceMemoryLeavingBytes>(bytes(d.leaving_bytes), d.uuid);
  page.Add<kDivvyDeviceMemoryFreeToPromiseBytes>(bytes(d.free_to_promise_bytes), d.uuid);
  page.Add<kDivvyDeviceComputePromisedRatio>(d.compute_promised_percent / 100, d.uuid);
  page.Add<kDivvyDeviceReadingsTotal>(bytes(d.readings), d.uuid);
}

void AddShare(MetricsPage& page, const TenantFigures& t, const ShareFigures& s,
              const std::string& uuid) {
  const auto count = [](uint64_t n) { return static_cast<double>(n); };
  page.Add<kDivvyTenantMemoryLimitBytes>(count(s.limit_bytes), t.name, uuid);
  page.Add<kDivvyTenantMemoryPromisedBytes>(count(s.promised_bytes), t.name, uuid);
  page.Add<kDivvyTenantMemoryUsedBytes>(count(s.used_bytes), t.name, uuid);
  page.Add<kDivvyTenantMemoryChargedBytes>(count(s.charged_bytes), t.name, uuid);
  page.Add<kDivvyTenantMemoryContextBytes>(count(s.contexts_bytes), t.name, uuid);
  page.Add<kDivvyTenantMemoryOverheadBytes>(static_cast<double>(s.overhead_bytes), t.name, uuid);
  page.Add<kDivvyTenantMemoryLeavingBytes>(count(s.leaving_bytes), t.name, uuid);
  if (s.measured) page.Add<kDivvyTenantMemoryNvmlBytes>(count(s.nvml_bytes), t.name, uuid);
  page.Add<kDivvyTenantMemoryOver>(s.over, t.name, uuid);
  page.Add<kDivvyTenantComputeGuaranteedRatio>(t.guaranteed_percent / 100, t.name, uuid);
  page.Add<kDivvyTenantComputeCapRatio>(t.cap_percent / 100, t.name, uuid);
  page.Add<kDivvyTenantComputePartRatio>(s.part_percent / 100, t.name, uuid);
  page.Add<kDivvyTenantComputeMetered>(s.metered, t.name, uuid);
  page.Add<kDivvyTenantGpuSecondsTotal>(static_cast<double>(s.used_ns) / 1e9, t.name, uuid);
  page.Add<kDivvyTenantGpuBilledSecondsTotal>(static_cast<double>(s.billed_ns) / 1e9, t.name, uuid);
  page.Add<kDivvyTenantGpuPromisedSecondsTotal>(s.guaranteed_s, t.name, uuid);
  page.Add<kDivvyTenantWindowsTotal>(count(s.windows), t.name, uuid);
  page.Add<kDivvyTenantWindowOverrunsTotal>(count(s.overruns), t.name, uuid);
  page.Add<kDivvyTenantWaitsTotal>(count(s.waits), t.name, uuid);
  page.Add<kDivvyTenantGateWaitSecondsTotal>(s.gate_wait_s, t.name, uuid);
  page.Add<kDivvyTenantBoundWaitSecondsTotal>(s.bound_wait_s, t.name, uuid);
  page.AddHistogram<kDivvyTenantWaitSeconds>(kWaitBounds, s.wait_buckets,
                                             s.gate_wait_s + s.bound_wait_s, t.name, uuid);
  page.Add<kDivvyTenantForcedTotal>(count(s.forced), t.name, uuid);
  page.Add<kDivvyTenantOperationsTotal>(count(s.operations), t.name, uuid);
  page.Add<kDivvyTenantCopiedBytesTotal>(count(s.copied_bytes), t.name, uuid);
  page.Add<kDivvyTenantMarkerFaultsTotal>(count(s.faults), t.name, uuid);
  page.Add<kDivvyTenantGateShut>(s.shut_by_cap, t.name, uuid, "cap");
  page.Add<kDivvyTenantGateShut>(t.paused, t.name, uuid, "operator");
  page.Add<kDivvyTenantGateShut>(s.shut_by_audit, t.name, uuid, "audit");
}

void AddTenant(MetricsPage& page, const TenantFigures& t, const Figures& all) {
  page.Add<kDivvyTenantInfo>(1, t.name, t.share_class, t.state,
                             t.cooperative ? "cooperative" : "enforced");
  page.Add<kDivvyTenantPaused>(t.paused, t.name);
  page.Add<kDivvyTenantProcesses>(t.processes, t.name);
  for (const auto& [cause, count] : t.refusals)
    page.Add<kDivvyTenantRefusalsTotal>(static_cast<double>(count), t.name, cause);
  // One sample for each set of labels: several processes may show the same.
  std::map<std::pair<std::string, std::string>, unsigned> findings;
  for (const FindingFigures& f : t.findings) ++findings[{f.device, f.code}];
  for (const auto& [where, count] : findings)
    page.Add<kDivvyTenantFindings>(count, t.name, where.first, where.second);
  for (const ShareFigures& s : t.shares) AddShare(page, t, s, all.devices[s.device].uuid);
}

}  // namespace

SelfFigures ReadSelf() {
  SelfFigures out;
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) == 0)
    out.cpu_s = SecondsOf(usage.ru_utime) + SecondsOf(usage.ru_stime);
  uint64_t pages = 0;
  if (std::ifstream statm("/proc/self/statm"); statm >> pages >> pages)
    out.resident_bytes = pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  if (DIR* dir = ::opendir("/proc/self/fd"); dir != nullptr) {
    while (::readdir(dir) != nullptr) ++out.descriptors;
    ::closedir(dir);
    out.descriptors -= std::min<uint64_t>(out.descriptors, 3);  // ".", ".." and the folder's own
  }
  out.started = kStarted;
  return out;
}

std::string MetricsText(const Figures& figures, const SelfFigures& self,
                        const std::vector<std::string>& only) {
  MetricsPage page(kMetrics);
  AddSelf(page, figures, self);
  for (const DeviceFigures& d : figures.devices) AddDevice(page, d);
  for (const TenantFigures& t : figures.tenants) AddTenant(page, t, figures);
  return page.Text(only);
}

Status CheckMetricNames(const std::vector<std::string>& only, bool hami) {
  for (const std::string& name : only) {
    const auto is = [&name](const MetricRow& row) { return name == row.name; };
    if (std::any_of(std::begin(kMetrics), std::end(kMetrics), is)) continue;
    if (hami && std::any_of(std::begin(kHamiMetrics), std::end(kHamiMetrics), is)) continue;
    return Invalid("there is no metric '" + name.substr(0, 100) +
                   "'; /metrics without a filter shows all");
  }
  return {};
}

}  // namespace divvy::daemon
