#include "src/daemon/compute_core.h"

#include <algorithm>
#include <atomic>

namespace divvy::daemon {
namespace {

using arbiter::Nanos;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr Nanos kIdleAfter = milliseconds(20);  // nobody active for so long: asleep
constexpr Nanos kLazyLook = milliseconds(5);    // while one tenant has the device alone
constexpr Nanos kLongestLazyLook = milliseconds(20);
// After the bells are set: a submission that did not see them is found by one of these looks.
constexpr Nanos kAsleepLooks[] = {milliseconds(1), milliseconds(10), milliseconds(250),
                                  milliseconds(1000)};
constexpr Nanos kTail = milliseconds(5);
constexpr Nanos kLongOperation = milliseconds(250);  // its bill is told while it runs
constexpr Nanos kPatience = milliseconds(2);
// Between two entries into the ledgers: a fraction of the shortest window.
constexpr Nanos kEntry = microseconds(500);
constexpr Nanos kTogether = microseconds(10);  // devices due this soon are looked at now

Nanos Times(Nanos t, double factor) {
  return Nanos(static_cast<int64_t>(static_cast<double>(t.count()) * factor));
}

arbiter::ComputeShare ShareOf(const ComputeTerms& terms, double weight) {
  return {.weight = weight, .cap = terms.cap.fraction(), .cls = terms.cls};
}

std::vector<arbiter::Tunables> TunablesFor(const std::vector<DeviceTiming>& devices,
                                           double dilation) {
  std::vector<arbiter::Tunables> out;
  for (const DeviceTiming& d : devices)
    out.push_back(arbiter::Tunables::For(microseconds(d.slice_us), microseconds(d.switch_us))
                      .Dilated(dilation));
  return out;
}

bool Capped(const ComputeTerms& terms) { return terms.cap.milli < 100'000; }

}  // namespace

// When tenants were last at work on a device, as one look at all of them sees it.
class ComputeCore::Company {
 public:
  // What ended between two looks ended some time after the first.
  explicit Company(Nanos looked) : looked_(looked) {}
  void Add(const Seat& seat, bool at_work, bool ended, Nanos now) {
    if (!at_work && !ended) return;
    const Nanos at = at_work ? now : looked_;
    if (who_ != nullptr) second_ = std::max(second_, std::min(at, newest_));
    if (who_ == nullptr || at > newest_) {
      who_ = &seat;
      newest_ = at;
    }
  }
  void Tell(const std::vector<Seat*>& seats) const {
    for (Seat* seat : seats)
      if (const Nanos at = seat == who_ ? second_ : newest_; at > kLongAgo) seat->gate->Company(at);
  }

