#include "src/daemon/ledger.h"

#include <algorithm>

namespace divvy::daemon {
namespace {

int64_t Between(int64_t a, int64_t b, double part) {
  return a + static_cast<int64_t>(static_cast<double>(b - a) * part);
}

int64_t WaitFor(const Ledger& ledger, uint64_t tenant) {
  for (const auto& [who, ns] : ledger.waited_for)
    if (who == tenant) return ns;
  return 0;
}

}  // namespace

void Ledger::AddWait(uint64_t tenant, int64_t wait_ns) {
  for (auto& [who, sum] : waited_for)
    if (who == tenant) {
      sum += wait_ns;
      return;
    }
  waited_for.emplace_back(tenant, wait_ns);
}

void Ledger::Forget(uint64_t tenant) {
  const auto its = std::find_if(waited_for.begin(), waited_for.end(),
                                [=](const auto& one) { return one.first == tenant; });
  if (its == waited_for.end()) return;
  const int64_t ns = its->second;
  waited_for.erase(its);
  AddWait(kEnded, ns);
}

Part RestOf(const Sight& s, bool others_ran) {
  if (!s.processes) return Part::kAbsent;
  if (s.alone) {  // nobody looks whether a thread waits
    if (s.held == HeldBy::kOperator) return Part::kPaused;
    return s.held == HeldBy::kAudit ? Part::kAudit : Part::kAlone;
  }
  if (s.waiting) {
    switch (s.held) {
      case HeldBy::kOperator:
        return Part::kPaused;
      case HeldBy::kAudit:
        return Part::kAudit;
      case HeldBy::kCap:
        return Part::kCap;
      case HeldBy::kTurn:
        return Part::kTurn;
      case HeldBy::kNobody:
        break;  // for its own work in flight
    }
  }
  if (s.copying && (s.outstanding || !s.waiting)) return Part::kCopies;
  if (s.outstanding) return others_ran ? Part::kTurn : Part::kGpu;
  // It asks, but nothing of its own is there to wait for.
  return s.waiting && others_ran ? Part::kTurn : Part::kHost;
}

void LedgerRing::Push(const Ledger& ledger) {
  if (!ring_.empty() && ring_.back().at >= ledger.at) {
    ring_.back() = ledger;  // nobody looked meanwhile; what is going on may have changed
    return;
  }
  ring_.push_back(ledger);
  if (ring_.size() > kKept) ring_.pop_front();
}

void LedgerRing::Forget(uint64_t tenant) {
  for (Ledger& ledger : ring_) ledger.Forget(tenant);
}

Ledger LedgerRing::At(arbiter::Nanos time) const {
  if (ring_.empty()) return {};
  if (time <= ring_.front().at) return ring_.front();
  const auto after = std::upper_bound(ring_.begin(), ring_.end(), time,
                                      [](arbiter::Nanos t, const Ledger& l) { return t < l.at; });
  const Ledger& before = *std::prev(after);
  if (after == ring_.end()) {
    Ledger out = before;
    out[out.rest] += (time - out.at).count();
    out.at = time;
    return out;
  }
  const double part = static_cast<double>((time - before.at).count()) /
                      static_cast<double>((after->at - before.at).count());
  Ledger out = before;
  out.at = time;
  for (size_t i = 0; i < kParts; ++i) out.ns[i] = Between(before.ns[i], after->ns[i], part);
  out.copying_ns = Between(before.copying_ns, after->copying_ns, part);
  for (const auto& [who, ns] : after->waited_for) {
    const int64_t then = WaitFor(before, who);
    out.AddWait(who, Between(then, ns, part) - then);
  }
  return out;
}

Ledger Difference(const Ledger& from, const Ledger& to) {
  Ledger out;
  out.at = arbiter::Nanos(to.at - from.at);
  for (size_t i = 0; i < kParts; ++i) out.ns[i] = std::max<int64_t>(to.ns[i] - from.ns[i], 0);
  out.copying_ns = std::max<int64_t>(to.copying_ns - from.copying_ns, 0);
  for (const auto& [who, ns] : to.waited_for)
    if (const int64_t grown = ns - WaitFor(from, who); grown > 0) out.AddWait(who, grown);
  std::stable_sort(out.waited_for.begin(), out.waited_for.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return out;
}

}  // namespace divvy::daemon
