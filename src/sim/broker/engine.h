// Engine: the simulated devices' time as a discrete-event model. Pure: no clock, thread or I/O; the
// timeline feeds submissions and asks it to run up to a time. All of a machine's devices and
// processes are in one engine, so that waits across devices need nothing special.
//
// Rules. A stream's ops run in order. Kernels of one process share its turn on a device while their
// parts of the SMs fit (a kernel that has started is never slowed by another). Processes take
// turns: a slice each, round robin, and at once when the one whose turn it is has nothing to run.
// What takes no time (event records, values written) is done in its process' turn too, as a channel
// is read only then; a turn costs a switch from the first kernel on. A lone process is never
// switched out; a newcomer waits for the end of the slice that runs. Copies run beside kernels, one
// per direction and device, and with them what takes no time and directly follows one.
//
// Commit() makes the past final. Predict() runs a copy of the state ahead, supposing that nothing
// more is submitted; what it says about ops may change until committed.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "src/sim/wire/channel.h"
#include "src/sim/wire/profile.h"

namespace divvy::sim {

struct EngineConfig {
  uint32_t devices = 1;
  uint64_t slice_ns = 1'000'000;
  uint64_t switch_ns = 60'000;
  uint64_t launch_ns = 1'000;
};

struct EngineOp {
  OpKind kind = OpKind::kInstant;
  uint8_t device = 0;
  uint16_t sm_permille = 1000;
  int32_t priority = 0;
  uint32_t wait_stream = 0;
  uint64_t seq = 0;
  uint64_t wait_seq = 0;
  uint64_t duration_ns = 0;
  uint64_t submit_ns = 0;
  uint64_t released_ns = kNever;  // external ops: when the client let them go
  OpSlot* slot = nullptr;         // the listener's
  void* owner = nullptr;          // the listener's
};

// What happens to ops. Called by Commit with final = true, once per op and event, in the order of
// time; by Predict with final = false.
class EngineListener {
 public:
  virtual ~EngineListener() = default;
  virtual void Started(EngineOp& op, uint64_t at_ns, bool final) = 0;
  virtual void Ended(EngineOp& op, uint64_t at_ns, bool final) = 0;
  virtual void Dropped(EngineOp& op) = 0;  // by Abort or RemoveProcess
  // Final only: a stretch of device time in which a process' kernels (or a copy) ran.
  virtual void Busy(uint32_t device, uint32_t process, uint64_t from_ns, uint64_t to_ns) = 0;
  virtual void CopyBusy(uint32_t device, uint64_t from_ns, uint64_t to_ns) = 0;
};

class Engine {
 public:
  Engine(const EngineConfig& config, EngineListener* listener);
  ~Engine();

  // Appends an op to a stream of a process; the stream comes to be with its first op.
  void Submit(uint32_t process, uint32_t stream, const EngineOp& op);
  // An external op that has started was satisfied; false when it is not known (yet).
  bool Release(uint32_t process, uint32_t stream, uint64_t seq, uint64_t at_ns);
  // Ops of streams [first, last] of the process that have not ended vanish.
  void Abort(uint32_t process, uint32_t first, uint32_t last);
  void RemoveProcess(uint32_t process);
  // The stream is forgotten once it has drained.
  void EndStream(uint32_t process, uint32_t stream);

  void Commit(uint64_t to_ns);
  struct Outlook {
    uint64_t known_ns = 0;     // everything up to here was told to the listener
    uint64_t dry_ns = kNever;  // when the first stream (of those dry after `busy_ns`) runs dry
  };
  // At most `max_events` instants ahead and not beyond to_ns.
  Outlook Predict(uint64_t to_ns, uint64_t busy_ns, uint32_t max_events);

  bool idle() const;  // no op is waiting or running
  uint64_t clock_ns() const;

 private:
  struct Stream;
  struct Run;
  struct DeviceState;
  struct State;
  class Walk;

  EngineConfig config_;
  EngineListener* listener_;
  std::map<std::pair<uint32_t, uint32_t>, std::unique_ptr<Stream>> streams_;
  std::unique_ptr<State> state_;
  // By device: the ends of what the listener was told of.
  struct Accounted {
    uint64_t busy_ns = 0, copy_ns = 0;
  };
  std::vector<Accounted> accounted_;
};

}  // namespace divvy::sim
