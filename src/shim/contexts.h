// Which device and which context the calling thread works on, and what a context's life costs.
// The learned figure is charged before each context is made and credited when it is gone (what it
// really takes, less or more, the daemon measures and corrects as overhead); so is what was
// allocated in it. Any thread; one cheap driver call (cuCtxGetCurrent) on the allocation path.
#pragma once

#include "src/abi/cuda.h"
#include "src/shim/books.h"

namespace divvy::shim {

struct Here {
  int device;        // local index; -1: no current context, or a device without a share
  uint32_t context;  // slot, owner of what is allocated; 0: none
};

Here CurrentPlace() noexcept;
// Of a given context; {-1, 0} if it is none.
Here PlaceOf(CUcontext context) noexcept;

// Before a context is made: charges the figure; `units` is what has to go back if it fails. Under
// way once granted (ChargeAndBegin).
Verdict ChargeContext(unsigned device, DriverSymbol symbol, uint64_t* units) noexcept;

// A context exists now; remembered under its handle with what was charged for it. Its slot; 0 if
// there is no room or the handle is known already (then the units are credited).
uint32_t AddContext(CUcontext context, int device, uint64_t units) noexcept;

// The primary context of a device: charged by the first retain, counted once. `known` tells that
// it is active and charged.
bool PrimaryKnown(unsigned device) noexcept;
void PrimaryRetained(unsigned device, CUcontext context, uint64_t units) noexcept;
// Its slot; 0: not known.
uint32_t PrimarySlot(unsigned device) noexcept;
// After it may have gone: asks the driver; if it is, credits it and all that was in it.
void PrimaryMaybeGone(unsigned device, int ordinal) noexcept;

// Around a driver call of our own on what lives in a context (its streams, our events in them) by a
// thread of which the program does not know that it uses it. False: the context is being destroyed
// or not known; no call then.
class ContextUse {
 public:
  explicit ContextUse(uint32_t slot) noexcept : users_(slot != 0 ? Enter(slot) : nullptr) {}
  ~ContextUse() {
    // Release: partner of who waits for the last one.
    if (users_ != nullptr) users_->fetch_sub(1, std::memory_order_release);
  }
  explicit operator bool() const noexcept { return users_ != nullptr; }
  ContextUse(const ContextUse&) = delete;
  ContextUse& operator=(const ContextUse&) = delete;

 private:
  static std::atomic<uint32_t>* Enter(uint32_t slot) noexcept;
  std::atomic<uint32_t>* const users_;
};
// From before the driver destroys it, or may, to where it is known whether it did: nobody enters;
// made when nobody is inside. A thread inside is in the driver for microseconds; after a second it
// goes on all the same. Several at once count: releases of a primary context may overlap. `slot`: 0
// for none.
class ContextEnding {
 public:
  explicit ContextEnding(uint32_t slot) noexcept;
  ~ContextEnding();
  ContextEnding(const ContextEnding&) = delete;
  ContextEnding& operator=(const ContextEnding&) = delete;

 private:
  std::atomic<uint32_t>* const users_;
};

// Destroying by handle, in two steps, because the driver may give the handle out again at once.
uint32_t ForgetContext(CUcontext context) noexcept;              // its slot, or 0
void RestoreContext(uint32_t slot, CUcontext context) noexcept;  // the driver said no
void ContextGone(uint32_t slot) noexcept;                        // the driver said yes

}  // namespace divvy::shim
