// Quotas per namespace and fair sharing between them: who may take how much, and whose turn it is
// when there is not enough for all. Pure bookkeeping in milli devices; used by WaitingRoom and by
// whoever admits requests.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace divvy::placement {

struct SpaceQuota {
  int64_t guaranteed_milli = 0;                               // its own, whatever others want
  int64_t limit_milli = std::numeric_limits<int64_t>::max();  // never more than this
  uint32_t weight = 1;  // its part of what nobody is guaranteed
};

class Quotas {
 public:
  // Spaces are numbered from 0; an unknown one has the default quota.
  void Set(uint32_t space, const SpaceQuota& quota);
  void Charge(uint32_t space, int64_t milli);
  void Credit(uint32_t space, int64_t milli) { Charge(space, -milli); }
  void Waits(uint32_t space, int64_t milli);  // demand beyond use; negative when it ends
  int64_t used(uint32_t space) const { return Get(space).used; }

  // False: the space would exceed its limit, now and whatever others release.
  bool Allows(uint32_t space, int64_t milli) const;

  // What each space should have of `capacity` now: its guarantee first, then the rest by weight to
  // those who want more, never more than it uses and waits for, nor its limit.
  std::vector<int64_t> FairShares(int64_t capacity) const;

  // By how much each space exceeds its fair share, if `space` may take `milli` from those that do:
  // with it, it has no more than its own fair share. Empty if it may not. Tenants of the others may
  // then be preempted for it, down to their fair shares.
  std::vector<int64_t> Surplus(uint32_t space, int64_t milli, int64_t capacity) const;

 private:
  struct Space {
    SpaceQuota quota;
    int64_t used = 0;
    int64_t waiting = 0;
  };
  Space& Mutable(uint32_t space);
  Space Get(uint32_t space) const { return space < spaces_.size() ? spaces_[space] : Space{}; }

  std::vector<Space> spaces_;
};

}  // namespace divvy::placement
