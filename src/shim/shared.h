// Memory that this process shares with others of its tenant: each is charged for it, and what is
// charged more than once counts once (region/shared_memory.h). An exporter tells in the usage
// segment which handle it has given out for which charge; who opens such a handle joins it.
// A live entry with kSharedMemory has a part there, found by its key. Any thread.
#pragma once

#include "src/region/shared_memory.h"
#include "src/shim/books.h"

namespace divvy::shim {

// Beside kRefersToRecord (physical.h) in LiveEntry::flags.
constexpr uint8_t kSharedMemory = 2;

// The 64 bytes that the driver gives out for memory, by CUDA IPC or out of a pool.
constexpr size_t kHandleBytes = 64;

// What a process of the tenant is known to export by that handle. To be looked up BEFORE the driver
// is asked to open it: only if it stands before and after is it sure to be what was opened.
struct Offer {
  uint64_t handle = 0;
  region::OpenHold open;
};
Offer LookUpOffer(const void* handle) noexcept;

// The driver gave `handle` out for the allocation at `pointer`.
void NoteExported(Family family, uint64_t pointer, const void* handle) noexcept;

// The charge for memory that was opened at `pointer`, `*units` of it by the driver; they become
// what was charged. `*shared`: its entry has a part, together with others of the tenant.
Verdict ChargeOpened(const Offer& offer, unsigned device, uint64_t* units, uint64_t pointer,
                     DriverSymbol symbol, bool* shared) noexcept;

// Before the driver is asked to free exported memory: nobody may join it any more. And if the
// driver would not.
void CloseExport(const LiveEntry& entry) noexcept;
void ReopenExport(const LiveEntry& entry) noexcept;

// The end of an entry's charge, and of its part if it has one.
void CreditEntry(const LiveEntry& entry) noexcept;
// The driver has freed it: what was under way for it has ended, too.
void CreditSharedAndEnd(const LiveEntry& entry) noexcept;
// Of its part alone; the charge goes by another way.
void ForgetShared(const LiveEntry& entry) noexcept;

// What the tenant holds of the device with this index in the policy: each piece of memory once.
uint64_t HeldBytes(const Session& s, unsigned d) noexcept;

// Another daemon's segment: this process's parts are told there. Under Process::books, once the
// charges stand.
void CarryHolds(const Session& from, Session& next) noexcept;

}  // namespace divvy::shim
