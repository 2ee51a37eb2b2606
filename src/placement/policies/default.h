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
  double plenty = 0.12;    // whole nodes are plenty while demand for them is this part of them
  double steepness = 1.5;  // doublings of their weight for each doubling of that part
  int max_doublings = 7;
  double stranded = 0.2;     // weight of compute without CPU while CPU is plenty
  double stranded_most = 3;  // and at most
  double cpu_plenty = 0.93;  // CPU is plenty while the mix wants this part of it
  double cpu_power = 20;     // growth of the weight beyond that
  double cpu_slack = 1.2;    // CPU per device, relative to the mix, that counts as enough
  double pattern = 8;        // weight of compute that no pattern fills
  double scarcity = 0.7;     // price of compute in a pool that is wanted as much as there is
};

std::unique_ptr<Policy> MakeDefault(const DefaultTuning& tuning = {});

}  // namespace divvy::placement
