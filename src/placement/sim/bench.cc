// Bench: see bench.h.
#include "src/placement/sim/bench.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "src/placement/policies/policies.h"
#include "src/placement/sim/order.h"

namespace divvy::placement {
namespace {

// Per text: how many others stand before it.
std::vector<uint32_t> RanksByText(const std::vector<std::string>& texts) {
  std::vector<uint32_t> order(texts.size()), rank(texts.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return texts[a] < texts[b]; });
  for (uint32_t i = 0; i < order.size(); ++i) rank[order[i]] = i;
  return rank;
}

}  // namespace

Bench::Bench(const Inventory& inventory, const std::vector<uint32_t>& node_rank, uint32_t replicate,
             std::unique_ptr<Policy> policy)
    : engine_(std::make_unique<Engine>(std::move(policy))) {
  const std::vector<uint32_t> by_name = NodesByName(inventory);
  std::vector<uint32_t> by_rank(by_name.size());
  for (size_t i = 0; i < by_name.size(); ++i) by_rank[node_rank[i]] = by_name[i];
  const auto nodes = static_cast<uint32_t>(inventory.nodes.size());
  for (uint32_t copy = 0; copy < replicate; ++copy) {
    for (const uint32_t at : by_rank) {
      const NodeId id = engine_->cluster().AddNode(inventory.nodes[at]);
      if (inventory.closed[at]) engine_->cluster().SetClosed(id, true);
      origin_.push_back(at + copy * nodes);
    }
  }
  const std::vector<uint32_t> rank = RanksByText(inventory.spellings);
  for (const Pod& p : inventory.pods) {
    mix_.Add(p.request.shape, 1, p.spelling < rank.size() ? rank[p.spelling] : 0);
  }
  engine_->Learn(mix_);
  shape_of_.reserve(inventory.pods.size());
  for (const Pod& p : inventory.pods) shape_of_.push_back(engine_->Intern(p.request.shape));

  // Pods that already run take their places in every copy; one that no longer fits is left out.
  std::unordered_map<std::string_view, uint32_t> node_at;
  for (uint32_t i = 0; i < nodes; ++i) node_at[inventory.nodes[i].name] = i;
  std::vector<std::vector<NodeId>> copies(nodes);
  for (NodeId id = 0; id < origin_.size(); ++id) copies[origin_[id] % nodes].push_back(id);
  for (uint32_t pod = 0; pod < inventory.pods.size(); ++pod) {
    const auto it = node_at.find(inventory.pods[pod].node);
    if (inventory.pods[pod].node.empty() || it == node_at.end()) continue;
    Request request = inventory.pods[pod].request;
    const Shape& shape = request.shape;
    for (const NodeId id : copies[it->second]) {
      const bool closed = inventory.closed[it->second];
      if (closed) engine_->cluster().SetClosed(id, false);
      const NodeView view = engine_->cluster().View(id);
      if (Fits(view, shape)) {
        running_.emplace_back(
            engine_->PlaceAt(shape_of_[pod], request, id, UsualDevices(view, shape)), pod);
      } else {
        lost_.emplace_back(pod, id);
      }
      if (closed) engine_->cluster().SetClosed(id, true);
      if (request.gang != 0) request.gang += static_cast<uint32_t>(inventory.gangs.size());
    }
  }
}

SomePods PodsWithoutRoom(const Inventory& inventory) {
  SomePods lost;
  if (std::all_of(inventory.pods.begin(), inventory.pods.end(),
                  [](const Pod& p) { return p.node.empty(); })) {
    return lost;
  }
  std::vector<uint32_t> rank(inventory.nodes.size());
  std::iota(rank.begin(), rank.end(), 0);
  // Where they run does not depend on a policy.
  const Bench bench(inventory, rank, 1, MakePolicy("bestfit", 0));
  for (const auto& [pod, node] : bench.lost()) lost.Add(pod);
  return lost;
}

}  // namespace divvy::placement
