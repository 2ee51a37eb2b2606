// The timeline thread: reads submissions, runs the engine, publishes. See timeline.h.
//
// It sleeps while nothing can change: clients ring only when they submit to a stream that is
// (nearly) out of work, so it must look again just before the first stream runs dry. What it has
// published for the time up to `now` is committed before anything new is taken in, so that an end
// that a client has seen stays.
#include "src/sim/broker/timeline.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "src/sim/broker/engine.h"
#include "src/sim/wire/futex.h"

namespace divvy::sim {
namespace {

constexpr uint64_t kGuardNs = 5'000;  // committed this far ahead of the clock
constexpr uint64_t kLookAheadNs = 1'000'000'000;
constexpr uint32_t kLookAheadEvents = 96;
constexpr uint64_t kUtilFlushNs = 50'000'000;  // busy time is written at least this often

EngineConfig ConfigOf(const MachinePage& page) {
  const Profile* p = ProfileOf(&page);
  return {page.device_count, p->slice_ns * page.dilation, p->switch_ns * page.dilation,
          p->launch_ns * page.dilation};
}

}  // namespace

struct Timeline::Impl : EngineListener {
  struct Planned {
    OpSlot* slot;
    uint32_t stream;
    uint64_t seq;
  };
  struct Client {
    UniqueFd fd;
    Channel* channel = nullptr;
    bool news = false;
    uint32_t releases_seen = 0;
    std::vector<Planned> planned;    // by the last prediction
    std::vector<Planned> externals;  // taken in and not yet released
  };

  explicit Impl(MachinePage* p) : page(p), engine(ConfigOf(*p), this) {
    thread = std::thread([this] { Loop(); });
  }
  ~Impl() override {
    stop.store(true);
    page->bell.fetch_add(1);
    FutexWakeAll(&page->bell);
    thread.join();
  }

  static Client* OwnerOf(const EngineOp& op) { return static_cast<Client*>(op.owner); }

  // A time of an op becomes known. `word` was kNever if nobody knew it.
  void Tell(EngineOp& op, std::atomic<uint64_t>* word, uint64_t at_ns) {
    uint64_t before = word->exchange(at_ns);  // seq_cst: pairs with the client's wants_news
    if (before == kNever && op.slot->wants_news.load() != 0) OwnerOf(op)->news = true;
  }

  void Started(EngineOp& op, uint64_t at_ns, bool final) override {
    Tell(op, &op.slot->start_ns, at_ns);
    if (!final) Plan(op);
  }
  void Ended(EngineOp& op, uint64_t at_ns, bool final) override {
    Tell(op, &op.slot->done_ns, at_ns);
    if (final) {
      op.slot->state.store(kOpCommitted, std::memory_order_release);  // the slot is the client's
    } else {
      Plan(op);
    }
  }
  void Plan(EngineOp& op) {
    if (op.slot->plan == plan) return;
    op.slot->plan = plan;
    OwnerOf(op)->planned.push_back({op.slot, op.slot->stream, op.seq});
  }
  void Dropped(EngineOp& op) override {
    op.slot->done_ns.store(0, std::memory_order_relaxed);
    op.slot->state.store(kOpDropped, std::memory_order_release);  // the slot is the client's
    OwnerOf(op)->news = true;
  }

  void Spread(uint32_t device, bool copy, uint64_t from, uint64_t to) {
    DeviceHead& head = page->device[device];
    (copy ? head.copy_busy_ns : head.busy_ns).fetch_add(to - from, std::memory_order_relaxed);
    while (from < to) {
      uint64_t number = from / page->util_bucket_ns;
      uint64_t end = std::min(to, (number + 1) * page->util_bucket_ns);
      auto& u = head.util[number % kUtilBuckets];
      if (u.number.load(std::memory_order_relaxed) != number) {
        u.busy_ns.store(0, std::memory_order_relaxed);
        u.copy_ns.store(0, std::memory_order_relaxed);
        u.number.store(number, std::memory_order_release);  // pairs with NVML's reading
      }
      (copy ? u.copy_ns : u.busy_ns).fetch_add(end - from, std::memory_order_relaxed);
      from = end;
    }
  }
  void Busy(uint32_t device, uint32_t row, uint64_t from, uint64_t to) override {
    Spread(device, false, from, to);
    if (row >= kMaxClients) return;
    DeviceRow& r = page->row[row].dev[device];
    r.busy_ns.fetch_add(to - from, std::memory_order_relaxed);
    while (from < to) {
      uint64_t number = from / kUtilWindowNs, end = std::min(to, (number + 1) * kUtilWindowNs);
      auto& w = r.window[number % 2];
      if (w.number.load(std::memory_order_relaxed) != number) {
        w.busy_ns.store(0, std::memory_order_relaxed);
        w.number.store(number, std::memory_order_release);  // pairs with NVML's reading
      }
      w.busy_ns.fetch_add(end - from, std::memory_order_relaxed);
      from = end;
    }
  }
  void CopyBusy(uint32_t device, uint64_t from, uint64_t to) override {
    Spread(device, true, from, to);
  }

