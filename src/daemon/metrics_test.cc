// The metrics page: every metric of the table is exported, in the format that Prometheus reads.
#include "src/daemon/metrics.h"

#include <gtest/gtest.h>

#include "src/daemon/metrics_page.h"

namespace divvy::daemon {
namespace {

// One device and one tenant of which there is something to say in every respect.
Figures Full() {
  Figures f{.time = 1000, .driver_version = "580.1"};
  f.devices.push_back({.uuid = "GPU-1",
                       .name = "NVIDIA \"H100\"",
                       .pci_bus_id = "0:1",
                       .total_bytes = 80ull << 30,
                       .used_bytes = 2,
                       .promised_bytes = 40ull << 30,
                       .compute_promised_percent = 25,
                       .cordon = "Xid 79",
                       .xids = {{79, 2}}});
  TenantFigures t{.id = 1,
                  .name = "a",
                  .share_class = "latency",
                  .state = "running",
                  .guaranteed_percent = 25,
                  .cap_percent = 100,
                  .refusals = {{"out_of_share", 3}},
                  .findings = {{"no_hello", "GPU-1"}, {"no_hello", "GPU-1"}}};
  t.shares.push_back({.limit_bytes = 1000,
                      .used_bytes = 1500,
                      .charged_bytes = 1200,
                      .contexts_bytes = 500,
                      .overhead_bytes = -7,
                      .measured = true,
                      .over = true,
                      .metered = true,
                      .known = true,
                      .used_percent_1s = 12.5,
                      .used_ns = 1'250'000'000,
                      .billed_ns = 1'500'000'000,
                      .gate_wait_s = 1.5,
                      .bound_wait_s = 0.25,
                      .wait_buckets = {5, 0, 2, 0, 0, 0, 0, 0, 0, 1}});
  f.tenants.push_back(t);
  return f;
}

bool HasLine(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Metrics, EveryMetricOfTheTableIsExported) {
  const std::string page = MetricsText(Full(), {}, {});
  for (const MetricRow& row : kMetrics)
    EXPECT_TRUE(HasLine(page, std::string("# TYPE ") + row.name + " " + row.type)) << row.name;
  const std::string hami = HamiMetricsText(Full(), "node", {});
  for (const MetricRow& row : kHamiMetrics)
    EXPECT_TRUE(HasLine(hami, std::string("# TYPE ") + row.name + " " + row.type)) << row.name;
}

TEST(Metrics, FiguresAreTheirs) {
  const std::string page = MetricsText(Full(), {.cpu_s = 0.5}, {});
  for (const char* line :
       {"process_cpu_seconds_total 0.5", "divvy_device_memory_bytes{device=\"GPU-1\"} 85899345920",
        "divvy_device_info{device=\"GPU-1\",index=\"0\",name=\"NVIDIA \\\"H100\\\"\","
        "pci_bus_id=\"0:1\"} 1",
        "divvy_device_compute_promised_ratio{device=\"GPU-1\"} 0.25",
        "divvy_tenant_memory_overhead_bytes{tenant=\"a\",device=\"GPU-1\"} -7",
        "divvy_tenant_gpu_seconds_total{tenant=\"a\",device=\"GPU-1\"} 1.25",
        "divvy_tenant_gpu_billed_seconds_total{tenant=\"a\",device=\"GPU-1\"} 1.5",
        "divvy_tenant_refusals_total{tenant=\"a\",cause=\"out_of_share\"} 3",
        "divvy_tenant_findings{tenant=\"a\",device=\"GPU-1\",code=\"no_hello\"} 2"})
    EXPECT_TRUE(HasLine(page, line)) << line << "\n" << page;
}

TEST(Metrics, AHistogramIsCumulative) {
  const std::string page = MetricsText(Full(), {}, {"divvy_tenant_wait_seconds"});
  for (const char* line :
       {"divvy_tenant_wait_seconds_bucket{tenant=\"a\",device=\"GPU-1\",le=\"1e-04\"} 5",
        "divvy_tenant_wait_seconds_bucket{tenant=\"a\",device=\"GPU-1\",le=\"5e-04\"} 7",
        "divvy_tenant_wait_seconds_bucket{tenant=\"a\",device=\"GPU-1\",le=\"0.25\"} 7",
        "divvy_tenant_wait_seconds_bucket{tenant=\"a\",device=\"GPU-1\",le=\"+Inf\"} 8",
        "divvy_tenant_wait_seconds_sum{tenant=\"a\",device=\"GPU-1\"} 1.75",
        "divvy_tenant_wait_seconds_count{tenant=\"a\",device=\"GPU-1\"} 8"})
    EXPECT_TRUE(HasLine(page, line)) << line << "\n" << page;
  EXPECT_TRUE(HasLine(MetricsText(Full(), {}, {}),
                      "divvy_device_xids_total{device=\"GPU-1\",xid=\"79\"} 2"));
}

TEST(Metrics, WhatIsNotKnownIsNotExported) {
  Figures f = Full();
  f.tenants[0].shares[0].measured = false;
  f.tenants[0].shares[0].known = false;
  EXPECT_EQ(MetricsText(f, {}, {}).find("memory_nvml_bytes{"), std::string::npos);
  EXPECT_EQ(HamiMetricsText(f, "n", {}).find("utilization_ratio{"), std::string::npos);
}

TEST(Metrics, HamisRatiosAreHamis) {
  const std::string page = HamiMetricsText(Full(), "n1", {});
  EXPECT_TRUE(HasLine(page,
                      "hami_vgpu_core_allocated_ratio{zone=\"vGPU\",namespace=\"\",node=\"n1\","
                      "pod=\"a\",container_index=\"0\",device_uuid=\"GPU-1\"} 25"));
  EXPECT_TRUE(HasLine(page,
                      "nodeGPUMemoryPercentage{zone=\"vGPU\",nodeid=\"n1\","
                      "deviceuuid=\"GPU-1\",deviceidx=\"0\"} 0.5"));
}

TEST(Metrics, FilterAndUnknownNames) {
  const std::string page = MetricsText(Full(), {}, {"divvy_tenants"});
  EXPECT_EQ(page,
            "# HELP divvy_tenants Tenants there are\n# TYPE divvy_tenants gauge\n"
            "divvy_tenants 1\n");
  EXPECT_TRUE(CheckMetricNames({"divvy_tenants"}, false).ok());
  EXPECT_FALSE(CheckMetricNames({"GPUDeviceSharedNum"}, false).ok());
  EXPECT_TRUE(CheckMetricNames({"GPUDeviceSharedNum"}, true).ok());
  EXPECT_EQ(CheckMetricNames({"nope"}, true).error().code, ErrorCode::kInvalid);
}

TEST(Metrics, ATextCannotBreakOutOfItsLabel) {
  MetricsPage page(kMetrics);
  page.Add<Metric::kDivvyTenantPaused>(1, "a\"} 1\nevil 2\\");
  EXPECT_TRUE(HasLine(page.Text({}), "divvy_tenant_paused{tenant=\"a\\\"} 1\\nevil 2\\\\\"} 1"));
}

}  // namespace
}  // namespace divvy::daemon
