// Process: what this client process is to the simulated machine: its connection, row, channel and
// devices. One immortal object (cudart's atexit handlers call the driver after static destructors).
// Made by cuInit; a forked child keeps the pages but may not use them, as with the real driver.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "src/abi/cuda.h"
#include "src/sim/wire/channel.h"
#include "src/sim/wire/machine_page.h"
#include "src/sim/wire/protocol.h"

namespace divvy::sim {

class Device;

class Process {
 public:
  static Process& Get();

  // cuInit's work: finds or starts the broker and says hello. Repeated calls give the first answer.
  CUresult Init();
  // CUDA_SUCCESS, or why no driver call works here: not initialised, or a child after fork.
  CUresult Ready() const;
  bool forked() const { return *fork_mark_ == 0; }

  MachinePage* page() const { return page_; }
  Channel* channel() const { return channel_; }
  uint32_t row() const { return row_; }
  const Profile& profile() const { return *profile_; }
  uint64_t dilate(uint64_t ns) const { return ns * page_->dilation; }

  // Visible devices, in CUDA's order.
  const std::vector<Device*>& devices() const { return devices_; }
  Device* device(CUdevice ordinal) const {
    return ordinal >= 0 && size_t(ordinal) < devices_.size() ? devices_[ordinal] : nullptr;
  }
  // By number on the machine, visible or not; null when this process has never named it.
  Device* physical(uint32_t index) const;

  // One question to the broker and its answer.
  Status AskBroker(const Request& request, Reply* reply, WireFds* fds = nullptr);

 private:
  Process();
  CUresult Connect();
  void MakeDevices();

  std::mutex init_mu_, sock_mu_;
  std::atomic<int> state_{-1};  // -1: not yet; else the CUresult of Init
  UniqueFd sock_;
  MachinePage* page_ = nullptr;
  Channel* channel_ = nullptr;
  const Profile* profile_ = nullptr;
  uint32_t row_ = 0;
  std::vector<Device*> devices_;
  unsigned char* fork_mark_;  // in a page that the kernel zeroes in a forked child
};

}  // namespace divvy::sim
