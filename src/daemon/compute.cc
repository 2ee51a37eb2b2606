#include "src/daemon/compute.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "src/base/clock.h"
#include "src/base/sim_spec.h"

namespace divvy::daemon {
namespace {

using arbiter::Nanos;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Nanos kRingsServed = microseconds(200);  // at most so often: a tenant may ring for ever
constexpr Nanos kShortSleep = microseconds(400);   // below: the bell is not listened to
constexpr Nanos kPublish = milliseconds(100);
// The longest sleep on the bell, which is tenants' memory: they can put it back after a ring, and a
// futex's waiters can be moved to another one, out of the daemon's own reach.
constexpr Nanos kLongestSleep = milliseconds(250);
constexpr Nanos kNobodysSleep = seconds(1);  // the same without tenants
constexpr Nanos kHung = seconds(2);
// Polling may cost this part of a core for each device that is contended; beyond, it polls less
// often. Not eight times: in the model four launch-bound tenants are 18 % short then, over their
// budget, instead of 14 (docs/arbiter.md).
constexpr double kCorePerDevice = 0.045;
constexpr double kMostStretch = 4;
constexpr Nanos kBudgetEvery = milliseconds(20);
constexpr Nanos kLedgerEvery = milliseconds(1000);
constexpr int kNice = -10;  // late polls are unfair windows; where it may

Nanos Now(clockid_t clock = CLOCK_MONOTONIC) {
  return Nanos(static_cast<int64_t>(MonotonicNs(clock)));
}

void SleepUntil(Nanos when) { divvy::SleepUntil(when.count()); }

}  // namespace

double DilationOf(const std::string& sim_profile) {
  const Result<SimSpec> spec = ParseSimSpec(sim_profile);
  return spec.ok() ? spec->dilation : 1;
}

Compute::Compute(const std::vector<DeviceTiming>& devices, const std::string& sim_profile)
    : core_(devices, DilationOf(sim_profile)) {}

Status Compute::Start() {
  Result<std::unique_ptr<BellPage>> bell = BellPage::Create();
  if (!bell.ok()) return bell.error();
  bell_ = std::move(*bell);
  looked_ns_ = Now().count();
  thread_ = std::thread([this] { Run(); });
  return {};
}

Compute::~Compute() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(changes_mutex_);
    stopping_ = true;
  }
  bell_->Ring();
  thread_.join();
}

void Compute::Tell(Change change) {
  {
    const std::lock_guard lock(changes_mutex_);
    changes_.push_back(std::move(change));
  }
  bell_->Ring();
}

void Compute::Join(uint64_t tenant, std::shared_ptr<Segments> segments,
                   std::vector<unsigned> devices, const ComputeTerms& terms) {
  Tell([=, segments = std::move(segments), devices = std::move(devices)](ComputeCore& core) {
    static_cast<void>(core.Join(tenant, segments, devices, terms, Now()));
  });
}
void Compute::Leave(uint64_t tenant) {
  Tell([this, tenant](ComputeCore& core) {
    core.Leave(tenant);
    const std::lock_guard lock(views_mutex_);
    views_.erase(tenant);
    ledgers_.erase(tenant);
    for (auto& [other, rings] : ledgers_)
      for (LedgerRing& ring : rings) ring.Forget(tenant);
  });
}
void Compute::SetTerms(uint64_t tenant, const ComputeTerms& terms) {
  Tell([=](ComputeCore& core) { core.SetTerms(tenant, terms); });
}
void Compute::AddProcess(uint64_t tenant, uint32_t slot) {
  Tell([=](ComputeCore& core) { core.AddProcess(tenant, slot); });
}
void Compute::RemoveProcess(uint64_t tenant, uint32_t slot) {
  Tell([=](ComputeCore& core) { core.RemoveProcess(tenant, slot); });
}
void Compute::Pause(uint64_t tenant, unsigned share, PausedBy by, bool paused) {
  Tell([=](ComputeCore& core) { core.Pause(tenant, share, by, paused); });
}
void Compute::Record(uint64_t tenant, bool recording) {
  Tell([=](ComputeCore& core) { core.Record(tenant, recording); });
}
void Compute::Debit(uint64_t tenant, unsigned share, Nanos gpu_time, Nanos unseen, Nanos from) {
  Tell([=](ComputeCore& core) { core.Debit(tenant, share, gpu_time, unseen, from, Now()); });
}
void Compute::Seen(uint64_t tenant, unsigned share, Nanos gpu_time, Nanos from) {
  Tell([=](ComputeCore& core) { core.Seen(tenant, share, gpu_time, from, Now()); });
}

