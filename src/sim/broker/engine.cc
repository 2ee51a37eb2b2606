// The discrete-event model of the devices' time. See engine.h for its rules.
#include "src/sim/broker/engine.h"

#include <algorithm>

namespace divvy::sim {

constexpr uint32_t kNobody = UINT32_MAX;

struct Engine::Stream {
  uint32_t process, number;
  std::deque<EngineOp> ops;  // not yet committed
  uint64_t ended_seq = 0;    // committed
  bool active = false;       // has a Run in the state
  bool closing = false;
};

// Where a stream with work is: which op is its head, and what that does.
enum class Phase : uint8_t { kReady, kRunning, kCopying, kExternal };

struct Engine::Run {
  Stream* stream;
  uint32_t head = 0;  // index into stream->ops
  Phase phase = Phase::kReady;
  bool started = false;      // a kernel that may have been switched out
  bool rested = false;       // started, not on the device now
  bool copied = false;       // the op before the head was a copy: the head is in the copy's channel
  uint64_t since = 0;        // when the head became the head
  uint64_t end_ns = kNever;  // of a running kernel or copy
  uint64_t rest_ns = 0;      // of a kernel that is switched out
};

struct Engine::DeviceState {
  uint32_t process = kNobody;  // whose turn it is
  uint32_t last = kNobody;     // whose context is loaded: coming back costs no switch
  uint64_t switched_ns = 0;    // its kernels may run from here on; kNever: it has had none yet
  uint64_t slice_end_ns = 0;
  uint32_t used_permille = 0;
  bool copying[2] = {};  // one engine for each direction
};

struct Engine::State {
  uint64_t clock_ns = 0;
  std::vector<DeviceState> device;
  std::vector<Run> runs;
};

// Walks a state forward in time; over the real one to commit, over a copy to predict.
class Engine::Walk {
 public:
  Walk(Engine* engine, State* state, bool final) : e_(*engine), s_(*state), final_(final) {}

  // Returns the time up to which nothing more happens that it has not been through.
  uint64_t To(uint64_t limit_ns, uint32_t max_events) {
    while (Settle()) {
    }
    for (;;) {
      uint64_t next = NextEvent();
      if (next > limit_ns) break;
      if (max_events-- == 0) return s_.clock_ns;
      Account(next);
      s_.clock_ns = next;
      while (Settle()) {
      }
    }
    if (final_) {
      // Time in which kernels run is accounted as it passes, so that a reader sees long ones too.
      Account(std::max(limit_ns, s_.clock_ns));
    }
    return limit_ns;
  }

  uint64_t busy_ns = 0;  // streams that are dry by then do not count
  uint64_t first_dry_ns = kNever;

 private:
  const EngineOp& HeadOf(const Run& r) const { return r.stream->ops[r.head]; }
  bool HasHead(const Run& r) const { return r.head < r.stream->ops.size(); }
  uint64_t ReadyAt(const Run& r) const {
    const EngineOp& op = HeadOf(r);
    // An op behind another one is there already when that ends; only an idle stream pays the
    // launch.
    return std::max(op.submit_ns + e_.config_.launch_ns, r.since);
  }
  static bool IsCompute(OpKind k) { return k == OpKind::kCompute || k == OpKind::kExternalCompute; }
  static int Direction(OpKind k) { return k == OpKind::kCopyD2H; }

  // Whether the head has to be carried out in its process' turn.
  static bool InTurn(const Run& r, const EngineOp& op) {
    return IsCompute(op.kind) || (op.kind == OpKind::kInstant && !r.copied);
  }
  // Whether the head would like its process' turn now.
  bool WantsDevice(const Run& r, uint32_t device) const {
    if (!HasHead(r)) return false;
    const EngineOp& op = HeadOf(r);
    if (op.device != device || !InTurn(r, op)) return false;
    return r.phase == Phase::kRunning || r.rested || ReadyAt(r) <= s_.clock_ns;
  }
  // Whether it would like SMs now.
  bool WantsSms(const Run& r, uint32_t device) const {
    return WantsDevice(r, device) && IsCompute(HeadOf(r).kind);
  }
  bool ProcessWants(uint32_t process, uint32_t device) const {
    for (const Run& r : s_.runs) {
      if (r.stream->process == process && WantsDevice(r, device)) return true;
    }
    return false;
  }
  // The next process in turn that wants the device, `after` the given one; kNobody when none does.
  uint32_t NextWanting(uint32_t after, uint32_t device) const {
    uint32_t best = kNobody, wrap = kNobody;
    for (const Run& r : s_.runs) {
      uint32_t p = r.stream->process;
      if (p == after || !WantsDevice(r, device)) continue;
      if (after != kNobody && p > after) {
        best = std::min(best, p);
      } else {
        wrap = std::min(wrap, p);
      }
    }
    return best != kNobody ? best : wrap;
  }

