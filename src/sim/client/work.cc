// Submission to the channel, and the executor that carries out effects. See work.h.
//
// Locks: `mu` guards slots and queues and is held for short stretches only; `retire_mu` is held
// while effects run, so that they happen one at a time in the order of their ends. retire_mu before
// mu.
#include "src/sim/client/work.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "src/sim/client/stream.h"
#include "src/sim/wire/futex.h"

namespace divvy::sim {
namespace {

constexpr uint64_t kQueueDepth = 1024;
constexpr uint64_t kSoonNs = 20'000;  // what ends sooner counts as ended when deciding to ring
// How often wait conditions are looked at, at first and later; of the device's time.
constexpr uint64_t kAskEveryNs = 20'000;
constexpr uint64_t kAskSlowestNs = 100'000;

struct HostCall {
  std::function<void()> fn;
  OpSlot* slot;
};

class Executor {
 public:
  static Executor& Get() {
    static Executor& e = *new Executor;
    return e;
  }

  uint32_t NewNumber() {
    std::lock_guard lock(mu_);
    return next_number_++;
  }

  Ticket Put(Stream* s, Work work, Ticket wait, OpKind kind) {
    std::unique_lock lock(mu_);
    WaitForRoom(s, lock);
    return PutLocked(s, std::move(work), wait, kind);
  }

  // With the legacy NULL stream's ordering (CUDA Driver API, "Stream synchronization behavior"): it
  // waits for all blocking streams of its context, and they for it.
  Ticket PutOrdered(Stream* s, Work work, Ticket wait, OpKind kind) {
    std::unique_lock lock(mu_);
    WaitForRoom(s, lock);
    if (s->legacy) {
      for (Stream* other : StreamsOf(s->context)) {
        if (other != s && other->blocking()) OrderAfter(s, other);
      }
    } else if (s->blocking()) {
      Stream* null = LegacyStream(s->context);
      if (null->queue.last_seq > s->queue.null_waited_seq) {
        s->queue.null_waited_seq = null->queue.last_seq;
        OrderAfter(s, null);
      }
    }
    return PutLocked(s, std::move(work), wait, kind);
  }

  void Control(OpKind kind, uint32_t first, uint32_t last) {
    std::unique_lock lock(mu_);
    uint32_t n = TakeSlot(lock);
    OpSlot& slot = Process::Get().channel()->slot[n];
    slot.kind = kind;
    slot.stream = first;
    slot.wait_stream = last;
    slot.state.store(kOpFree, std::memory_order_relaxed);
    zombies_.push_back(n);
    Push(n);
    Ring();
  }

  // Carries out everything that is due. Returns when the next effect that somebody outside can see
  // is due, kNever when that is not known or there is none.
  uint64_t Pump() {
    std::lock_guard retiring(retire_mu_);
    for (;;) {
      Pending done;
      Stream* s = nullptr;
      uint64_t at = 0;
      bool dropped = false;
      {
        std::lock_guard lock(mu_);
        s = NextDue(&at, &dropped);
        if (s == nullptr) return NextEffect();
        done = std::move(s->queue.pending.front());
        s->queue.pending.pop_front();
        if (!s->queue.effects.empty() && s->queue.effects.front() == done.seq) {
          s->queue.effects.pop_front();
        }
        FreeSlot(done.slot);
      }
      if (!dropped && done.work.effect) done.work.effect(at);
      s->queue.retired_seq.store(done.seq, std::memory_order_release);  // pairs with HasEnded
    }
  }

  // When the op will end, as far as is known; the slot to be told by when it is not.
  uint64_t EndOf(Ticket t, bool want_news) {
    std::lock_guard lock(mu_);
    OpSlot* slot = SlotOf(t);
    if (slot == nullptr) return 0;
    if (want_news) slot->wants_news.store(1);
    return slot->done_ns.load();
  }

  void RingNow() {
    std::lock_guard lock(mu_);
    Ring();
  }

  void NeedThread() {
    std::call_once(started_, [this] { StartThread([this] { Loop(); }); });
  }
  void NeedCallbackThread() {
    std::call_once(callbacks_started_, [this] { StartThread([this] { CallbackLoop(); }); });
  }

 private:
  template <typename F>
  static void StartThread(F body) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // the program's signals are not for our threads
    std::thread(body).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  OpSlot* SlotOf(Ticket t) {
    auto& q = t.stream->queue;
    if (q.pending.empty() || t.seq < q.pending.front().seq) return nullptr;
    size_t index = t.seq - q.pending.front().seq;
    if (index >= q.pending.size()) return nullptr;
    return &Process::Get().channel()->slot[q.pending[index].slot];
  }

