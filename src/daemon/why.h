// Why a tenant is as fast as it is: its wall time on one device as 100 %, and one sentence.
//
// Side: the daemon. Pure: from a Ledger (exact where it says so) and what was asked for.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/daemon/ledger.h"

namespace divvy::daemon {

struct WhyOther {
  std::string name;  // "" = nobody: the device changed hands, or idled
  double guaranteed_percent = 0;
  int64_t wait_ns = 0;
};

// What there is to know of one share.
struct WhyInput {
  Ledger spent;            // in the span: `at` is its length
  int64_t refused_ns = 0;  // of kHost: in stretches in which memory was refused
  uint64_t refusals = 0;
  uint64_t waiting_for_room = 0;  // threads, now
  double guaranteed_percent = 0, cap_percent = 100, part_percent = 0;
  bool batch = false;
  std::string audit;             // codes of findings that shut its gate
  std::vector<WhyOther> others;  // by how long it waited for them, the longest first
};

// {limited_by, verdict, parts: [{what, percent, estimated}], waited_for: [{tenant, percent,
// guaranteed_percent}], refusals}; the parts' percentages sum to 100 to the tenth.
nlohmann::json Explain(const WhyInput& in);

// Tenths of a percent that sum to 1000: by largest remainders. All zero for no time at all.
std::vector<int> Tenths(const std::vector<int64_t>& ns);

}  // namespace divvy::daemon
