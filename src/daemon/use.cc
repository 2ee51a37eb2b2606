#include "src/daemon/use.h"

#include <algorithm>
#include <cmath>

namespace divvy::daemon {
namespace {

constexpr Percent kAll = Percent::Of(100);

void SetPast(region::PolicyDevice& policy, uint64_t number, uint8_t value) {
  const auto byte = static_cast<unsigned>(number % region::kPast);
  region::U64& word = policy.past[byte / 8];
  const unsigned shift = 8 * (byte % 8);
  word = (word & ~(uint64_t{0xff} << shift)) | uint64_t{value} << shift;
}

}  // namespace

Percent WholeOf(Percent guaranteed, Percent cap) {
  if (cap.milli > 0 && cap.milli < kAll.milli) return cap;
  return guaranteed.milli > 0 ? guaranteed : kAll;
}

void TellUse(region::PolicyDevice& policy, Percent whole, const std::optional<UseNow>& use,
             uint64_t now_ns) {
  policy.whole_milli = whole.milli;
  policy.used_permille =
      use ? static_cast<uint32_t>(std::lround(1000 * std::clamp(use->last_second, 0.0, 1.0)))
          : region::kUseNotKnown;
  const auto newest = static_cast<uint32_t>(now_ns / region::kPastNs - 1);
  const uint32_t told = policy.past_newest.load(std::memory_order_relaxed);
  if (told == newest) return;
  const auto value = use ? static_cast<uint8_t>(std::lround(
                               100 * std::clamp(use->last_half / whole.fraction(), 0.0, 1.0)))
                         : region::kPastNotKnown;
  // Half seconds in which nobody looked were as the one after them.
  uint32_t from = newest - std::min<uint32_t>(newest, region::kPast - 1);
  if (told != 0) from = std::max(from, told + 1);
  for (uint32_t n = from; n <= newest; ++n)
    SetPast(policy, n, told == 0 && n != newest ? region::kPastNotKnown : value);
  policy.past_newest.store(newest, std::memory_order_release);
}

}  // namespace divvy::daemon