  uint64_t EndedSeq(uint32_t process, uint32_t stream) const {
    auto it = e_.streams_.find({process, stream});
    if (it == e_.streams_.end()) return kNever;  // long gone: everything has ended
    const Stream* s = it->second.get();
    if (s->active) {
      for (const Run& r : s_.runs) {
        if (r.stream != s) continue;
        return r.head == 0 ? s->ended_seq : s->ops[r.head - 1].seq;
      }
    }
    return s->ended_seq;
  }

  // Everything that happens at the present instant without time passing; true when anything did.
  bool Settle() {
    bool moved = false;
    for (Run& r : s_.runs) moved |= SettleRun(r);
    for (uint32_t d = 0; d < s_.device.size(); ++d) moved |= SettleDevice(d);
    return moved;
  }

  bool SettleRun(Run& r) {
    if (!HasHead(r)) return false;
    EngineOp& op = r.stream->ops[r.head];
    switch (r.phase) {
      case Phase::kRunning: {
        uint64_t end = r.end_ns;
        if (op.kind == OpKind::kExternalCompute) end = op.released_ns;
        if (end > s_.clock_ns) return false;
        s_.device[op.device].used_permille -= op.sm_permille;
        End(r);
        return true;
      }
      case Phase::kCopying:
        if (r.end_ns > s_.clock_ns) return false;
        s_.device[op.device].copying[Direction(op.kind)] = false;
        End(r);
        return true;
      case Phase::kExternal:
        if (op.released_ns > s_.clock_ns) return false;
        End(r);
        return true;
      case Phase::kReady:
        break;
    }
    if (IsCompute(op.kind) || ReadyAt(r) > s_.clock_ns) return false;
    switch (op.kind) {
      case OpKind::kInstant: {
        const uint32_t turn = s_.device[op.device].process;
        if (!r.copied && turn != kNobody && turn != r.stream->process) return false;
        Start(r);
        End(r);
        return true;
      }
      case OpKind::kWaitOp:
        if (EndedSeq(r.stream->process, op.wait_stream) < op.wait_seq) return false;
        Start(r);
        End(r);
        return true;
      case OpKind::kExternal:
        Start(r);
        r.phase = Phase::kExternal;
        return true;
      case OpKind::kCopyH2D:
      case OpKind::kCopyD2H: {
        DeviceState& d = s_.device[op.device];
        if (d.copying[Direction(op.kind)]) return false;
        d.copying[Direction(op.kind)] = true;
        Start(r);
        r.phase = Phase::kCopying;
        r.end_ns = s_.clock_ns + op.duration_ns;
        return true;
      }
      default:
        return false;
    }
  }

  bool SettleDevice(uint32_t index) {
    DeviceState& d = s_.device[index];
    bool wants = d.process != kNobody && ProcessWants(d.process, index);
    if (!wants) {
      uint32_t next = NextWanting(d.process, index);
      if (next == kNobody) {
        bool had = d.process != kNobody;
        d.process = kNobody;
        return had;
      }
      Turn(d, next);
      return true;
    }
    if (d.slice_end_ns < s_.clock_ns) {
      // Nobody else wanted the device at its end, or there had been an event: slices of a lone
      // process follow one another.
      uint64_t behind = s_.clock_ns - d.slice_end_ns, slice = e_.config_.slice_ns;
      d.slice_end_ns += (behind + slice - 1) / slice * slice;
    }
    if (d.slice_end_ns == s_.clock_ns) {
      uint32_t next = NextWanting(d.process, index);
      if (next == kNobody) {
        d.slice_end_ns += e_.config_.slice_ns;
        return false;
      }
      SwitchOut(d, index);
      Turn(d, next);
      return true;
    }
    if (d.switched_ns == kNever) Load(d, index);
    return d.switched_ns <= s_.clock_ns && StartKernels(d, index);
  }

  void Turn(DeviceState& d, uint32_t process) {
    d.process = process;
    d.switched_ns = d.last == process ? s_.clock_ns : kNever;
    d.slice_end_ns = s_.clock_ns + e_.config_.slice_ns;
    d.used_permille = 0;
  }
  // The context of the process whose turn it is comes onto the SMs with its first kernel.
  void Load(DeviceState& d, uint32_t index) {
    const bool any = std::any_of(s_.runs.begin(), s_.runs.end(), [&](const Run& r) {
      return r.stream->process == d.process && WantsSms(r, index);
    });
    if (!any) return;
    d.switched_ns = s_.clock_ns + (d.last == kNobody ? 0 : e_.config_.switch_ns);
    d.last = d.process;
    d.slice_end_ns = d.switched_ns + e_.config_.slice_ns;
  }

