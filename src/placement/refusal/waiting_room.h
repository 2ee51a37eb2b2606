// Requests that have to wait, and in which order they are tried again: the namespace furthest below
// its fair share first; in it by priority, then by arrival. Small requests may pass a large one
// that does not fit, but only so often: then the room waits for the large one. Pure; ids are the
// caller's.
#pragma once

#include <cstdint>
#include <vector>

#include "src/placement/model.h"
#include "src/placement/refusal/quotas.h"

namespace divvy::placement {

class WaitingRoom {
 public:
  explicit WaitingRoom(uint32_t max_passes = 64) : max_passes_(max_passes) {}

  void Add(uint64_t id, const Request& request, Quotas* quotas);
  // Gone, placed or given up.
  void Remove(uint64_t id, Quotas* quotas);
  size_t size() const { return waiting_.size(); }

  // Whom to try, in order. The caller tries each, calls Remove for those that it placed and Passed
  // for those that did not fit while a later one did.
  std::vector<uint64_t> Order(const Quotas& quotas, int64_t capacity) const;
  void Passed(uint64_t id);
  const Request& request(uint64_t id) const;

 private:
  struct Waiter {
    uint64_t id;
    Request request;
    uint32_t passes = 0;
  };
  std::vector<Waiter> waiting_;  // in order of arrival
  uint32_t max_passes_;
};

}  // namespace divvy::placement
