// The arbiter's thread: runs ComputeCore by the clock and the bell.
//
// Side: the daemon. The node tells it what changes (tenants, processes, shares, pauses) from any
// thread, under whatever locks: a change is put on a list and the bell is rung, nothing waits. The
// thread holds no lock while it reads meters and writes gates. What people see is copied out ten
// times a second.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/daemon/bell.h"
#include "src/daemon/compute_core.h"
#include "src/daemon/use.h"

namespace divvy::daemon {

// How much slower than real a simulated machine's time runs: 20 for "h100@x20", 1 for "h100", "".
double DilationOf(const std::string& sim_profile);

class Compute {
 public:
  Compute(const std::vector<DeviceTiming>& devices, const std::string& sim_profile);
  ~Compute();  // stops the thread; gates stay as they are
  Status Start();

  int bell_fd() const { return bell_->fd(); }
  // As ComputeCore's, at once in order. At most ComputeCore::kMostTenants may be there together.
  void Join(uint64_t tenant, std::shared_ptr<Segments> segments, std::vector<unsigned> devices,
            const ComputeTerms& terms);
  void Leave(uint64_t tenant);
  void SetTerms(uint64_t tenant, const ComputeTerms& terms);
  void AddProcess(uint64_t tenant, uint32_t slot);
  void RemoveProcess(uint64_t tenant, uint32_t slot);
  void Pause(uint64_t tenant, unsigned share, PausedBy by, bool paused);
  void Record(uint64_t tenant, bool recording);
  void Debit(uint64_t tenant, unsigned share, arbiter::Nanos gpu_time, arbiter::Nanos unseen,
             arbiter::Nanos from);
  void Seen(uint64_t tenant, unsigned share, arbiter::Nanos gpu_time, arbiter::Nanos from);

  // The newest figures; empty for a tenant that has just come.
  TenantView ViewOf(uint64_t tenant) const;
  // Of them only how much of their devices its shares used over the last second.
  struct Use {
    bool known = false;  // as ShareView's
    double percent = 0;
  };
  std::vector<Use> UsesOf(uint64_t tenant) const;
  std::vector<arbiter::SeatStats> StatsOf(uint64_t tenant) const;  // by share
  // Of one share; nothing where it is not measured.
  std::optional<UseNow> UseOf(uint64_t tenant, unsigned share) const;
  // Where its time went in a stretch of the last minute, or since it came: by share; empty for one
  // just come.
  std::vector<Ledger> SpentOf(uint64_t tenant, arbiter::Nanos from, arbiter::Nanos to) const;
  // The thread has looked within the last two seconds. When it has not, the tenants' heartbeats
  // stop, and their gates open (or stay shut) as for a dead daemon.
  bool Alive() const;

 private:
  using Change = std::function<void(ComputeCore&)>;
  void Tell(Change change);
  void Run();
  bool TakeChanges();  // false: stop
  void Publish(arbiter::Nanos now);

  void KeepToBudget(arbiter::Nanos now);

  // How often its own cost is looked at, and what it was then.
  struct Budget {
    arbiter::Nanos at{0}, cpu{0};
    double stretch = 1;
  } budget_;
  std::atomic<int64_t> looked_ns_{0};
  arbiter::Nanos ledgers_at_{0};  // the thread's
  std::unique_ptr<BellPage> bell_;
  ComputeCore core_;  // the thread's alone
  std::mutex changes_mutex_;
  std::vector<Change> changes_;
  bool stopping_ = false;
  mutable std::mutex views_mutex_;
  std::map<uint64_t, TenantView> views_;
  std::map<uint64_t, std::vector<LedgerRing>> ledgers_;
  std::thread thread_;
};

}  // namespace divvy::daemon
