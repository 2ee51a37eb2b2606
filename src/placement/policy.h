// What a placement policy is: a score for one shape on one node, and the devices it would take.
// Policies are pure functions of the node and of what they learnt; the engine caches their scores.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <string_view>
#include <vector>

#include "src/placement/cluster.h"
#include "src/placement/mix.h"
#include "src/placement/model.h"

namespace divvy::placement {

inline constexpr int32_t kNoFit = std::numeric_limits<int32_t>::min();

struct Choice {
  int32_t score = kNoFit;  // higher is better; only compared between nodes for one shape
  DeviceMask devices = 0;
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual std::string_view name() const = 0;

  // Takes over what the expected requests look like. May be slow (a second), and may run on another
  // thread while the policy is in no engine (Engine::Adopt).
  virtual void Learn(const Mix& mix, const Hardware& hardware) {
    (void)mix;
    (void)hardware;
  }

  // The shape fits the node (Fits is true). Must depend on nothing but the view, the shape and
  // what was learnt, except for policies that draw.
  virtual Choice Evaluate(const NodeView& view, const Shape& shape) const = 0;

  // The part of a shape that Evaluate's score depends on, with what it does not look at left out
  // (0, any). Shapes that agree in it share what is known of scores. Asked for after Learn.
  virtual Shape ScoredAs(const Shape& shape) const { return shape; }
  // True if Evaluate's score for the shape depends on nothing of a node but its pool, its CPU left
  // and the rests of its devices in whatever order (StateOf). Then scores of equal nodes are looked
  // up. Asked for after Learn.
  virtual bool ByState(const Shape& shape) const {
    (void)shape;
    return false;
  }

  // All scores are multiples of it: cached scores then take less memory. Asked for after Learn.
  virtual int32_t ScoreUnit() const { return 1; }

  // Per pool: the CPU that an untouched device needs to count as one, see
  // Cluster::NodesWithWhole. Asked for after Learn.
  virtual std::vector<int32_t> CpuPerWhole() const { return {}; }

  // Looks at the whole cluster, after Learn and after every few changes of it (never inside a
  // transaction). Says in which pools Evaluate now gives other scores for nodes with untouched
  // devices (the engine scores those anew), and where they may be higher by more than ScoreUnit;
  // what can only have become lower is scored when it would win. Constant time.
  struct Adaption {
    uint64_t changed = 0, higher = 0;  // bits by pool
  };
  virtual Adaption Adapt(const Cluster& cluster) {
    (void)cluster;
    return {};
  }
  // A bias per pool: added to the score of every node of it, afresh in each decision; cheap, unlike
  // Adapt. The kind of a shape is asked for once after Learn; kNoBias: it has none. PoolBias sets
  // the first `pools` entries.
  static constexpr uint32_t kNoBias = ~uint32_t{0};
  virtual uint32_t BiasKind(const Shape& shape) {
    (void)shape;
    return kNoBias;
  }
  virtual void PoolBias(uint32_t kind, const Shape& shape, size_t pools,
                        std::array<int32_t, kMaxPools>* bias) {
    (void)kind;
    (void)shape;
    (void)pools;
    (void)bias;
  }

  // A policy that draws returns true: then the engine takes the Draw(n)-th of the n nodes that
  // fit. `tick` counts the changes of the cluster: the same at the same tick.
  virtual bool Draws() const { return false; }
  virtual uint32_t Draw(uint64_t tick, uint32_t n) {
    (void)tick;
    (void)n;
    return 0;
  }
};

// Device choices that several policies share.
DeviceMask TightestDevice(const NodeView& view, const Shape& shape);  // least compute left
DeviceMask FirstDevices(const NodeView& view, const Shape& shape);    // in device order
// As FirstDevices, but inside one link group where one is large enough (the smallest such).
DeviceMask LinkedDevices(const NodeView& view, const Shape& shape);
// The shape's own rule: tightest for a shared one, linked if asked, else first.
DeviceMask UsualDevices(const NodeView& view, const Shape& shape);

}  // namespace divvy::placement
