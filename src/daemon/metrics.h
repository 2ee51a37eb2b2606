// What divvyd tells Prometheus: the figures of one moment as a page of text. The metrics stand in
// api/metrics/; docs/monitoring.md says how they are meant to be used.
//
// Pure but for SelfFigures (/proc/self, getrusage). Threads: any.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/daemon/figures.h"

namespace divvy::daemon {

// divvyd as a process.
struct SelfFigures {
  double cpu_s = 0;
  double started = 0;  // seconds since the epoch
  uint64_t resident_bytes = 0;
  uint64_t descriptors = 0;
  uint64_t watchers = 0, watchers_dropped = 0;
  uint64_t log_dropped = 0;
};
SelfFigures ReadSelf();

std::string MetricsText(const Figures& figures, const SelfFigures& self,
                        const std::vector<std::string>& only);
// The same figures under HAMi's names, `node` being this machine's name.
std::string HamiMetricsText(const Figures& figures, const std::string& node,
                            const std::vector<std::string>& only);

// kInvalid, naming it, when one of `only` is no metric of ours.
Status CheckMetricNames(const std::vector<std::string>& only, bool hami);

}  // namespace divvy::daemon
