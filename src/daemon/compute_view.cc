#include "src/daemon/compute_view.h"

#include <algorithm>

namespace divvy::daemon {
namespace {
using arbiter::Nanos;
constexpr Nanos kTenth = std::chrono::milliseconds(100);
constexpr Nanos kSecond = std::chrono::seconds(1);
}  // namespace

void History::Add(Nanos now, double value) {
  newest_ = {now, value};
  if (tenths_.newest().time.count() < 0 || now - tenths_.newest().time >= kTenth)
    tenths_.Push(newest_);
  if (seconds_.newest().time.count() < 0 || now - seconds_.newest().time >= kSecond)
    seconds_.Push(newest_);
}

void History::Spread(Nanos from, Nanos to, double value) {
  if (to <= from) return;
  const auto put = [&](Point& p) {
    if (p.time <= from) return;
    const Nanos part = std::min(p.time, to) - from;
    p.value +=
        value * (static_cast<double>(part.count()) / static_cast<double>((to - from).count()));
  };
  for (Point& p : tenths_.at) put(p);
  for (Point& p : seconds_.at) put(p);
  put(newest_);
}

template <size_t N>
const History::Point* History::AtOrBefore(const Ring<N>& ring, Nanos time) {
  const Point* best = nullptr;
  for (const Point& p : ring.at)
    if (p.time.count() >= 0 && p.time <= time && (best == nullptr || p.time > best->time))
      best = &p;
  return best;
}

double History::Rate(Nanos now, Nanos span) const {
  if (newest_.time.count() < 0) return 0;
  const Point* then = AtOrBefore(tenths_, now - span);
  if (const Point* older = AtOrBefore(seconds_, now - span);
      then == nullptr || (older != nullptr && older->time > then->time))
    then = older;
  // Younger than the span: since the beginning.
  Point first = then != nullptr ? *then : newest_;
  if (then == nullptr) {
    for (const Point& p : tenths_.at)
      if (p.time.count() >= 0 && p.time < first.time) first = p;
    for (const Point& p : seconds_.at)
      if (p.time.count() >= 0 && p.time < first.time) first = p;
  }
  // Nothing was added for a while: nothing grew. The span ends now.
  const Nanos from = then != nullptr ? std::max(first.time, now - span) : first.time;
  const double seconds = std::chrono::duration<double>(now - from).count();
  return seconds > 0 ? (newest_.value - first.value) / seconds : 0;
}

double UsedPercent(const ShareView& view, arbiter::Nanos now, arbiter::Nanos span) {
  // The driver's figures come some time after what they tell of.
  constexpr arbiter::Nanos kSeenLately = std::chrono::milliseconds(1500);
  const arbiter::Nanos at = now - view.seen_at < kSeenLately ? view.seen_at : now;
  return std::min(view.used_ns.Rate(at, span) / 1e9 * 100, 100.0);
}

}  // namespace divvy::daemon
