// The daemon put together: folder and locks, devices, node, API, the loop and the sampler.
//
// Threads: the caller's runs the loop; one samples NVML (a driver that hangs must not stop the
// heartbeat); a few serve the API.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/daemon/api.h"
#include "src/daemon/event_log.h"
#include "src/daemon/events.h"
#include "src/daemon/history.h"
#include "src/daemon/log_queue.h"
#include "src/daemon/loop.h"
#include "src/daemon/node.h"
#include "src/daemon/options.h"
#include "src/daemon/service_manager.h"
#include "src/device/source.h"

namespace divvy::daemon {

class Daemon {
 public:
  // Everything that can fail at a start does so here, with a line that says what to do. Blocks
  // SIGTERM, SIGINT and SIGHUP in the calling thread.
  static Result<std::unique_ptr<Daemon>> Start(const Options& options);
  ~Daemon();
  void Run();  // until a signal, /v1/shutdown, or the end of a private daemon's last tenant

 private:
  explicit Daemon(const Options& options) : options_(options) {}
  Status TakeMachine();
  void OpenLog();
  Status OpenDevices();
  Status OpenNvml(const std::string& library);
  Status TakeDevices();
  Status WatchSignals();
  void OnChange(bool has_tenants);
  void SetTimer(bool ticks);
  void OnTick();
  void SampleForever();
  void WatchFaults();  // on a thread of its own until ~Daemon

  const Options options_;
  ServiceManager manager_;
  UniqueFd machine_lock_;
  std::vector<UniqueFd> device_locks_;
  UniqueFd signals_;
  uint64_t signals_watch_ = 0;
  std::shared_ptr<device::Source> source_;
  std::unique_ptr<Loop> loop_;
  std::shared_ptr<LogQueue> log_lines_;  // null: no log
  std::unique_ptr<EventLog> log_;
  Events events_;
  UseHistory history_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<Api> api_;
  uint64_t empty_since_ns_ = 0;  // private daemons; 0 while there are tenants
  std::atomic<bool> had_tenants_ = false;

  std::mutex sampler_mutex_;
  std::condition_variable sampler_wake_;
  bool sampler_kicked_ = false, stopping_ = false;
  std::thread sampler_;
  // Waiting for a fault cannot be interrupted: the thread is left behind with what it waits on.
  struct FaultWatch {
    std::mutex mutex;
    Node* node = nullptr;  // nobody to tell any more
  };
  const std::shared_ptr<FaultWatch> fault_watch_ = std::make_shared<FaultWatch>();
};

}  // namespace divvy::daemon
