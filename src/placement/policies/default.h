// default: Divvy's own policy. Takes the place where a potential of the node grows least:
//   fragmentation  idle compute that the expected requests could not use; nodes that can serve
//                  requests for several devices weigh more the scarcer they become
// + stranded CPU   idle compute for which the node has no CPU left
// + pattern        idle compute of devices that no combination of expected requests would fill
// + scarcity       use of a pool that others, who can use few pools, will ask for
// Everything is learnt from the request mix and the cluster; scores are integers.
#pragma once

#include <memory>

#include "src/placement/policy.h"

namespace divvy::placement {

// Weights of the parts: no size of any request is among them. How they were chosen, and what each
// does to the figures: docs/placement.md.
struct DefaultTuning {
  double base = 6;         // a request counts (devices + base) times in the fragmentation
  double whole = 1;        // weight of requests for several devices while nodes are plenty
  double near_part = 0.8;  // worth of a node that is nearly whole, see ExpectedUse::Weights
  double near_power = 3;
  double plenty = 0.12;       // whole nodes are plenty while demand for them is this part of them,
  double plenty_power = 0.8;  // or that power of their share of all demand, if it is more
  double safety = 3;          // demand for them is taken so many standard deviations above its mean
  double steepness = 1.5;     // doublings of their weight for each doubling of that part
  int max_doublings = 5;
  // Weight of compute without CPU: the part of the CPU that the mix wants, to this power (so it is
  // as dear as any idle compute when the mix wants exactly the CPU there is), within these limits.
  double cpu_power = 20;
  double stranded = 0.2;
  double stranded_most = 12;
  // CPU per device that counts as enough: so much of the mix's own, and no more than there is.
  double cpu_slack = 1.2;
  double pattern = 8;     // weight of compute that no pattern fills
  double scarcity = 0.3;  // price of compute in a pool that is wanted as much as there is
  // Scores closer than this part of a device are equal: then nodes fill up in order, and so the
  // others stay whole.
  double quantum = 0.01;
};

std::unique_ptr<Policy> MakeDefault(const DefaultTuning& tuning = {});

}  // namespace divvy::placement