  void SwitchOut(DeviceState& d, uint32_t index) {
    for (Run& r : s_.runs) {
      if (r.phase != Phase::kRunning || r.stream->process != d.process) continue;
      if (HeadOf(r).device != index) continue;
      r.rest_ns = r.end_ns == kNever ? kNever : r.end_ns - s_.clock_ns;
      r.end_ns = kNever;
      r.phase = Phase::kReady;
      r.rested = true;
    }
    d.used_permille = 0;
  }

  // Starts (or goes on with) kernels of the process whose turn it is while they fit.
  bool StartKernels(DeviceState& d, uint32_t index) {
    bool any = false;
    for (;;) {
      Run* best = nullptr;
      for (Run& r : s_.runs) {
        if (r.stream->process != d.process || r.phase != Phase::kReady) continue;
        if (!WantsSms(r, index)) continue;
        if (best == nullptr || Before(r, *best)) best = &r;
      }
      if (best == nullptr) return any;
      const EngineOp& op = HeadOf(*best);
      // The next in line waits for room; none overtakes it, as with the block scheduler.
      if (d.used_permille != 0 && d.used_permille + op.sm_permille > 1000) return any;
      d.used_permille += op.sm_permille;
      uint64_t work = best->rested                          ? best->rest_ns
                      : op.kind == OpKind::kExternalCompute ? kNever
                                                            : op.duration_ns;
      if (!best->started) Start(*best);
      best->started = true;
      best->rested = false;
      best->phase = Phase::kRunning;
      best->end_ns = work == kNever ? kNever : s_.clock_ns + work;
      any = true;
    }
  }

  // Started ones first, then by priority, then by when they could run.
  bool Before(const Run& a, const Run& b) const {
    if (a.rested != b.rested) return a.rested;
    if (HeadOf(a).priority != HeadOf(b).priority) return HeadOf(a).priority < HeadOf(b).priority;
    uint64_t x = ReadyAt(a), y = ReadyAt(b);
    if (x != y) return x < y;
    return a.stream->number < b.stream->number;
  }

  void Start(Run& r) {
    r.started = true;
    e_.listener_->Started(r.stream->ops[r.head], s_.clock_ns, final_);
  }

  void End(Run& r) {
    EngineOp& op = r.stream->ops[r.head];
    const OpKind op_kind = op.kind;
    const bool was_copy = op_kind == OpKind::kCopyH2D || op_kind == OpKind::kCopyD2H;
    e_.listener_->Ended(op, s_.clock_ns, final_);
    if (final_) {
      r.stream->ended_seq = op.seq;
      r.stream->ops.pop_front();
    } else {
      ++r.head;
      if (!HasHead(r) && s_.clock_ns > busy_ns) first_dry_ns = std::min(first_dry_ns, s_.clock_ns);
    }
    r.phase = Phase::kReady;
    r.started = r.rested = false;
    r.copied = was_copy || (r.copied && op_kind == OpKind::kInstant);
    r.since = s_.clock_ns;
    r.end_ns = kNever;
  }

  uint64_t NextEvent() const {
    uint64_t next = kNever;
    for (const Run& r : s_.runs) {
      if (!HasHead(r)) continue;
      const EngineOp& op = HeadOf(r);
      if (r.phase == Phase::kExternal ||
          (r.phase == Phase::kRunning && op.kind == OpKind::kExternalCompute)) {
        next = std::min(next, op.released_ns);
      } else if (r.phase == Phase::kRunning || r.phase == Phase::kCopying) {
        next = std::min(next, r.end_ns);
      } else if (r.phase == Phase::kReady && !r.rested) {
        uint64_t at = ReadyAt(r);
        if (at > s_.clock_ns) next = std::min(next, at);
      }
    }
    for (uint32_t i = 0; i < s_.device.size(); ++i) {
      const DeviceState& d = s_.device[i];
      if (d.process == kNobody) continue;
      if (d.switched_ns > s_.clock_ns) next = std::min(next, d.switched_ns);  // or never
      if (d.slice_end_ns > s_.clock_ns && NextWanting(d.process, i) != kNobody) {
        next = std::min(next, d.slice_end_ns);
      }
    }
    return next;
  }

