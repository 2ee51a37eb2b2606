// Timeline: the simulated devices' time. Owns the clients' channels and one thread that reads their
// submissions, computes when each op starts and ends (engine.h), and publishes that ahead of time.
#pragma once

#include <memory>

#include "src/base/unique_fd.h"
#include "src/sim/wire/channel.h"
#include "src/sim/wire/machine_page.h"

namespace divvy::sim {

class Timeline {
 public:
  explicit Timeline(MachinePage* page);
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  // The descriptor of a fresh channel for the client in `row`; -1 when it cannot be made. Stays
  // owned by the timeline. Server thread.
  int AddClient(uint32_t row);
  // The client's pending work disappears from the device. Server thread.
  void RemoveClient(uint32_t row);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace divvy::sim
