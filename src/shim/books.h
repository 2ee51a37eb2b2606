// Charging this process's share before memory is taken, crediting when it is given back, and
// telling the daemon about refusals. On top of region/books.h: picks the limit that holds now,
// serialises this process's threads, waits for room when the tenant asked for that.
// Any thread; no allocation; never calls the driver except through Process::reclaim.
#pragma once

#include "src/abi/generated/driver_fns.h"
#include "src/region/layout.h"
#include "src/shim/process.h"

namespace divvy::shim {

using abi::DriverSymbol;
using region::Kind;

enum class Verdict : uint8_t {
  kGranted,
  kOutOfShare,  // over the limit
  kDeviceFull,  // within the limit, but the device has not that much left
  kNoShare,     // the share of this device was taken away
  kNotReady,    // no region, or the books cannot be reached
};

// What the driver would answer.
constexpr CUresult CodeOf(Verdict v) {
  switch (v) {
    case Verdict::kGranted:
      return CUDA_SUCCESS;
    case Verdict::kOutOfShare:
    case Verdict::kDeviceFull:
      return CUDA_ERROR_OUT_OF_MEMORY;
    case Verdict::kNoShare:
      return CUDA_ERROR_INVALID_DEVICE;
    case Verdict::kNotReady:
      return CUDA_ERROR_SYSTEM_NOT_READY;
  }
  return CUDA_ERROR_SYSTEM_NOT_READY;
}

// Books `units` on a device (local index). On refusal: unused pool memory of this process is given
// back and the charge tried again; then, if the tenant said --on-full wait, room is waited for;
// then one event is written. Nothing is booked unless kGranted.
Verdict Charge(unsigned device, uint64_t units, Kind kind, DriverSymbol symbol) noexcept;

// The same before the driver is asked for the memory: once granted it is under way
// (region::UnderWay) until End or CreditAndEnd.
Verdict ChargeAndBegin(unsigned device, uint64_t units, Kind kind, DriverSymbol symbol) noexcept;

// Once, without reclaiming, waiting or event: for corrections after the fact.
Verdict TryCharge(unsigned device, uint64_t units, Kind kind) noexcept;

void Credit(unsigned device, uint64_t units, Kind kind) noexcept;
// And what was under way for it has ended: a free that the driver has done, an allocation refused.
void CreditAndEnd(unsigned device, uint64_t units, Kind kind) noexcept;

// Something is under way from here: the driver is about to give memory back that stays charged
// until it has. False: nothing to tell it to (no region); then there is no End.
inline bool Begin() noexcept {
  region::U64* const answered = g_process.answered.load(std::memory_order_relaxed);
  if (__builtin_expect(answered == nullptr, 0)) return false;
  answered->fetch_sub(1, std::memory_order_release);
  return true;
}
// Release: partner of the daemon's acquire.
inline void End() noexcept {
  region::U64* const answered = g_process.answered.load(std::memory_order_relaxed);
  if (__builtin_expect(answered != nullptr, 1)) answered->fetch_add(1, std::memory_order_release);
}
// From here to the end of its block.
class Moving {
 public:
  Moving() noexcept : begun_(Begin()) {}
  explicit Moving(bool begun) noexcept : begun_(begun) {}  // by a charge
  ~Moving() {
    if (begun_) End();
  }
  Moving(const Moving&) = delete;
  Moving& operator=(const Moving&) = delete;

 private:
  const bool begun_;
};

// What the tenant sees of a device. False: no share, or no region.
struct Figures {
  uint64_t limit_bytes;
  uint64_t used_bytes;  // charges and the driver's overhead
  uint64_t free_bytes;  // never more than the device really has
};
bool Look(unsigned device, Figures* out) noexcept;

// One line for the daemon's event list. `device` may be kNoDevice.
constexpr unsigned kNoDevice = 0xff;
void Report(region::EventCause cause, unsigned device, uint64_t bytes,
            DriverSymbol symbol) noexcept;

}  // namespace divvy::shim
