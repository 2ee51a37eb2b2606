// WaitingRoom: see waiting_room.h.
#include "src/placement/refusal/waiting_room.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace divvy::placement {

void WaitingRoom::Add(uint64_t id, const Request& request, Quotas* quotas) {
  waiting_.push_back({id, request, 0});
  quotas->Waits(request.space, request.shape.TotalMilli());
}

void WaitingRoom::Remove(uint64_t id, Quotas* quotas) {
  const auto it =
      std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiter& w) { return w.id == id; });
  if (it == waiting_.end()) return;
  quotas->Waits(it->request.space, -it->request.shape.TotalMilli());
  waiting_.erase(it);
}

void WaitingRoom::Passed(uint64_t id) {
  for (Waiter& w : waiting_) {
    if (w.id == id) ++w.passes;
  }
}

const Request& WaitingRoom::request(uint64_t id) const {
  return std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiter& w) { return w.id == id; })
      ->request;
}

std::vector<uint64_t> WaitingRoom::Order(const Quotas& quotas, int64_t capacity) const {
  const std::vector<int64_t> fair = quotas.FairShares(capacity);
  std::vector<size_t> order(waiting_.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](size_t i) {
    const Request& r = waiting_[i].request;
    const int64_t share = std::max<int64_t>(1, r.space < fair.size() ? fair[r.space] : 0);
    const auto fullness =
        static_cast<int64_t>(static_cast<__int128>(quotas.used(r.space)) * 1'000'000 / share);
    return std::tuple(fullness, -int64_t{r.priority}, i);
  };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  std::vector<uint64_t> ids;
  for (const size_t i : order) {
    if (!quotas.Allows(waiting_[i].request.space, waiting_[i].request.shape.TotalMilli())) continue;
    ids.push_back(waiting_[i].id);
    if (waiting_[i].passes >= max_passes_) break;  // nobody passes it any more
  }
  return ids;
}

}  // namespace divvy::placement
