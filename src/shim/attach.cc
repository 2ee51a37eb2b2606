// Attach, fork and generations; see attach.h.
#include "src/shim/attach.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/region/books.h"
#include "src/shim/cancel.h"
#include "src/shim/elf_lookup.h"
#include "src/shim/gate.h"
#include "src/shim/hello.h"
#include "src/shim/pages.h"
#include "src/shim/shared.h"
#include "src/shim/tenancy.h"

namespace divvy::shim {

constinit Process g_process{};

namespace {

constexpr uint64_t kDeadAfterNs = 1000000000;  // a heart that has not beaten for this long
constexpr unsigned kFirstHelloMs = 5000;       // many processes may be starting together
constexpr unsigned kAgainHelloMs = 100;        // in the middle of an allocation
constexpr unsigned kRestartMs = 3000;          // for a daemon that died to be followed by another
constexpr uint64_t kMs = 1000000;
constexpr uint64_t kBackOffNs = 250000000;
constexpr uint64_t kBackOffMaxNs = 8000000000;
constexpr uint64_t kFirstLookNs = 1000000;  // for an answer that was not there at once
constexpr uint64_t kForgetHelloNs = 5000000000;

// These are not wiped: a child has to know that its parent was attached.
std::atomic<uint64_t> last_generation_of_family{0};
std::atomic<uint32_t> cannot_wipe{0};

void PrepareForFork() noexcept {
  if (madvise(&g_process, sizeof(g_process), MADV_WIPEONFORK) == 0) return;
  // Linux before 4.14: children are told apart by their pid, looked at in every hook.
  g_process.pid = static_cast<uint32_t>(getpid());
  cannot_wipe.store(1, std::memory_order_release);
}

bool ForkedWithoutWipe() noexcept {
  return cannot_wipe.load(std::memory_order_relaxed) != 0 && g_process.pid != 0 &&
         g_process.pid != static_cast<uint32_t>(getpid());
}

int LocalIndexOf(const uint8_t (&uuid)[16], bool add) noexcept {
  const uint32_t count = g_process.device_count.load(std::memory_order_relaxed);
  for (uint32_t i = 0; i < count; ++i)
    if (memcmp(g_process.device[i].uuid, uuid, 16) == 0) return static_cast<int>(i);
  if (!add || count >= kLocalDevices) return -1;
  memcpy(g_process.device[count].uuid, uuid, 16);
  g_process.device_count.store(count + 1, std::memory_order_release);
  return static_cast<int>(count);
}

void FillHeld(const Session& session, wire::Hello* hello) noexcept {
  const uint32_t count = session.policy->device_count;
  for (uint32_t d = 0; d < count && d < region::kMaxDevices; ++d) {
    const region::SlotDevice& account = session.Slot().device[d];
    const uint64_t units = account.charged_units.load(std::memory_order_relaxed);
    if (units == 0) continue;
    wire::HeldCharge& held = hello->held[hello->held_count++];
    memcpy(held.uuid, session.policy->device[d].uuid, 16);
    held.units = units;
    for (unsigned k = 0; k < region::kKinds; ++k)
      held.kind_units[k] = account.kind_units[k].load(std::memory_order_relaxed);
  }
}

// What is under way ends in the new slot. A thread that is just about to tell the old one would be
// missed there; in the moment that is left it is not, and then overhead does not fall any more: the
// safe side. Under books: only `answered` can change meanwhile.
void CarryUnderWay(const Session* from, region::ProcessSlot& to) noexcept {
  uint64_t told = 0;
  if (from != nullptr) {
    to.charges.store(
        from->Slot().charges.load(std::memory_order_relaxed) & ~(region::kUnderWayOne - 1),
        std::memory_order_relaxed);
    told = from->Slot().answered.load(std::memory_order_relaxed);
  }
  to.answered.store(told, std::memory_order_relaxed);
  g_process.answered.store(&to.answered);
  if (from != nullptr)
    to.answered.fetch_add(from->Slot().answered.load() - told, std::memory_order_relaxed);
}

// Under attach_lock and books: nobody is changing a book while the session changes.
void Adopt(const Welcomed& welcomed, uint32_t ns_pid) noexcept {
  Session& next = g_process.sessions[g_process.session_count % kSessions];
  if (next.policy != nullptr && !next.pinned) Unmap(next.policy, next.usage, next.bell);
  next.policy = welcomed.policy;
  next.usage = welcomed.usage;
  next.bell = welcomed.bell;
  next.pinned = false;
  next.generation = welcomed.welcome.generation;
  next.slot = welcomed.welcome.slot;
  next.sequence = 0;
  memset(next.policy_index, -1, sizeof(next.policy_index));
  memset(next.local_index, -1, sizeof(next.local_index));
  for (uint32_t d = 0; d < next.policy->device_count; ++d) {
    const int local = LocalIndexOf(next.policy->device[d].uuid, true);
    if (local < 0) continue;
    next.policy_index[local] = static_cast<int8_t>(d);
    next.local_index[d] = static_cast<int8_t>(local);
  }
  region::ProcessSlot& slot = next.Slot();
  // A slot is handed over clean, but the daemon may have booked our charges in it, and with them
  // operations of its own: continue after the newest.
  next.sequence = static_cast<uint32_t>(slot.done_sequence.load(std::memory_order_relaxed));
  slot.ns_pid.store(ns_pid, std::memory_order_relaxed);
  CarryUnderWay(g_process.session.load(std::memory_order_relaxed), slot);
  slot.state_flags.store(
      region::kShimActive |
          (g_process.degraded.load(std::memory_order_relaxed) != 0 ? region::kShimDegraded : 0u),
      std::memory_order_relaxed);
  const auto tag = static_cast<uint32_t>(next.generation);
  slot.owner_tag.store(tag != 0 ? tag : 1, std::memory_order_release);
  ++g_process.session_count;
  // Release: partner of CurrentSession.
  g_process.session.store(&next, std::memory_order_release);
  last_generation_of_family.store(next.generation, std::memory_order_relaxed);
  OpenGates(next);
}

// True in a copy of the shim that was loaded into a name space of its own (dlmopen): the program is
// not among the objects there.
bool InNamespaceOfItsOwn() noexcept {
  return !FindModule([](const Module& m) { return m.path[0] == 0; });
}

// Charged and credited since the hello that brought `next` was sent: the daemon does not know of
// it. Under books, after Adopt.
void CarryCharges(const Session& from, const wire::Hello& said, Session& next) noexcept {
  for (uint32_t d = 0; d < from.policy->device_count && d < region::kMaxDevices; ++d) {
    const int local = from.local_index[d];
    const int to = local >= 0 ? next.policy_index[local] : -1;
    if (to < 0) continue;
    const wire::HeldCharge* told = nullptr;
    for (uint32_t h = 0; h < said.held_count; ++h)
      if (memcmp(said.held[h].uuid, from.policy->device[d].uuid, 16) == 0) told = &said.held[h];
    const region::SlotDevice& now = from.Slot().device[d];
    const auto carry = [&](int64_t units, unsigned kind) {
      if (units != 0)
        region::ChangeSlow(*next.usage, next.slot, static_cast<unsigned>(to), units,
                           region::kMaxUnits, static_cast<region::Kind>(kind), next.sequence);
    };
    auto left = static_cast<int64_t>(now.charged_units.load(std::memory_order_relaxed) -
                                     (told != nullptr ? told->units : 0));
    for (unsigned k = 0; k < region::kKinds; ++k) {
      const auto more = static_cast<int64_t>(now.kind_units[k].load(std::memory_order_relaxed) -
                                             (told != nullptr ? told->kind_units[k] : 0));
      carry(more, k);
      left -= more;
    }
    carry(left, 0);
  }
}

// The hello of this process as it is now. False: the books cannot be reached.
bool MakeHello(wire::Hello* hello) noexcept {
  PrepareHello(hello);
  const Session* old = g_process.session.load(std::memory_order_relaxed);
  if (InNamespaceOfItsOwn()) hello->flags |= wire::kHelloSecondCopy;
  if (old == nullptr) {
    if (last_generation_of_family.load(std::memory_order_relaxed) != 0)
      hello->flags |= wire::kHelloForked;
    return true;
  }
  hello->last_generation = old->generation;
  if (!g_process.books.Lock()) return false;
  FillHeld(*old, hello);
  g_process.books.Unlock();
  return true;
}

// A connection that ended without an answer: the daemon died over it.
bool HungUp(int error) noexcept { return error == ECONNRESET || error == EPIPE; }

// Says hello, or looks for the answer to the one that was said, and takes it. Under attach_lock.
int AskOnce(bool joined_before, unsigned timeout_ms, unsigned refused_ms, Welcomed* out) noexcept {
  PendingHello& pending = g_process.pending;
  if (!pending.connection.sent) {
    if (!MakeHello(&pending.said)) return ETIMEDOUT;
    if (const int error =
            SendHello(TenantSocket(), pending.said, timeout_ms, refused_ms, &pending.connection))
      return error;
    pending.since_ns = MonotonicNs(CLOCK_MONOTONIC_COARSE);
    pending.looks = 0;
  } else if (joined_before) {
    timeout_ms = 0;  // waited for once
  }
  const int error = TakeWelcome(&pending.connection, pending.said, timeout_ms, out);
  if (error == ETIMEDOUT) {
    if (MonotonicNs(CLOCK_MONOTONIC_COARSE) - pending.since_ns < kForgetHelloNs) return EINPROGRESS;
    DropHello(&pending.connection);
  }
  return error;
}

// The same, and once in a process's life again while the daemon's successor may be starting,
// whether it died before the connection was made or with it. Who holds memory already goes on under
// its last limits and never waits here; what a living daemon says, a refusal too, is final.
int Ask(bool joined_before, unsigned timeout_ms, Welcomed* out) noexcept {
  const bool patient = !joined_before && g_process.attach_failures == 0;
  int error = AskOnce(joined_before, timeout_ms, patient ? kRestartMs : 0, out);
  if (!patient || !HungUp(error)) return error;
  const uint64_t end_ns = MonotonicNs(CLOCK_MONOTONIC_COARSE) + kRestartMs * kMs;
  for (unsigned pause_us = 1000; HungUp(error); pause_us *= pause_us < 50000 ? 2 : 1) {
    usleep(pause_us);
    const uint64_t now_ns = MonotonicNs(CLOCK_MONOTONIC_COARSE);
    if (now_ns >= end_ns) break;
    error = AskOnce(false, timeout_ms, static_cast<unsigned>((end_ns - now_ns) / kMs), out);
  }
  return error;
}

// 0: joined, or the daemon is the one we know. EINPROGRESS: no answer within `timeout_ms`, it may
// still come. Under attach_lock.
int Join(unsigned timeout_ms) noexcept {
  const NoCancellation until_done;
  const PendingHello& pending = g_process.pending;
  Session* old = g_process.session.load(std::memory_order_relaxed);
  Welcomed welcomed;
  const int error = Ask(old != nullptr, timeout_ms, &welcomed);
  if (error != 0 || welcomed.same_generation) return error;
  // Nobody is changing a book while the session changes.
  if (!g_process.books.Lock()) {
    Unmap(welcomed.policy, welcomed.usage, welcomed.bell);
    return ETIMEDOUT;
  }
  Adopt(welcomed, pending.said.ns_pid);
  if (old != nullptr) {
    Session& next = *g_process.session.load(std::memory_order_relaxed);
    CarryCharges(*old, pending.said, next);
    CarryHolds(*old, next);
  }
  g_process.books.Unlock();
  return 0;
}

// When the next try may be. Under attach_lock.
void Schedule(bool joined, int error) noexcept {
  uint64_t wait = 0;
  if (joined) {
    g_process.attach_failures = 0;
    g_process.next_attach_ns.store(0, std::memory_order_relaxed);
    return;
  }
  if (error == EINPROGRESS) {
    uint32_t& looks = g_process.pending.looks;
    wait = kFirstLookNs << (looks < 8 ? looks : 8);
    ++looks;
  } else {
    wait = kBackOffNs << (g_process.attach_failures < 5 ? g_process.attach_failures : 5);
    if (wait > kBackOffMaxNs) wait = kBackOffMaxNs;
    ++g_process.attach_failures;
  }
  g_process.next_attach_ns.store(MonotonicNs(CLOCK_MONOTONIC_COARSE) + wait,
                                 std::memory_order_relaxed);
}

bool MayTry() noexcept {
  return MonotonicNs(CLOCK_MONOTONIC_COARSE) >=
         g_process.next_attach_ns.load(std::memory_order_relaxed);
}

Standing FirstAttach() noexcept {
  if (!g_process.attach_lock.Lock()) return Standing::kNotReady;
  Standing s = g_process.standing.load(std::memory_order_acquire);
  if (s != Standing::kActive && s != Standing::kNotTenant) {
    if (s == Standing::kUnknown) PrepareForFork();
    const int error = Join(kFirstHelloMs);
    const bool joined = error == 0;
    Schedule(joined, error);
    s = joined ? Standing::kActive : Standing::kNotReady;
    g_process.standing.store(s, std::memory_order_release);
  }
  g_process.attach_lock.Unlock();
  return s;
}

}  // namespace

Standing StandingSlow() noexcept {
  Standing s = g_process.standing.load(std::memory_order_acquire);
  if (s == Standing::kUnknown) {
    if (IsTenant()) return FirstAttach();
    // Nothing is kept of a process that is no tenant, so fork may leave this as it is.
    PassGates();
    g_process.standing.store(Standing::kNotTenant, std::memory_order_release);
    return Standing::kNotTenant;
  }
  if (s == Standing::kNotReady && MayTry()) return FirstAttach();
  return s;
}

Standing AttachNow() noexcept {
  if (ForkedWithoutWipe()) memset(static_cast<void*>(&g_process), 0, sizeof(g_process));
  return g_process.standing.load(std::memory_order_acquire) == Standing::kNotReady ? FirstAttach()
                                                                                   : StandingSlow();
}

Session* FreshSession(Wait wait) noexcept {
  if (__builtin_expect(ForkedWithoutWipe(), 0)) {
    memset(static_cast<void*>(&g_process), 0, sizeof(g_process));
    StandingSlow();
  }
  Session* session = CurrentSession();
  if (session == nullptr) return nullptr;
  const uint64_t beat = session->policy->heartbeat_ns.load(std::memory_order_relaxed);
  const uint64_t now = MonotonicNs(CLOCK_MONOTONIC_COARSE);
  if (__builtin_expect(now < beat + kDeadAfterNs, 1)) return session;
  if (now < g_process.next_attach_ns.load(std::memory_order_relaxed)) return session;
  if (wait == Wait::kNo ? !g_process.attach_lock.TryLock() : !g_process.attach_lock.Lock())
    return session;
  if (CurrentSession() == session && MayTry()) {
    const int error = Join(wait == Wait::kNo ? 0 : kAgainHelloMs);
    // An old daemon that is merely slow is asked again after the back-off, too.
    Schedule(error == 0 && CurrentSession() != session, error);
  }
  g_process.attach_lock.Unlock();
  return CurrentSession();
}

void Degrade(unsigned where) noexcept {
  g_process.degraded.fetch_or(1u << (where & 31), std::memory_order_relaxed);
  if (Session* session = CurrentSession())
    session->Slot().state_flags.fetch_or(region::kShimDegraded, std::memory_order_relaxed);
}

}  // namespace divvy::shim
