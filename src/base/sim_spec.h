// The names of simulated machines, NAME[xCOUNT][@xDILATION], as `--sim` takes them: what the CLI
// and divvyd refuse before anything is made for it. What the models are is the simulator's
// (src/sim/wire/profile.h). Pure; any thread.
#pragma once

#include <cstdint>
#include <string_view>

#include "src/base/result.h"

namespace divvy {

struct SimSpec {
  std::string_view model;  // one of kSimModels
  uint32_t count = 1;
  uint32_t dilation = 1;  // every duration times this
};

inline constexpr std::string_view kSimModels[] = {"h100", "a100", "t4"};
inline constexpr uint32_t kMaxSimDevices = 16;
inline constexpr uint32_t kMaxSimDilation = 1000;

// kInvalid for an unknown model, a count outside 1..16, a dilation outside 1..1000.
Result<SimSpec> ParseSimSpec(std::string_view text);

}  // namespace divvy
