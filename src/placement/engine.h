// The placement engine: requests in, decisions out. Holds the cluster, the tenants, one policy and
// the cached scores per shape. Called by the simulator, the scheduler extender and the tests; one
// thread. Deterministic: the same calls give the same decisions.
//
// Cost: a decision re-scores only nodes that changed since the last decision for the same shape,
// then scans block maxima. The first decision for a shape, or after Learn, scores every node.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "src/placement/cluster.h"
#include "src/placement/model.h"
#include "src/placement/policy.h"
#include "src/placement/scores.h"

namespace divvy::placement {

struct Decision {
  NodeId node = kNoNode;
  DeviceMask devices = 0;
  int32_t score = kNoFit;
};

// A placed request. 32 bytes: there are a million of them.
struct Tenant {
  ShapeId shape = 0;
  NodeId node = kNoNode;  // kNoNode: not placed (a free record)
  DeviceMask devices = 0;
  TenantId next = 0;  // next on the same node, or next free record
  uint32_t gang = 0;
  int32_t priority = 0;
  uint16_t space = 0;
  int16_t granted_milli = 0;  // compute on each device; below the shape's while squeezed
  int16_t min_milli = 0;      // 0 = not elastic
  ServiceClass service = ServiceClass::kStandard;
};
static_assert(sizeof(Tenant) == 32);
inline constexpr TenantId kNoTenant = ~TenantId{0};

class Engine {
 public:
  explicit Engine(std::unique_ptr<Policy> policy);

  Cluster& cluster() { return cluster_; }
  const Cluster& cluster() const { return cluster_; }
  Policy& policy() { return *policy_; }

  // Hands the mix to the policy and drops every cached score. As slow as the policy's Learn.
  void Learn(const Mix& mix);
  // Goes on with a policy that learnt elsewhere, say on another thread: Learn(mix,
  // cluster().hardware()). Gives the old one back. A look at every node; each shape's next decision
  // scores all nodes.
  std::unique_ptr<Policy> Adopt(std::unique_ptr<Policy> learnt);

  ShapeId Intern(const Shape& shape);
  const Shape& shape(ShapeId id) const { return shapes_[id]; }
  size_t shapes() const { return shapes_.size(); }

  // Where the shape would go now. No value: it fits nowhere. Nothing changes, nor does any later
  // decision; the same holds for a transaction that is rolled back.
  std::optional<Decision> Decide(ShapeId shape);
  // Decide, then take. kNoTenant: refused, nothing changed.
  TenantId Place(const Request& request);
  TenantId Place(ShapeId shape, const Request& request);
  // Takes exactly this place, which must fit. `granted_milli` below the shape's compute: squeezed
  // from the start.
  TenantId PlaceAt(ShapeId shape, const Request& request, NodeId node, DeviceMask devices);
  TenantId PlaceAt(ShapeId shape, const Request& request, NodeId node, DeviceMask devices,
                   int32_t granted_milli);
  void Release(TenantId id);
  // Moves a tenant to another place, which must fit; it keeps its id and what it was granted.
  void Relocate(TenantId id, NodeId node, DeviceMask devices);
  // Sets the compute a tenant holds on each of its devices; growing must fit.
  void Resize(TenantId id, int32_t granted_milli);

  // Everything done after Begin can be undone in one step. Transactions nest.
  void Begin();
  void Commit();
  void Rollback();

  const Tenant& tenant(TenantId id) const {
    return tenant_blocks_[id / kTenantBlock][id % kTenantBlock];
  }
  TenantId FirstOn(NodeId node) const { return node < heads_.size() ? heads_[node] : kNoTenant; }
  size_t tenants() const { return live_; }
  size_t tenant_slots() const { return tenant_slots_; }
  size_t BytesUsed() const;

 private:
  struct Undo {
    enum class Op : uint8_t { kPlace, kRelease, kResize, kRelocate } op;
    TenantId id;
    Tenant before;
  };
  static constexpr size_t kTenantBlock = 8192;
  Tenant& At(TenantId id) { return tenant_blocks_[id / kTenantBlock][id % kTenantBlock]; }
  // Counts a change outside transactions; the policy looks at the cluster every so many. So what is
  // only asked, or undone, leaves no trace in later decisions.
  void Changed(size_t times = 1);
  void Look();
  void Forget();  // what was computed with another policy
  Scores& ScoresOf(ShapeId shape);
  NodeId Best(ShapeId shape);
  void Prepare();  // for nodes that came
  void Attach(TenantId id, const Tenant& t);
  void Detach(TenantId id);

  std::unique_ptr<Policy> policy_;
  Cluster cluster_;
  std::vector<Shape> shapes_;
  std::unordered_map<Shape, ShapeId, ShapeHash> shape_ids_;
  // Scores, and when they were last asked for: few of them, so that a mix of very many shapes takes
  // no more memory than one of some hundreds. Shapes that score alike share them, each until their
  // best node turns out not to fit it.
  struct Cached {
    Scores scores;
    uint64_t used;
    uint32_t version;  // what stood here before had another
  };
  struct Where {
    uint32_t at = 0, version = 0;
    uint32_t bias_kind = kUnasked;
    bool own = false;  // does not share
  };
  static constexpr uint32_t kUnasked = Policy::kNoBias - 1;
  std::vector<Cached> cached_;
  std::unordered_map<Shape, uint32_t, ShapeHash> cached_ids_;
  std::vector<Where> where_;  // per shape
  uint32_t versions_ = 0;
  uint64_t asked_ = 0;
  Lanes lanes_;
  Adapted adapted_;
  Memo memo_;
  uint32_t epoch_ = 1;
  std::vector<std::unique_ptr<Tenant[]>> tenant_blocks_;  // never moved: growing costs no pause
  size_t tenant_slots_ = 0;
  std::vector<TenantId> heads_;  // per node
  TenantId free_ = kNoTenant;
  size_t live_ = 0;
  uint64_t changes_ = 0;  // committed
  std::vector<Undo> journal_;
  std::vector<size_t> marks_;
};

}  // namespace divvy::placement