  void TakeIn(uint32_t row, Client* c) {
    Channel* ch = c->channel;
    uint64_t tail = ch->tail.load(std::memory_order_relaxed);
    uint64_t head = ch->head.load();  // seq_cst, after the dirty bit: pairs with the client's push
    head = std::min(head, tail + kOpSlots);
    for (; tail < head; ++tail) {
      uint32_t number = ch->ring[tail % kOpSlots];
      if (number >= kOpSlots) continue;
      OpSlot* s = &ch->slot[number];
      if (s->kind == OpKind::kStreamEnd) {
        engine.EndStream(row, s->stream);
        s->state.store(kOpCommitted, std::memory_order_release);
        continue;
      }
      if (s->kind == OpKind::kAbort) {
        engine.Abort(row, s->stream, s->wait_stream);
        s->state.store(kOpCommitted, std::memory_order_release);
        continue;
      }
      s->plan = 0;
      s->state.store(kOpSubmitted, std::memory_order_relaxed);
      if (s->kind == OpKind::kExternal || s->kind == OpKind::kExternalCompute) {
        c->externals.push_back({s, s->stream, s->seq});
      }
      uint8_t device = s->device < page->device_count ? s->device : 0;
      uint16_t sms = std::clamp<uint16_t>(s->sm_permille, 1, 1000);
      engine.Submit(row, s->stream,
                    EngineOp{s->kind, device, sms, s->priority, s->wait_stream, s->seq, s->wait_seq,
                             s->duration_ns, s->submit_ns, kNever, s, c});
    }
    ch->tail.store(tail, std::memory_order_release);
    uint32_t releases = ch->releases.load(std::memory_order_acquire);  // pairs with the release
    if (releases == c->releases_seen) return;
    c->releases_seen = releases;
    std::erase_if(c->externals, [&](const Planned& x) {
      uint64_t at = x.slot->released_ns.load(std::memory_order_acquire);
      if (x.slot->state.load(std::memory_order_relaxed) == kOpDropped) return true;
      return at != kNever && engine.Release(row, x.stream, x.seq, at);
    });
  }

  void TakeInAll() {
    for (uint32_t word = 0; word < kMaxClients / 64; ++word) {
      if (page->dirty[word].load(std::memory_order_relaxed) == 0) continue;
      uint64_t bits = page->dirty[word].exchange(0);
      while (bits != 0) {
        uint32_t row = word * 64 + uint32_t(__builtin_ctzll(bits));
        bits &= bits - 1;
        auto it = clients.find(row);
        if (it != clients.end()) TakeIn(row, &it->second);
      }
    }
  }

  bool AnyDirty() const {
    for (const auto& word : page->dirty) {
      if (word.load() != 0) return true;
    }
    return false;
  }

  // One round; returns when to look again.
  uint64_t Round() {
    std::lock_guard lock(mu);
    uint64_t now = NowNs();
    engine.Commit(now + kGuardNs);
    TakeInAll();
    engine.Commit(now + kGuardNs);
    ++plan;
    std::vector<std::pair<Client*, std::vector<Planned>>> before;
    for (auto& [row, c] : clients) {
      if (!c.planned.empty()) before.push_back({&c, std::move(c.planned)});
      c.planned.clear();
    }
    uint64_t wake = kNever;
    if (!engine.idle()) {
      auto outlook = engine.Predict(now + kLookAheadNs, now + 20'000, kLookAheadEvents);
      uint64_t known = std::max(outlook.known_ns, now);
      wake = std::min(now + kUtilFlushNs, now + (known - now) * 3 / 4);
      if (outlook.dry_ns != kNever) wake = std::min(wake, outlook.dry_ns - 10'000);
      wake = std::max(wake, now + 10'000);
    }
    // What was told and is not so any more (a newcomer pushed it away) is unknown again.
    for (auto& [c, list] : before) {
      for (const Planned& p : list) {
        OpSlot* s = p.slot;
        if (s->state.load(std::memory_order_relaxed) != kOpSubmitted || s->plan == plan) continue;
        if (s->stream == p.stream && s->seq == p.seq) s->done_ns.store(kNever);
      }
    }
    for (auto& [row, c] : clients) {
      if (!c.news) continue;
      c.news = false;
      c.channel->news.fetch_add(1);
      FutexWakeAll(&c.channel->news);
    }
    return wake;
  }

  void Loop() {
    prctl(PR_SET_NAME, "timeline");
    prctl(PR_SET_TIMERSLACK, 1);
    while (!stop.load()) {
      uint64_t wake = Round();
      uint32_t bell = page->bell.load();
      page->timeline_asleep.store(1);  // seq_cst with the client's dirty bit
      if (!AnyDirty() && !stop.load()) FutexWait(&page->bell, bell, wake);
      page->timeline_asleep.store(0);
    }
  }

  MachinePage* page;
  std::mutex mu;  // guards what follows
  Engine engine;
  std::map<uint32_t, Client> clients;  // by row
  uint32_t plan = 0;
  std::atomic<bool> stop{false};
  std::thread thread;
};

Timeline::Timeline(MachinePage* page) : impl_(std::make_unique<Impl>(page)) {}

Timeline::~Timeline() = default;

int Timeline::AddClient(uint32_t row) {
  UniqueFd fd(memfd_create("divvy-sim-channel", MFD_CLOEXEC));
  if (!fd.valid() || ftruncate(fd.get(), sizeof(Channel)) != 0) return -1;
  void* at = mmap(nullptr, sizeof(Channel), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return -1;
  std::lock_guard lock(impl_->mu);
  int number = fd.get();
  auto& c = impl_->clients[row];
  c = {};
  c.fd = std::move(fd);
  c.channel = static_cast<Channel*>(at);
  return number;
}

void Timeline::RemoveClient(uint32_t row) {
  std::lock_guard lock(impl_->mu);
  auto it = impl_->clients.find(row);
  if (it == impl_->clients.end()) return;
  impl_->engine.RemoveProcess(row);
  munmap(it->second.channel, sizeof(Channel));
  impl_->clients.erase(it);
}

}  // namespace divvy::sim
