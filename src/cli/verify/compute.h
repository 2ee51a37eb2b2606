// divvy verify compute: the standard cases on the device at hand, three times each under real
// shares, beside the same programs without Divvy and each of them alone. What a tenant got is the
// GPU time of the kernels it finished, by its own count, not what the arbiter billed.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/cli/verify/compute_cases.h"

namespace divvy::cli {

struct VerifyComputeOptions {
  std::string sim;     // a model, or a machine as --sim takes it; "" = the real one
  std::string gpu;     // of the real one; "" = the first
  double seconds = 0;  // measured, of each run; 0 = chosen
  std::vector<const Case*> cases;
};

struct Spread {
  double median = 0, least = 0, most = 0;
};

struct ComputeRow {
  const Case* of = nullptr;
  std::string tenant;
  double dilation = 1;
  double wanted_percent = 0, solo_percent = 0;
  Spread got_percent, error_percent, progress, latency_p99_ratio;  // error: or shortfall
  double native_progress = 0, native_error_percent = 0, native_latency_p99_ratio = 0;
  double budget_percent = 0, p99_budget = 0;  // 0 = none
  bool SharesWithin() const {
    return budget_percent == 0 || error_percent.median <= budget_percent;
  }
  bool LatencyWithin() const { return p99_budget == 0 || latency_p99_ratio.median <= p99_budget; }
  bool Within() const { return SharesWithin() && LatencyWithin(); }
};

struct ComputeReport {
  std::string machine;
  double dilation = 1, seconds = 0;  // of the measured stretch, real time
  std::vector<ComputeRow> rows;
  std::vector<std::string> skipped;  // "case: why"
};

// `done` gets the rows of each case as it is finished.
Result<ComputeReport> VerifyCompute(
    const VerifyComputeOptions& options,
    const std::function<void(const std::vector<ComputeRow>&)>& done);

// What the algorithm stands on, on the same machine (hardware.h).
Result<nlohmann::json> VerifyHardware(const VerifyComputeOptions& options);

nlohmann::json ToJson(const ComputeReport& report);
nlohmann::json ToJson(const ComputeRow& row);

}  // namespace divvy::cli
