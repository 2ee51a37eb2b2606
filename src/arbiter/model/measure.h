// What a mix is worth: the same mix alone per tenant, native, and with the arbiter, over several
// seeds, and the figures that the budgets are written in.
#pragma once

#include <string>
#include <vector>

#include "src/arbiter/model/world.h"

namespace divvy::arbiter::model {

// Median over the seeds, and the worst.
struct Spread {
  double median = 0;
  double worst = 0;
};

struct TenantReport {
  std::string name;
  double wanted_percent = 0;  // guaranteed part of its devices
  double solo_percent = 0;    // what it uses alone
  Spread got_percent;
  Spread share_error_percent;  // relative, saturating mixes
  Spread shortfall_percent;    // from min(solo, guarantee), other mixes
  Spread progress;             // rate / solo rate
  Spread native_progress;
  Spread native_shortfall_percent;
  Spread latency_p99_ratio;  // to solo; 0 = no requests
  Spread native_latency_p99_ratio;
};

struct MixReport {
  std::string name;
  bool saturating = false;
  std::vector<TenantReport> tenants;
  Spread share_error_percent;  // worst tenant
  Spread shortfall_percent;
  Spread progress;  // sum over tenants
  Spread native_progress;
  Spread native_error_percent;  // share error or shortfall, as the mix asks
  Spread busy;
  Spread native_busy;
  double switches_per_second = 0;
  double polls_per_second = 0;
};

struct MeasureOptions {
  unsigned seeds = 5;
  uint64_t first_seed = 1;
  bool native = true;
};

MixReport Measure(const Mix& mix, const Tunables& tunables, const MeasureOptions& options);

// Relative share error in percent of the worst tenant of one run.
double ShareError(const Mix& mix, const WorldResult& run);
double Percentile(std::vector<double> values, double part);

}  // namespace divvy::arbiter::model