TenantView Compute::ViewOf(uint64_t tenant) const {
  const std::lock_guard lock(views_mutex_);
  const auto it = views_.find(tenant);
  return it == views_.end() ? TenantView{} : it->second;
}

std::vector<Compute::Use> Compute::UsesOf(uint64_t tenant) const {
  std::vector<Use> out;
  const Nanos now = Now();
  const std::lock_guard lock(views_mutex_);
  if (const auto it = views_.find(tenant); it != views_.end())
    for (const ShareView& view : it->second)
      out.push_back({view.known, view.known ? UsedPercent(view, now, seconds(1)) : 0});
  return out;
}

std::vector<arbiter::SeatStats> Compute::StatsOf(uint64_t tenant) const {
  std::vector<arbiter::SeatStats> out;
  const std::lock_guard lock(views_mutex_);
  if (const auto it = views_.find(tenant); it != views_.end())
    for (const ShareView& share : it->second) out.push_back(share.stats);
  return out;
}

std::optional<UseNow> Compute::UseOf(uint64_t tenant, unsigned share) const {
  const Nanos now = Now();
  const std::lock_guard lock(views_mutex_);
  const auto it = views_.find(tenant);
  if (it == views_.end() || share >= it->second.size() || !it->second[share].known) return {};
  const ShareView& view = it->second[share];
  // The driver's figures come some time after what they tell of.
  const Nanos at = now - view.seen_at < kSeenLately ? view.seen_at : now;
  const auto part = [&](Nanos span) { return view.used_ns.Rate(at, span) / 1e9; };
  return UseNow{part(std::chrono::seconds(1)), part(std::chrono::milliseconds(500))};
}

std::vector<Ledger> Compute::SpentOf(uint64_t tenant, Nanos from, Nanos to) const {
  std::vector<Ledger> out;
  const std::lock_guard lock(views_mutex_);
  if (const auto it = ledgers_.find(tenant); it != ledgers_.end())
    for (const LedgerRing& ring : it->second) out.push_back(Difference(ring.At(from), ring.At(to)));
  return out;
}

bool Compute::Alive() const {
  return !thread_.joinable() || Now() - Nanos(looked_ns_.load(std::memory_order_relaxed)) < kHung;
}

bool Compute::TakeChanges() {
  std::vector<Change> changes;
  {
    const std::lock_guard lock(changes_mutex_);
    if (stopping_) return false;
    changes.swap(changes_);
  }
  for (const Change& change : changes) change(core_);
  return true;
}

void Compute::Publish(Nanos now) {
  // A reader holds it for microseconds; if one does now, the next poll tells.
  const std::unique_lock lock(views_mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  core_.Publish(now, views_);
  if (now - ledgers_at_ < kLedgerEvery) return;
  ledgers_at_ = now;
  core_.PublishLedgers(ledgers_);
}

void Compute::KeepToBudget(Nanos now) {
  if (now - budget_.at < kBudgetEvery) return;
  const Nanos cpu = Now(CLOCK_THREAD_CPUTIME_ID);
  const double used = static_cast<double>((cpu - budget_.cpu).count()) /
                      static_cast<double>((now - budget_.at).count());
  const double allowed = kCorePerDevice * std::max(1u, core_.Awake());
  // Half of the way at a time: one noisy stretch changes little.
  const double wanted = budget_.stretch * used / allowed;
  budget_.stretch = std::clamp((budget_.stretch + wanted) / 2, 1.0, kMostStretch);
  budget_.at = now;
  budget_.cpu = cpu;
  core_.Stretch(budget_.stretch);
}

void Compute::Run() {
  ::pthread_setname_np(::pthread_self(), "divvy-arbiter");
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), kNice);
  uint32_t heard = bell_->rung();
  Nanos served = Now(), published{0};
  for (;;) {
    const uint32_t rung = bell_->rung();  // before the changes: whoever makes one rings after it
    if (!TakeChanges()) return;
    Nanos now = Now();
    looked_ns_.store(now.count(), std::memory_order_relaxed);
    const bool ring = rung != heard;
    if (ring) served = now;
    heard = rung;
    KeepToBudget(now);
    const Nanos due = core_.Poll(now, ring);
    now = Now();
    const bool still = due - now > kPublish;  // about to fall asleep: the last word
    if (now - published >= kPublish || still) {
      Publish(now);
      published = now;
    }
    if (due <= now) continue;
    if (due - now <= kShortSleep) {
      SleepUntil(due);
      continue;
    }
    bell_->Wait(heard, std::min(due, now + (core_.empty() ? kNobodysSleep : kLongestSleep)));
    if (bell_->rung() != heard && Now() < served + kRingsServed) SleepUntil(served + kRingsServed);
  }
}

}  // namespace divvy::daemon
