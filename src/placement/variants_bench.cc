// Policies on variants of the openb trace that nothing was tuned for (sim/vary.h): what the default
// allocates, refuses early and accepts of large requests, beside fgd. Prints one line per trace,
// variant and policy: the mean of the seeds, and on how many of them the default is at least fgd.
//   placement_variants_bench [TRACES [VARIANTS [SEEDS [POLICIES [churn]]]]]   lists with commas
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "src/placement/policies/default.h"
#include "src/placement/policies/policies.h"
#include "src/placement/sim/protocol.h"
#include "src/placement/sim/vary.h"
#include "src/placement/trace_data_test.h"

namespace divvy::placement {
namespace {

std::vector<std::string> Split(std::string_view list) {
  std::vector<std::string> out;
  while (!list.empty()) {
    const std::string_view part = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), part.size() + 1));
    out.emplace_back(part);
  }
  return out;
}

int Main(int argc, char** argv) {
  const auto argument = [&](int i, const char* otherwise) {
    return std::string(argc > i ? argv[i] : otherwise);
  };
  const std::vector<std::string> traces =
      Split(argument(1, "default,cpu050,cpu200,gpushare40,gpushare100,gpuspec10,multigpu20"));
  std::string variants = "given";
  for (const Variant& v : Variants()) variants += "," + std::string(v.name);
  variants = argument(2, variants.c_str());
  const int seeds = std::atoi(argument(3, "2").c_str());
  const std::vector<std::string> policies = Split(argument(4, "fgd,default"));
  const bool churn = argument(5, "") == "churn";
  if (!HaveTraces()) {
    std::printf("no openb trace in %s (DIVVY_TRACE_DIR)\n", TraceDir().c_str());
    return 1;
  }
  std::printf("%-12s%-22s%5s %-9s%10s%10s%10s%10s%8s\n", "trace", "variant", "seed", "policy",
              "allocated", "early", "multi", "fragments", "churn");
  for (const std::string& trace : traces) {
    for (const std::string& variant : Split(variants)) {
      for (int seed = 1; seed <= seeds; ++seed) {
        Inventory inventory;
        if (Status s = ReadTrace(trace, &inventory); !s.ok()) {
          std::fprintf(stderr, "%s\n", s.error().message.c_str());
          return 1;
        }
        if (!Vary(variant, static_cast<uint64_t>(seed), &inventory)) {
          std::fprintf(stderr, "no variant \"%s\"\n", variant.c_str());
          return 1;
        }
        const Order order = DrawOrder(inventory, static_cast<uint64_t>(seed), kInflateRatio);
        for (const std::string& policy : policies) {
          const auto make = [&] { return MakePolicy(policy, static_cast<uint64_t>(seed)); };
          const InflateResult r = RunInflate(inventory, order, 1, make(), {});
          const double accepted =
              churn ? RunChurn(inventory, order, static_cast<uint64_t>(seed), 0.95, 1, make(), {})
                          .accepted_percent
                    : 0;
          std::printf("%-12s%-22s%5d %-9s%10.3f%10.3f%10.3f%10.3f%8.3f\n", trace.c_str(),
                      variant.c_str(), seed, policy.c_str(), r.allocated_percent,
                      r.rejected_before_95_percent, r.multi_gpu_accepted_percent,
                      r.fragmentation_percent_of_total, accepted);
          std::fflush(stdout);
        }
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace divvy::placement

int main(int argc, char** argv) { return divvy::placement::Main(argc, argv); }
