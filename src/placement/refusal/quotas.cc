// Quotas: see quotas.h.
#include "src/placement/refusal/quotas.h"

#include <algorithm>

namespace divvy::placement {

Quotas::Space& Quotas::Mutable(uint32_t space) {
  if (space >= spaces_.size()) spaces_.resize(space + 1);
  return spaces_[space];
}

void Quotas::Set(uint32_t space, const SpaceQuota& quota) { Mutable(space).quota = quota; }
void Quotas::Charge(uint32_t space, int64_t milli) { Mutable(space).used += milli; }
void Quotas::Waits(uint32_t space, int64_t milli) { Mutable(space).waiting += milli; }

bool Quotas::Allows(uint32_t space, int64_t milli) const {
  const Space s = Get(space);
  return milli <= s.quota.limit_milli - s.used;
}

std::vector<int64_t> Quotas::FairShares(int64_t capacity) const {
  const size_t n = spaces_.size();
  std::vector<int64_t> share(n), want(n);
  int64_t rest = capacity, guaranteed = 0;
  for (size_t i = 0; i < n; ++i) {
    const Space& s = spaces_[i];
    want[i] = std::min(s.used + s.waiting, s.quota.limit_milli);
    share[i] = std::min(want[i], s.quota.guaranteed_milli);
    guaranteed += share[i];
  }
  if (guaranteed > capacity) {  // more was promised than there is: in proportion
    for (size_t i = 0; i < n; ++i) {
      share[i] = static_cast<int64_t>(static_cast<__int128>(share[i]) * capacity / guaranteed);
    }
    return share;
  }
  rest -= guaranteed;
  // Water-filling: whoever wants less than its part leaves the difference to the others.
  std::vector<size_t> open;
  for (size_t i = 0; i < n; ++i) {
    if (want[i] > share[i] && spaces_[i].quota.weight > 0) open.push_back(i);
  }
  while (!open.empty() && rest > 0) {
    int64_t weights = 0;
    for (const size_t i : open) weights += spaces_[i].quota.weight;
    std::vector<size_t> still;
    int64_t given = 0;
    const auto part = [&](size_t i) {
      return static_cast<int64_t>(static_cast<__int128>(rest) * spaces_[i].quota.weight / weights);
    };
    for (const size_t i : open) {
      if (want[i] - share[i] <= part(i)) {
        given += want[i] - share[i];
        share[i] = want[i];
      } else {
        still.push_back(i);
      }
    }
    if (still.size() == open.size()) {  // all want more than their part: that is it
      for (const size_t i : open) share[i] += part(i);
      break;
    }
    rest -= given;
    open = std::move(still);
  }
  return share;
}

std::vector<int64_t> Quotas::Surplus(uint32_t space, int64_t milli, int64_t capacity) const {
  if (milli <= 0) return {};  // shares are of devices
  Quotas asked = *this;
  asked.Waits(space, milli);
  std::vector<int64_t> surplus = asked.FairShares(capacity);
  if (used(space) + milli > surplus[space]) return {};
  int64_t most = 0;
  for (size_t i = 0; i < surplus.size(); ++i) {
    surplus[i] = std::max<int64_t>(0, used(static_cast<uint32_t>(i)) - surplus[i]);
    most = std::max(most, surplus[i]);
  }
  if (most == 0) return {};
  return surplus;
}

}  // namespace divvy::placement
