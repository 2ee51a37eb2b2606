// A client's channel: one memfd shared by a client process and the broker's timeline. Work goes out
// as ops in slots; the timeline writes back when each starts and ends. Layout:
//   Channel { control words | ring of slot numbers | OpSlot[kOpSlots] }
// Who may touch a slot: the client while it is free; both, each its own words, from the moment its
// number is in the ring until `state` is kOpCommitted (or kOpDropped); then the client again.
// done_ns is a prediction that holds once CLOCK_MONOTONIC has passed it: the timeline may move it
// later while it lies ahead, never once it has passed. All times are real (already dilated) ns.
#pragma once

#include <atomic>
#include <cstdint>

namespace divvy::sim {

inline constexpr uint32_t kOpSlots = 8192;
inline constexpr uint64_t kNever = UINT64_MAX;

enum class OpKind : uint8_t {
  kCompute = 0,  // takes SM capacity for duration_ns
  kCopyH2D = 1,  // takes a copy engine for duration_ns
  kCopyD2H = 2,
  kInstant = 3,          // event records, memory writes: ends when it is reached
  kWaitOp = 4,           // ends when stream wait_stream has ended op wait_seq
  kExternal = 5,         // ends when the client sets released_ns (host function, wait-value)
  kExternalCompute = 6,  // the same, holding SM capacity and time slices meanwhile
  kStreamEnd = 7,        // control: the stream goes away once drained
  kAbort = 8,            // control: drop every op of streams [stream, wait_stream] not ended yet
};

enum OpState : uint32_t { kOpFree = 0, kOpSubmitted = 1, kOpCommitted = 2, kOpDropped = 3 };

struct alignas(128) OpSlot {
  // The client writes these before it publishes the slot.
  OpKind kind;
  uint8_t device;
  uint16_t sm_permille;  // part of the device a kernel fills, 1..1000
  int32_t priority;      // of the stream, lower is more urgent
  uint32_t stream;       // client-wide stream number, > 0
  uint32_t wait_stream;
  uint64_t seq;  // 1, 2, ... in its stream
  uint64_t wait_seq;
  uint64_t duration_ns;
  uint64_t submit_ns;
  // The timeline writes these; kNever until known.
  alignas(64) std::atomic<uint64_t> start_ns;
  std::atomic<uint64_t> done_ns;
  std::atomic<uint32_t> state;
  std::atomic<uint32_t> wants_news;  // client: 1 = bump `news` when start_ns or done_ns is known
  uint32_t plan;                     // the timeline's own
  // The client writes this: when an external op was satisfied.
  std::atomic<uint64_t> released_ns;
};

struct Channel {
  alignas(64) std::atomic<uint64_t> head;  // client: next ring place to fill
  alignas(64) std::atomic<uint64_t> tail;  // timeline: next ring place to read
  alignas(64) std::atomic<uint32_t> news;  // futex: the timeline published something waited for
  std::atomic<uint32_t> releases;          // client: bumped with each released_ns
  alignas(64) uint32_t ring[kOpSlots];
  OpSlot slot[kOpSlots];
};

}  // namespace divvy::sim
