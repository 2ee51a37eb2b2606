// Work: what this process has in flight on the devices. Submit() puts an op into the channel and
// returns at once; the broker's timeline says when it ends; effects on memory are carried out at
// that time, in stream order, by the executor thread or by a caller that waits. Nothing here blocks
// but Finish() and a stream with 1024 ops in flight (as a full hardware queue does). Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>

#include "src/abi/cuda.h"
#include "src/sim/wire/channel.h"

namespace divvy::sim {

struct Context;
struct Stream;

struct Work {
  OpKind kind = OpKind::kInstant;  // kCompute, kCopy*, kInstant, kExternal*
  uint64_t duration_ns = 0;        // of the device; dilation is applied at submission
  uint16_t sm_permille = 1000;     // part of the device that a kernel fills
  // Carried out when the op has ended, told its end (CLOCK_MONOTONIC). Must not call the driver.
  std::function<void(uint64_t done_ns)> effect;
  bool visible = true;  // false: only calls into the driver can see the effect, so it may be late
  // kExternal*: either asked again and again from the op's start on, until true ...
  std::function<bool()> satisfied;
  // ... or called once, on the callback thread (host functions).
  std::function<void()> host;
};

// One op of a stream: everything up to and with it.
struct Ticket {
  Stream* stream = nullptr;
  uint64_t seq = 0;
};

// Puts work into a stream, after what the legacy NULL stream's rules demand. Never fails.
Ticket Submit(Stream* stream, Work work);
// The stream goes on when the ticket has ended (cuStreamWaitEvent).
void SubmitWait(Stream* stream, Ticket on);

// Whether it has ended and its effects are done.
bool HasEnded(Ticket t);
// Until it has. The sticky error of the stream's context, if it has one by then.
CUresult Finish(Ticket t);
// The last op given to a stream so far.
Ticket LastOf(Stream* stream);

// Drops everything in flight in these streams: their context has died of a fault.
void DropWork(Context* context);

// The executor's part of a stream; guarded by its lock, but for retired_seq.
struct Pending {
  uint32_t slot;
  uint64_t seq;
  Work work;
  Ticket wait;  // of a wait op
};
struct Queue {
  uint32_t number = 0;  // in the channel
  std::atomic<uint64_t> last_seq{0};
  std::atomic<uint64_t> retired_seq{0};
  std::deque<Pending> pending;
  std::deque<uint64_t> effects;    // seqs in `pending` that something outside can see
  std::deque<uint64_t> externals;  // ... whose end only this process knows, not yet released
  bool active = false;
  uint64_t null_waited_seq = 0;  // of the legacy stream: already waited for
};
uint32_t NewQueueNumber();
void EndQueue(Stream* stream);  // no more submissions; drains by itself

}  // namespace divvy::sim