  // Device time from the last accounted instant to `to_ns`, by what runs now.
  void Account(uint64_t to_ns) {
    if (!final_) return;
    // Only what is busy is settled: work that was submitted to an idle device is taken in a moment
    // later, and began before now.
    const auto account = [&](uint64_t& accounted_ns, auto&& tell) {
      const uint64_t from = std::max(accounted_ns, s_.clock_ns);
      if (to_ns <= from) return;
      tell(from);
      accounted_ns = to_ns;
    };
    for (uint32_t i = 0; i < s_.device.size(); ++i) {
      const DeviceState& d = s_.device[i];
      Engine::Accounted& accounted = e_.accounted_[i];
      if (d.used_permille > 0)
        account(accounted.busy_ns,
                [&](uint64_t from) { e_.listener_->Busy(i, d.process, from, to_ns); });
      if (d.copying[0] || d.copying[1])
        account(accounted.copy_ns, [&](uint64_t from) { e_.listener_->CopyBusy(i, from, to_ns); });
    }
  }

  Engine& e_;
  State& s_;
  const bool final_;
};

Engine::Engine(const EngineConfig& config, EngineListener* listener)
    : config_(config), listener_(listener), state_(std::make_unique<State>()) {
  state_->device.resize(config.devices);
  accounted_.resize(config.devices);
}

Engine::~Engine() = default;

void Engine::Submit(uint32_t process, uint32_t stream, const EngineOp& op) {
  auto& s = streams_[{process, stream}];
  if (s == nullptr) {
    s = std::make_unique<Stream>();
    s->process = process;
    s->number = stream;
  }
  s->ops.push_back(op);
  if (!s->active) {
    s->active = true;
    Run r{s.get()};
    // What lies behind the clock is settled: an op that was sent before is too late for it.
    r.since = state_->clock_ns;
    state_->runs.push_back(r);
  }
}

bool Engine::Release(uint32_t process, uint32_t stream, uint64_t seq, uint64_t at_ns) {
  auto it = streams_.find({process, stream});
  if (it == streams_.end()) return false;
  for (EngineOp& op : it->second->ops) {
    if (op.seq != seq) continue;
    op.released_ns = std::max(at_ns, state_->clock_ns);
    return true;
  }
  return false;
}

void Engine::Abort(uint32_t process, uint32_t first, uint32_t last) {
  auto& runs = state_->runs;
  for (size_t i = 0; i < runs.size();) {
    Run& r = runs[i];
    Stream* s = r.stream;
    if (s->process != process || s->number < first || s->number > last) {
      ++i;
      continue;
    }
    if (!s->ops.empty()) {
      const EngineOp& op = s->ops[r.head];
      if (r.phase == Phase::kRunning) state_->device[op.device].used_permille -= op.sm_permille;
      if (r.phase == Phase::kCopying) {
        state_->device[op.device].copying[op.kind == OpKind::kCopyD2H] = false;
      }
      s->ended_seq = s->ops.back().seq;
    }
    for (EngineOp& op : s->ops) listener_->Dropped(op);
    s->ops.clear();
    s->active = false;
    runs.erase(runs.begin() + long(i));
  }
}

void Engine::RemoveProcess(uint32_t process) {
  Abort(process, 0, UINT32_MAX);
  auto from = streams_.lower_bound({process, 0});
  auto to = streams_.upper_bound({process, UINT32_MAX});
  streams_.erase(from, to);
  for (DeviceState& d : state_->device) {
    if (d.last == process) d.last = kNobody - 1;  // the next one pays for a switch all the same
  }
}

void Engine::EndStream(uint32_t process, uint32_t stream) {
  auto it = streams_.find({process, stream});
  if (it == streams_.end()) return;
  it->second->closing = true;
  if (!it->second->active) streams_.erase(it);
}

void Engine::Commit(uint64_t to_ns) {
  Walk(this, state_.get(), true).To(to_ns, UINT32_MAX);
  // Streams without work leave the state.
  auto& runs = state_->runs;
  for (size_t i = 0; i < runs.size();) {
    Stream* s = runs[i].stream;
    if (!s->ops.empty()) {
      ++i;
      continue;
    }
    s->active = false;
    runs[i] = runs.back();
    runs.pop_back();
    if (s->closing) streams_.erase({s->process, s->number});
  }
}

Engine::Outlook Engine::Predict(uint64_t to_ns, uint64_t busy_ns, uint32_t max_events) {
  State ahead = *state_;
  Walk walk(this, &ahead, false);
  walk.busy_ns = busy_ns;
  Outlook out;
  out.known_ns = walk.To(to_ns, max_events);
  out.dry_ns = walk.first_dry_ns;
  return out;
}

bool Engine::idle() const { return state_->runs.empty(); }
uint64_t Engine::clock_ns() const { return state_->clock_ns; }

}  // namespace divvy::sim
