// The figures under the names, labels and units that HAMi's users have on their boards. A tenant
// stands where a pod does; percentages are 0 to 100 except where HAMi's are not.
#include <algorithm>

#include "src/daemon/metrics.h"
#include "src/daemon/metrics_page.h"

namespace divvy::daemon {
namespace {

using enum HamiMetric;
constexpr char kZone[] = "vGPU";
constexpr char kNone[] = "";

void AddDevice(MetricsPage& page, const DeviceFigures& d, const std::string& node) {
  const std::string index = std::to_string(d.index);
  const auto total = static_cast<double>(d.total_bytes);
  const auto used = static_cast<double>(d.used_bytes);
  const auto promised = static_cast<double>(d.promised_bytes);
  const double part = total > 0 ? promised / total : 0;
  const double cores = d.compute_promised_percent;
  const auto both = [&]<auto metric, auto old>(double value) {
    page.Add<metric>(value, kZone, node, index, d.uuid, d.name);
    page.Add<old>(value, kZone, node, index, d.uuid, d.name);
  };
  both.operator()<kHamiHostGpuMemoryUsedBytes, kHostGPUMemoryUsage>(used);
  both.operator()<kHamiGpuMemoryLimitBytes, kGPUDeviceMemoryLimit>(total);
  both.operator()<kHamiGpuCoreLimitRatio, kGPUDeviceCoreLimit>(100);
  both.operator()<kHamiGpuCoreAllocatedRatio, kGPUDeviceCoreAllocated>(cores);
  both.operator()<kHamiGpuSharedCount, kGPUDeviceSharedNum>(d.tenants);
  const std::string whole = "100";
  page.Add<kHamiGpuMemoryAllocatedBytes>(promised, kZone, node, index, d.uuid, d.name, whole);
  page.Add<kGPUDeviceMemoryAllocated>(promised, kZone, node, index, d.uuid, d.name, whole);
  page.Add<kHamiNodeGpuMemoryAllocatedRatio>(part, kZone, node, index, d.uuid, d.name);
  page.Add<kNodeGPUMemoryPercentage>(part, kZone, node, d.uuid, index);
}

void AddShare(MetricsPage& page, const TenantFigures& t, unsigned number, const ShareFigures& s,
              const std::string& uuid, const std::string& node) {
  const std::string index = std::to_string(number);
  const auto shown = [&]<auto metric>(double value) {
    page.Add<metric>(value, kZone, kNone, t.name, t.name, index, uuid);
  };
  const auto used = static_cast<double>(s.used_bytes);
  const auto limit = static_cast<double>(s.limit_bytes);
  shown.operator()<kHamiVgpuMemoryUsedBytes>(used);
  shown.operator()<kVGPUDeviceMemoryUsageInBytes>(used);
  shown.operator()<kHamiContainerDeviceMemoryBytes>(used);
  shown.operator()<kHamiVgpuMemoryLimitBytes>(limit);
  shown.operator()<kVGPUDeviceMemoryLimitInBytes>(limit);
  shown.operator()<kHamiVgpuMemoryContextBytes>(static_cast<double>(s.contexts_bytes));
  shown.operator()<kHamiVgpuMemoryBufferBytes>(
      static_cast<double>(s.charged_bytes - std::min(s.charged_bytes, s.contexts_bytes)));
  if (s.known) {
    shown.operator()<kHamiContainerDeviceUtilizationRatio>(s.used_percent_1s);
    shown.operator()<kDeviceUtilizationDescOfContainer>(s.used_percent_1s);
  }
  const auto promised = [&]<auto metric>(double value) {
    page.Add<metric>(value, kZone, kNone, node, t.name, "0", uuid);
  };
  promised.operator()<kHamiVgpuMemoryAllocatedBytes>(static_cast<double>(s.promised_bytes));
  promised.operator()<kVGPUMemoryAllocated>(static_cast<double>(s.promised_bytes));
  promised.operator()<kHamiVgpuCoreAllocatedRatio>(t.guaranteed_percent);
  promised.operator()<kVGPUCoreAllocated>(t.guaranteed_percent);
}

}  // namespace

std::string HamiMetricsText(const Figures& figures, const std::string& node,
                            const std::vector<std::string>& only) {
  MetricsPage page(kHamiMetrics);
  for (const DeviceFigures& d : figures.devices) AddDevice(page, d, node);
  for (const TenantFigures& t : figures.tenants)
    for (unsigned s = 0; s < t.shares.size(); ++s)
      AddShare(page, t, s, t.shares[s], figures.devices[t.shares[s].device].uuid, node);
  return page.Text(only);
}

}  // namespace divvy::daemon