  void OrderAfter(Stream* s, Stream* other) {
    if (other->queue.pending.empty()) return;
    PutLocked(s, {}, Ticket{other, other->queue.last_seq}, OpKind::kWaitOp);
  }

  void WaitForRoom(Stream* s, std::unique_lock<std::mutex>& lock) {
    while (s->queue.pending.size() >= kQueueDepth) {
      Ticket half{s, s->queue.pending.front().seq};
      lock.unlock();
      (void)Finish(half);
      lock.lock();
    }
  }

  uint32_t TakeSlot(std::unique_lock<std::mutex>& lock) {
    Channel* ch = Process::Get().channel();
    for (;;) {
      if (free_.empty()) {
        if (never_used_ < kOpSlots) return never_used_++;
        std::erase_if(zombies_, [&](uint32_t n) {
          if (ch->slot[n].state.load(std::memory_order_acquire) < kOpCommitted) return false;
          free_.push_back(n);
          return true;
        });
      }
      if (!free_.empty()) {
        uint32_t n = free_.back();
        free_.pop_back();
        return n;
      }
      Ring();
      lock.unlock();
      timespec t{0, 50'000};
      nanosleep(&t, nullptr);
      Pump();
      lock.lock();
    }
  }

  void FreeSlot(uint32_t n) {
    // The timeline may still be about to commit it: then it is no one's until it has.
    if (Process::Get().channel()->slot[n].state.load(std::memory_order_acquire) >= kOpCommitted) {
      free_.push_back(n);
    } else {
      zombies_.push_back(n);
    }
  }

  Ticket PutLocked(Stream* s, Work work, Ticket wait, OpKind kind) {
    Process& p = Process::Get();
    std::unique_lock<std::mutex> held(mu_, std::adopt_lock);
    uint32_t n = TakeSlot(held);
    held.release();
    Queue& q = s->queue;
    OpSlot& slot = p.channel()->slot[n];
    bool external = kind == OpKind::kExternal || kind == OpKind::kExternalCompute;
    bool seen = (work.effect && work.visible) || external;
    slot.kind = kind;
    slot.device = uint8_t(s->context->device->index());
    slot.sm_permille = work.sm_permille;
    slot.priority = s->priority;
    slot.stream = q.number;
    slot.wait_stream = wait.stream != nullptr ? wait.stream->queue.number : 0;
    slot.wait_seq = wait.seq;
    const uint64_t seq = q.last_seq.load(std::memory_order_relaxed) + 1;
    slot.seq = seq;
    slot.duration_ns = p.dilate(work.duration_ns);
    slot.submit_ns = NowNs();
    slot.start_ns.store(kNever, std::memory_order_relaxed);
    slot.done_ns.store(kNever, std::memory_order_relaxed);
    slot.released_ns.store(kNever, std::memory_order_relaxed);
    slot.wants_news.store(seen, std::memory_order_relaxed);
    slot.state.store(kOpFree, std::memory_order_relaxed);
    OpSlot* before = q.pending.empty() ? nullptr : &p.channel()->slot[q.pending.back().slot];
    q.pending.push_back({n, seq, std::move(work), wait});
    if (seen) q.effects.push_back(seq);
    if (!q.active) {
      q.active = true;
      active_.push_back(s);
    }
    if (external) {
      if (q.externals.empty()) asking_.push_back(s);
      q.externals.push_back(seq);
    }
    Push(n);
    // The timeline sleeps until just before a stream with work runs dry: only others must ring.
    // Looked at after the push: while the end of the op before is not told, it has yet to look for
    // more. And by the clock after that: this thread may have been off the CPU since submit_ns, and
    // an end that lay ahead then was the last one before the timeline's sleep.
    uint64_t end = before == nullptr ? 0 : before->done_ns.load();
    if (end != kNever && end < NowNs() + kSoonNs) Ring();
    if (seen) NeedThread();
    q.last_seq.store(seq, std::memory_order_release);  // pairs with LastOf
    return {s, seq};
  }

  void Push(uint32_t n) {
    Channel* ch = Process::Get().channel();
    uint64_t head = ch->head.load(std::memory_order_relaxed);
    ch->ring[head % kOpSlots] = n;
    // seq_cst: whoever clears the dirty bit that MarkDirty finds set must see this place.
    ch->head.store(head + 1);
    MarkDirty();
  }
  void MarkDirty() {
    Process& p = Process::Get();
    auto& word = p.page()->dirty[p.row() / 64];
    uint64_t bit = 1ull << (p.row() % 64);
    if ((word.load() & bit) == 0) word.fetch_or(bit);  // seq_cst: pairs with timeline_asleep
  }
  void Ring() {
    MachinePage* page = Process::Get().page();
    if (page->timeline_asleep.load() == 0) return;  // it looks at `dirty` before it sleeps
    page->bell.fetch_add(1);
    FutexWakeAll(&page->bell);
  }

  // The stream whose front op is due first and may be carried out now.
  Stream* NextDue(uint64_t* at, bool* dropped) {
    Channel* ch = Process::Get().channel();
    uint64_t now = NowNs();
    Stream* best = nullptr;
    for (size_t i = 0; i < active_.size();) {
      Queue& q = active_[i]->queue;
      if (q.pending.empty()) {
        q.active = false;
        active_[i] = active_.back();
        active_.pop_back();
        continue;
      }
      const Pending& front = q.pending.front();
      OpSlot& slot = ch->slot[front.slot];
      if (slot.state.load(std::memory_order_acquire) == kOpDropped) {
        *at = 0;
        *dropped = true;
        return active_[i];
      }
      uint64_t end = slot.done_ns.load();
      // An op that waits for another stream's must not overtake that one's effects.
      bool held = front.wait.stream != nullptr && front.wait.stream->queue.retired_seq.load(
                                                      std::memory_order_acquire) < front.wait.seq;
      if (end <= now && !held && (best == nullptr || end < *at)) {
        best = active_[i];
        *at = end;
      }
      ++i;
    }
    return best;
  }

  uint64_t NextEffect() {
    uint64_t next = kNever;
    for (Stream* s : active_) {
      Queue& q = s->queue;
      if (q.effects.empty() || q.pending.empty()) continue;
      size_t index = q.effects.front() - q.pending.front().seq;
      next = std::min(next, Process::Get().channel()->slot[q.pending[index].slot].done_ns.load());
    }
    return next;
  }

  // Looks at external ops that have started: asks conditions, hands host functions over. True while
  // there is something to ask again.
  bool AskExternals() {
    std::vector<std::pair<std::function<bool()>, Ticket>> ask;
    {
      std::lock_guard lock(mu_);
      uint64_t now = NowNs();
      // Of a stream only the first can have started.
      std::erase_if(asking_, [&](Stream* s) {
        auto& externals = s->queue.externals;
        while (!externals.empty()) {
          Ticket t{s, externals.front()};
          OpSlot* slot = SlotOf(t);
          if (slot != nullptr && slot->released_ns.load(std::memory_order_relaxed) == kNever) {
            if (slot->start_ns.load() > now) return false;
            Pending& p = s->queue.pending[t.seq - s->queue.pending.front().seq];
            if (!p.work.host) {
              ask.push_back({p.work.satisfied, t});
              return false;
            }
            std::lock_guard calls(calls_mu_);
            calls_.push_back({std::move(p.work.host), slot});
            calls_news_.notify_one();
            NeedCallbackThread();
          }
          externals.pop_front();
        }
        return true;
      });
    }
    bool again = false;
    for (auto& [satisfied, ticket] : ask) {
      {
        // Not beside an effect: the op may have been dropped meanwhile, its word be another's.
        std::lock_guard retiring(retire_mu_);
        if (!satisfied()) {
          again = true;
          continue;
        }
      }
      std::lock_guard lock(mu_);
      OpSlot* slot = SlotOf(ticket);  // null: it was dropped meanwhile
      if (slot != nullptr && slot->released_ns.load(std::memory_order_relaxed) == kNever) {
        Release(slot);
      }
    }
    return again;
  }

  void Release(OpSlot* slot) {
    slot->released_ns.store(NowNs(), std::memory_order_release);  // pairs with the timeline
    Process::Get().channel()->releases.fetch_add(1, std::memory_order_release);
    MarkDirty();
    Ring();
  }

  void Loop() {
    prctl(PR_SET_NAME, "sim-executor");
    prctl(PR_SET_TIMERSLACK, 1);
    Channel* ch = Process::Get().channel();
    const uint64_t first = Process::Get().dilate(kAskEveryNs);
    const uint64_t slowest = Process::Get().dilate(kAskSlowestNs);
    uint64_t ask_every = first;
    for (;;) {
      uint32_t news = ch->news.load();
      bool asking = AskExternals();
      uint64_t until = Pump();
      if (asking) {
        until = std::min(until, NowNs() + ask_every);
        ask_every = std::min(ask_every * 5 / 4, slowest);
      } else {
        ask_every = first;
        until = std::min(until, NextStart());
      }
      if (until > NowNs()) FutexWait(&ch->news, news, until);
    }
  }

  // When the next external op starts, if that is known.
  uint64_t NextStart() {
    std::lock_guard lock(mu_);
    uint64_t next = kNever;
    for (Stream* s : asking_) {
      if (s->queue.externals.empty()) continue;
      OpSlot* slot = SlotOf({s, s->queue.externals.front()});
      if (slot != nullptr) next = std::min(next, slot->start_ns.load());
    }
    return next;
  }

  void CallbackLoop() {
    prctl(PR_SET_NAME, "sim-callbacks");
    for (;;) {
      HostCall call;
      {
        std::unique_lock lock(calls_mu_);
        calls_news_.wait(lock, [this] { return !calls_.empty(); });
        call = std::move(calls_.front());
        calls_.pop_front();
      }
      call.fn();
      Release(call.slot);
    }
  }

  std::mutex retire_mu_;
  std::mutex mu_;  // guards what follows
  uint32_t next_number_ = 1;
  uint32_t never_used_ = 0;
  std::vector<uint32_t> free_, zombies_;
  std::vector<Stream*> active_;  // with something pending
  std::vector<Stream*> asking_;  // with external ops that are not yet released
  std::once_flag started_, callbacks_started_;
  std::mutex calls_mu_;
  std::condition_variable calls_news_;
  std::deque<HostCall> calls_;
};

// Sleeps to a near point in time, without waking later than a few microseconds.
void SleepUntil(uint64_t until_ns) {
  constexpr uint64_t kSpinNs = 5'000;
  uint64_t now = NowNs();
  if (until_ns > now + kSpinNs) {
    PreciseSleep precise;
    uint64_t t = until_ns - kSpinNs;
    timespec at{time_t(t / 1'000'000'000), long(t % 1'000'000'000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
  }
  while (NowNs() < until_ns) __builtin_ia32_pause();
}

}  // namespace

Ticket Submit(Stream* stream, Work work) {
  OpKind kind = work.kind;
  return Executor::Get().PutOrdered(stream, std::move(work), {}, kind);
}

void SubmitWait(Stream* stream, Ticket on) {
  if (on.stream == nullptr || HasEnded(on)) return;
  Executor::Get().PutOrdered(stream, {}, on, OpKind::kWaitOp);
}

bool HasEnded(Ticket t) {
  if (t.stream == nullptr) return true;
  auto& retired = t.stream->queue.retired_seq;
  if (retired.load(std::memory_order_acquire) >= t.seq) return true;  // pairs with Pump
  Executor::Get().Pump();
  return retired.load(std::memory_order_acquire) >= t.seq;
}

CUresult Finish(Ticket t) {
  if (t.stream == nullptr) return CUDA_SUCCESS;
  Executor& e = Executor::Get();
  Channel* ch = Process::Get().channel();
  auto& retired = t.stream->queue.retired_seq;
  while (retired.load(std::memory_order_acquire) < t.seq) {  // pairs with Pump
    uint32_t news = ch->news.load();
    uint64_t end = e.EndOf(t, true);
    uint64_t now = NowNs();
    if (end == kNever) {
      FutexWait(&ch->news, news, now + 100'000'000);
    } else if (end > now) {
      // Far ends may yet move: look again on the way.
      SleepUntil(std::min(end, now + 20'000'000));
    }
    e.Pump();
    if (end != kNever && end <= now && retired.load(std::memory_order_acquire) < t.seq) {
      // Due, but held up by another stream's end or a host function.
      FutexWait(&ch->news, news, NowNs() + 200'000);
    }
  }
  return CUresult(t.stream->context->sticky.load(std::memory_order_acquire));
}

Ticket LastOf(Stream* stream) {
  return {stream,
          stream->queue.last_seq.load(std::memory_order_acquire)};  // pairs with the submission
}

void DropWork(Context* context) {
  for (Stream* s : StreamsOf(context)) {
    Executor::Get().Control(OpKind::kAbort, s->queue.number, s->queue.number);
  }
}

uint32_t NewQueueNumber() { return Executor::Get().NewNumber(); }

void EndQueue(Stream* stream) {
  Executor::Get().Control(OpKind::kStreamEnd, stream->queue.number, 0);
}

}  // namespace divvy::sim
