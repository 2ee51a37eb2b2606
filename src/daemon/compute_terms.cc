#include "src/daemon/compute_terms.h"

#include <algorithm>

namespace divvy::daemon {
namespace {
constexpr double kUsualWeight = 100;
constexpr double kLeastRest = 0.1;      // percent, when everything is promised
constexpr double kLeastWeight = 0.001;  // what the arbiter still computes with

// The part of the rest that a tenant asks for, relative to the others'.
double Claim(const ComputeTerms& t) {
  if (t.weight != 0) return t.weight;
  return t.guaranteed.milli == 0 ? kUsualWeight : 0;
}
}  // namespace

std::vector<double> Weights(const std::vector<ComputeTerms>& tenants) {
  double promised = 0, claims = 0;
  for (const ComputeTerms& t : tenants) {
    promised += t.guaranteed.milli / 1000.0;
    claims += Claim(t);
  }
  const double rest = std::max(100 - promised, kLeastRest);
  std::vector<double> out;
  for (const ComputeTerms& t : tenants) {
    const double of_rest = claims > 0 ? rest * Claim(t) / claims : 0;
    out.push_back(std::max(t.guaranteed.milli / 1000.0 + of_rest, kLeastWeight));
  }
  return out;
}

Percent FreeToPromise(const std::vector<ComputePromise>& promises) {
  uint64_t sum = 0;
  for (const ComputePromise& p : promises) sum += p.guaranteed.milli;
  return {sum >= 100'000 ? 0 : static_cast<uint32_t>(100'000 - sum)};
}

Status AdmitCompute(unsigned device_index, std::vector<ComputePromise> promises, Percent wanted,
                    bool overcommit) {
  const Percent free = FreeToPromise(promises);
  if (overcommit || wanted.milli == 0 || wanted <= free) return {};
  std::erase_if(promises, [](const ComputePromise& p) { return p.guaranteed.milli == 0; });
  std::stable_sort(promises.begin(), promises.end(),
                   [](const auto& a, const auto& b) { return a.guaranteed > b.guaranteed; });
  std::string held;
  constexpr size_t kNamed = 12;
  for (size_t i = 0; i < promises.size() && i < kNamed; ++i)
    held += (i == 0 ? "" : ", ") + promises[i].tenant + " " + ToString(promises[i].guaranteed);
  if (promises.size() > kNamed)
    held += " and " + std::to_string(promises.size() - kNamed) + " smaller ones";
  const std::string left = free.milli == 0 ? "0 %" : ToString(free);
  return NoRoom("GPU " + std::to_string(device_index) + " has " + left +
                " of its compute left to promise, " + ToString(wanted) +
                " were asked for; held by: " + held +
                ". Ask for less, lower a tenant's, or say --overcommit");
}

}  // namespace divvy::daemon