 private:
  const Nanos looked_;
  const Seat* who_ = nullptr;  // the newest
  Nanos newest_ = kLongAgo, second_ = kLongAgo;
};

ComputeCore::ComputeCore(unsigned devices, double dilation)
    : ComputeCore(std::vector<DeviceTiming>(devices, {.slice_us = 2000}), dilation) {}

ComputeCore::ComputeCore(const std::vector<DeviceTiming>& devices, double dilation)
    : dilation_(dilation),
      arbiter_(kMostTenants, TunablesFor(devices, dilation)),
      devices_(devices.size()) {
  for (unsigned i = kMostTenants; i > 0; --i)
    free_indices_.push_back(static_cast<arbiter::TenantIndex>(i - 1));
}

ComputeCore::Seat* ComputeCore::Find(uint64_t tenant, unsigned share) {
  const auto it = members_.find(tenant);
  return it == members_.end() || share >= it->second.seats.size() ? nullptr
                                                                  : it->second.seats[share].get();
}

Status ComputeCore::Join(uint64_t tenant, std::shared_ptr<Segments> segments,
                         const std::vector<unsigned>& devices, const ComputeTerms& terms,
                         Nanos now) {
  if (free_indices_.empty())
    return NoRoom("there are " + std::to_string(kMostTenants) + " tenants, the most there can be");
  Member& member = members_[tenant];
  member.index = free_indices_.back();
  free_indices_.pop_back();
  member.segments = std::move(segments);
  for (unsigned s = 0; s < devices.size(); ++s) {
    auto seat = std::make_unique<Seat>();
    seat->tenant = tenant;
    seat->index = member.index;
    seat->share = s;
    seat->device = devices[s];
    seat->terms = terms;
    seat->ledger.at = now;
    seat->meter =
        std::make_unique<MeterReader>(member.segments->usage(), s, Times(kTail, dilation_));
    seat->gate = std::make_unique<GateWriter>(
        member.segments->policy().device[s].gate,
        static_cast<uint32_t>(Times(kPatience, dilation_) / microseconds(1)),
        TunablesOf(devices[s]).switch_cost);
    seat->used = std::make_unique<GpuTime>(now, Times(kLongOperation, dilation_));
    Device& device = devices_[devices[s]];
    EnterInLedgers(devices[s], now);
    // Whoever had it for itself was not metered; its processes have to notice that they are now.
    for (Seat* other : device.seats) {
      if (device.watch != Watch::kFree) break;
      other->rearm = true;
      other->meter->BeginRearm();
    }
    device.seats.push_back(seat.get());
    static_cast<void>(arbiter_.Join(member.index, static_cast<arbiter::DeviceIndex>(devices[s]),
                                    ShareOf(terms, 1), now));
    member.seats.push_back(std::move(seat));
    Reweigh(devices[s]);
  }
  return {};
}

void ComputeCore::Leave(uint64_t tenant) {
  const auto it = members_.find(tenant);
  if (it == members_.end()) return;
  for (const auto& seat : it->second.seats) {
    arbiter_.Leave(seat->index, static_cast<arbiter::DeviceIndex>(seat->device));
    std::erase(devices_[seat->device].seats, seat.get());
    if (devices_[seat->device].sole == seat.get()) devices_[seat->device].sole = nullptr;
    for (Seat* other : devices_[seat->device].seats) other->ledger.Forget(tenant);
    Reweigh(seat->device);
  }
  free_indices_.push_back(it->second.index);
  members_.erase(it);
}

void ComputeCore::SetTerms(uint64_t tenant, const ComputeTerms& terms) {
  const auto it = members_.find(tenant);
  if (it == members_.end()) return;
  for (const auto& seat : it->second.seats) {
    seat->terms = terms;
    Reweigh(seat->device);
  }
}

// The weights of all depend on those of each: what is not promised is parted anew.
void ComputeCore::Reweigh(unsigned device) {
  std::vector<ComputeTerms> terms;
  for (const Seat* seat : devices_[device].seats) terms.push_back(seat->terms);
  const std::vector<double> weights = Weights(terms);
  // Class batch gets nothing while one of another class wants the device.
  double sum = 0, batch = 0;
  for (size_t i = 0; i < weights.size(); ++i)
    (terms[i].cls == arbiter::TenantClass::kBatch ? batch : sum) += weights[i];
  for (size_t i = 0; i < weights.size(); ++i) {
    Seat& seat = *devices_[device].seats[i];
    const bool is_batch = terms[i].cls == arbiter::TenantClass::kBatch;
    seat.part = !is_batch ? 100 * weights[i] / sum : sum == 0 ? 100 * weights[i] / batch : 0;
    static_cast<void>(arbiter_.SetShare(seat.index, static_cast<arbiter::DeviceIndex>(device),
                                        ShareOf(seat.terms, weights[i])));
  }
  Changed(device);
}

void ComputeCore::AddProcess(uint64_t tenant, uint32_t slot) {
  const auto it = members_.find(tenant);
  if (it == members_.end()) return;
  for (const auto& seat : it->second.seats) {
    seat->meter->Add(slot);
    arbiter_.Rebase(seat->index, static_cast<arbiter::DeviceIndex>(seat->device));
    Changed(seat->device);
  }
}

void ComputeCore::RemoveProcess(uint64_t tenant, uint32_t slot) {
  const auto it = members_.find(tenant);
  if (it == members_.end()) return;
  for (const auto& seat : it->second.seats) {
    seat->meter->Remove(slot);
    arbiter_.Rebase(seat->index, static_cast<arbiter::DeviceIndex>(seat->device));
    Changed(seat->device);
  }
}

void ComputeCore::Pause(uint64_t tenant, unsigned share, PausedBy by, bool paused) {
  Seat* seat = Find(tenant, share);
  if (seat == nullptr) return;
  const auto bit = static_cast<uint8_t>(by);
  seat->paused_by = static_cast<uint8_t>(paused ? seat->paused_by | bit : seat->paused_by & ~bit);
  arbiter_.Pause(seat->index, static_cast<arbiter::DeviceIndex>(seat->device),
                 seat->paused_by != 0);
  Changed(seat->device);
}

void ComputeCore::Record(uint64_t tenant, bool recording) {
  const auto it = members_.find(tenant);
  if (it == members_.end()) return;
  for (const auto& seat : it->second.seats) {
    if (seat->recording == recording) continue;
    seat->recording = recording;
    if (devices_[seat->device].watch == Watch::kFree) {
      seat->rearm = true;
      seat->meter->BeginRearm();
    }
    Changed(seat->device);
  }
}

void ComputeCore::Debit(uint64_t tenant, unsigned share, Nanos gpu_time, Nanos unseen, Nanos from,
                        Nanos now) {
  Seat* seat = Find(tenant, share);
  if (seat == nullptr) return;
  arbiter_.Debit(seat->index, static_cast<arbiter::DeviceIndex>(seat->device), gpu_time);
  // It is no use of this moment.
  seat->shown.billed_then += gpu_time.count();
  seat->used_then += gpu_time.count();
  Show(seat->shown, unseen.count(), from, now);
  Changed(seat->device);
}

void ComputeCore::Seen(uint64_t tenant, unsigned share, Nanos gpu_time, Nanos from, Nanos now) {
  Seat* seat = Find(tenant, share);
  if (seat == nullptr) return;
  Device& device = devices_[seat->device];
  CountShown(seat->device, now);
  Shown& shown = seat->shown;
  const int64_t unwatched = (device.unwatched - shown.unwatched_seen).count();
  const int64_t rest = gpu_time.count() - (shown.billed - shown.billed_seen);
  if (shown.told) Show(shown, std::clamp<int64_t>(rest, 0, unwatched), from, now);
  shown.billed_seen = shown.billed;
  shown.unwatched_seen = device.unwatched;
  shown.seen_at = now;
  shown.told = true;
  device.fresh = true;
}

void ComputeCore::Show(Shown& shown, int64_t gpu_ns, Nanos from, Nanos to) {
  if (gpu_ns <= 0) return;
  shown.from = shown.late == 0 ? from : std::min(shown.from, from);
  shown.to = to;
  shown.other += gpu_ns;
  shown.late += gpu_ns;
}

// The time up to now belongs to how the device was watched until now.
void ComputeCore::CountShown(unsigned d, Nanos now) {
  Device& device = devices_[d];
  const bool awake = device.watch == Watch::kAwake;
  for (Seat* seat : device.seats) {
    const int64_t billed =
        arbiter_.StatsOf(seat->index, static_cast<arbiter::DeviceIndex>(d)).used.count();
    const int64_t grown = billed - seat->shown.billed_then;
    seat->shown.billed_then = billed;
    const uint64_t counted = seat->meter->Totals().ran_ns;
    if (awake) {
      seat->shown.billed += grown;
      seat->shown.counted += counted - seat->shown.counted_then;
    } else if (!seat->shown.told) {
      seat->shown.other += grown;
    }
    seat->shown.counted_then = counted;
  }
  if (!awake) {
    device.unwatched += now - device.shown;
    if (device.sole != nullptr) device.sole->shown.lone += now - device.shown;
  }
  device.shown = now;
}

bool ComputeCore::Free(const Device& device) const {
  return device.seats.size() == 1 && !Capped(device.seats[0]->terms) && !device.seats[0]->recording;
}

unsigned ComputeCore::Awake() const {
  return static_cast<unsigned>(std::count_if(
      devices_.begin(), devices_.end(), [](const Device& d) { return d.watch == Watch::kAwake; }));
}

Nanos ComputeCore::Poll(Nanos now, bool rung) {
  Nanos next = Nanos::max();
  for (unsigned d = 0; d < devices_.size(); ++d) {
    Device& device = devices_[d];
    const bool heard = rung && (device.watch == Watch::kAsleep || device.watch == Watch::kLazy);
    if (device.changed || heard || device.due <= now + kTogether) LookAt(d, now);
    next = std::min(next, device.due);
  }
  return next;
}

void ComputeCore::LookAt(unsigned d, Nanos now) {
  Device& device = devices_[d];
  const bool again = device.watch == Watch::kAsleep && !device.changed;
  device.fresh = device.fresh || !again;
  if (device.seats.empty() || Free(device)) {
    // Nothing is read from here on: what it ran is not to be billed until somebody comes.
    for (Seat* seat : device.seats) {
      arbiter_.Rebase(seat->index, static_cast<arbiter::DeviceIndex>(d));
      arbiter_.Observe(seat->index, static_cast<arbiter::DeviceIndex>(d), {});
      arbiter_.Rebase(seat->index, static_cast<arbiter::DeviceIndex>(d));
    }
    arbiter_.Tick(static_cast<arbiter::DeviceIndex>(d), now);
    CountShown(d, now);
    device.sole = device.seats.empty() ? nullptr : device.seats[0];
    device.changed = false;
    device.watch = Watch::kFree;
    device.due = Nanos::max();
    SetGates(device, now);
    for (Seat* seat : device.seats)
      seat->seen = {.processes = !seat->meter->empty(), .alone = true};
    EnterInLedgers(d, now);
    return;
  }
  const auto index = static_cast<arbiter::DeviceIndex>(d);
  const Nanos idle_after = Times(kIdleAfter, dilation_);
  unsigned active = 0;
  bool processes = false;
  Company company(device.looked);
  Seat* sole = nullptr;
  bool caps = false;
  for (Seat* seat : device.seats) {
    processes = processes || !seat->meter->empty();
    const arbiter::Progress progress = seat->meter->Read(now);
    arbiter_.Observe(seat->index, index, progress);
    seat->outstanding = progress.issued != progress.done;
    company.Add(*seat, seat->outstanding && progress.begun && !progress.paused,
                progress.done != seat->done, now);
    seat->done = progress.done;
    seat->seen = {.processes = !seat->meter->empty(),
                  .waiting = progress.waiters != 0,
                  .outstanding = seat->outstanding,
                  .copying = seat->outstanding ? progress.paused : progress.copying};
    if (seat->outstanding || progress.copying || seat->meter->moved() || progress.garbage)
      seat->active_at = now;
    if (seat->rearm && seat->meter->Rearmed()) seat->rearm = false;
    if (now - seat->active_at >= idle_after) continue;
    ++active;
    sole = seat;
    caps = caps || Capped(seat->terms);
  }
  if (active > 1) company.Tell(device.seats);
  device.looked = now;
  const Nanos wait = arbiter_.Tick(index, now);
  if (device.watch != Watch::kAwake || active <= 1) CountShown(d, now);
  device.sole = nullptr;
  if (active == 0) {
    device.watch = Watch::kAsleep;
    device.looks = again ? device.looks + 1 : 0;
    device.due = now + kAsleepLooks[std::min<size_t>(device.looks, std::size(kAsleepLooks) - 1)];
    if (!processes) device.due = Nanos::max();
  } else if (active == 1 && !caps &&
             arbiter_.GateOf(sole->index, index).mode == arbiter::GateMode::kLone) {
    device.watch = Watch::kLazy;
    device.sole = sole;
    device.fresh = true;
    device.due = now + std::min(Times(kLazyLook, dilation_), std::max(kLongestLazyLook, wait));
  } else {
    device.watch = Watch::kAwake;
    device.fresh = true;
    device.due = now + Times(wait, stretch_);
  }
  device.changed = false;
  SetGates(device, now);
  // Each waits for each: a crowd's entries cost its square.
  const Nanos entry =
      kEntry * std::clamp<int64_t>(static_cast<int64_t>(device.seats.size()) / 8, 1, 32);
  if (now - device.entered >= entry || device.watch != Watch::kAwake) EnterInLedgers(d, now);
}

// What keeps its gate shut since it was last set.
HeldBy ComputeCore::HeldOf(const Seat& seat) const {
  if ((seat.paused_by & static_cast<uint8_t>(PausedBy::kOperator)) != 0) return HeldBy::kOperator;
  if (seat.paused_by != 0) return HeldBy::kAudit;
  if ((seat.gate->setting().bits & region::kGateShut) == 0) return HeldBy::kNobody;
  const auto index = static_cast<arbiter::DeviceIndex>(seat.device);
  return arbiter_.StatsOf(seat.index, index).throttled ? HeldBy::kCap : HeldBy::kTurn;
}

// The time since the last entry: what was billed is known, what else it was stood at that entry.
void ComputeCore::EnterInLedgers(unsigned d, Nanos now) {
  Device& device = devices_[d];
  device.entered = now;
  device.entries = true;
  int64_t all = 0;
  ran_.clear();
  for (Seat* seat : device.seats) {
    const auto used =
        arbiter_.StatsOf(seat->index, static_cast<arbiter::DeviceIndex>(d)).used.count();
    seat->ran = std::clamp<int64_t>(used - seat->used_then, 0, (now - seat->ledger.at).count());
    seat->used_then = used;
    all += seat->ran;
    if (seat->ran > 0) ran_.push_back(seat);
  }
  for (Seat* seat : device.seats) {
    Ledger& ledger = seat->ledger;
    const int64_t rest = (now - ledger.at).count() - seat->ran;
    const int64_t others = all - seat->ran;
    const Part part = RestOf(seat->sight, others > 0);
    ledger[Part::kGpu] += seat->ran;
    ledger[part] += rest;
    if (part == Part::kTurn && rest > 0) {
      int64_t named = 0;
      for (const Seat* other : ran_) {
        if (other == seat) continue;
        const auto its =
            static_cast<int64_t>(static_cast<double>(rest) * static_cast<double>(other->ran) /
                                 static_cast<double>(others));
        ledger.AddWait(other->tenant, its);
        named += its;
      }
      ledger.AddWait(Ledger::kNobody, rest - named);
    }
    const uint64_t copy_ns = seat->meter->Totals().copy_ns;
    ledger.copying_ns += static_cast<int64_t>(copy_ns - seat->copy_ns_then);
    seat->copy_ns_then = copy_ns;
    ledger.at = now;
    seat->sight = seat->seen;
    seat->sight.held = HeldOf(*seat);
    ledger.rest = RestOf(seat->sight, false);
  }
}

void ComputeCore::PublishLedgers(std::map<uint64_t, std::vector<LedgerRing>>& rings) {
  for (Device& device : devices_) {
    if (!device.entries) continue;
    device.entries = false;
    for (const Seat* seat : device.seats) {
      std::vector<LedgerRing>& its = rings[seat->tenant];
      its.resize(members_[seat->tenant].seats.size());
      its[seat->share].Push(seat->ledger);
    }
  }
}

void ComputeCore::SetGates(Device& device, Nanos now) {
  const Nanos idle_after = Times(kIdleAfter, dilation_);
  const bool bells = device.watch == Watch::kAsleep || device.watch == Watch::kLazy;
  for (Seat* seat : device.seats) {
    const auto index = static_cast<arbiter::DeviceIndex>(seat->device);
    const bool is_active = now - seat->active_at < idle_after;
    GateInputs in{.mode = arbiter_.GateOf(seat->index, index).mode,
                  .paused = seat->paused_by != 0,
                  .recording = seat->recording,
                  .capped = Capped(seat->terms),
                  .free = device.watch == Watch::kFree,
                  .active = is_active && !seat->rearm,
                  .bell = bells && !is_active};
    const GateSetting setting = SettingFor(in, arbiter_.tunables(index));
    if (setting == seat->gate->setting()) continue;
    seat->gate->Write(setting, arbiter_.StatsOf(seat->index, index).windows);
  }
}

void ComputeCore::Publish(Nanos now, std::map<uint64_t, TenantView>& views) {
  for (unsigned d = 0; d < devices_.size(); ++d) {
    if (!devices_[d].fresh) continue;
    devices_[d].fresh = false;
    CountShown(d, now);
    for (Seat* seat : devices_[d].seats) {
      TenantView& view = views[seat->tenant];
      if (view.size() <= seat->share) view.resize(seat->share + 1);
      ShareView& v = view[seat->share];
      v.part_percent = seat->part;
      v.metered = devices_[d].watch != Watch::kFree;
      v.known = v.metered || seat->shown.told;
      v.rearming = seat->rearm;
      v.paused = (seat->paused_by & static_cast<uint8_t>(PausedBy::kOperator)) != 0;
      v.stats = arbiter_.StatsOf(seat->index, static_cast<arbiter::DeviceIndex>(d));
      v.shut = (seat->gate->setting().bits & region::kGateShut) != 0;
      v.totals = seat->meter->Totals();
      v.senseless_at = seat->meter->senseless_at();
      Shown& shown = seat->shown;
      seat->used->Add(now, shown.counted, shown.billed);
      v.used = Nanos(seat->used->ns() + shown.other);
      v.billed = Nanos(shown.billed);
      v.lone = shown.lone;
      v.seen_at = devices_[d].watch != Watch::kAwake && shown.told ? shown.seen_at : kLongAgo;
      if (shown.late > 0) {
        v.used_ns.Spread(shown.from, shown.to, static_cast<double>(shown.late));
        shown.late = 0;
      }
      v.used_ns.Add(now, static_cast<double>(v.used.count()));
      v.gate_wait_ns.Add(now, static_cast<double>(v.totals.gate_wait_ns));
      v.wanted_ns.Add(now,
                      static_cast<double>(seat->ledger[Part::kGpu] + seat->ledger[Part::kTurn] +
                                          seat->ledger[Part::kCap]));
    }
  }
}

}  // namespace divvy::daemon
