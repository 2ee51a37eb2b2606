// A driver of a few hundred lines for the shim's unit tests: devices, contexts, linear and managed
// memory, arrays, VMM handles, pools. It books what it hands out exactly, so that a test can
// compare the share's books with it, and fails any call on demand. Not the simulator: no time, no
// processes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "src/abi/generated/driver_fns.h"

namespace divvy::shim::testing {

struct FakePool {
  uint64_t reserved = 0, used = 0, pending = 0;
  uint64_t step = 32 << 20;  // reserves in multiples of this
  bool keeps = false;        // an infinite release threshold
  bool frees_complete_at_once = false;
};

struct FakePhysical {
  uint64_t bytes = 0;
  unsigned handles = 0, mappings = 0;
};

struct FakeDriver {
  unsigned devices = 1;  // UUID of device i: sixteen bytes of i + 1
  bool initialised = false;
  std::string visible;  // CUDA_VISIBLE_DEVICES as cuInit found it
  uint64_t total_bytes = uint64_t{80} << 30;
  uint64_t used_bytes = 0;

  CUcontext current = nullptr;
  std::map<CUcontext, int> contexts;
  std::map<uint64_t, uint64_t> linear;  // pointer -> bytes
  std::map<uint64_t, uint64_t> arrays;
  std::map<uint64_t, FakePhysical> physical;                 // by handle
  std::map<uint64_t, std::pair<uint64_t, uint64_t>> mapped;  // address -> handle, bytes
  std::map<CUmemoryPool, FakePool> pools;
  std::map<uint64_t, std::pair<CUmemoryPool, uint64_t>> pooled;  // pointer -> pool, bytes
  int primary_refs = 0;
  std::map<int, size_t> limits;  // cuCtxSetLimit, of all contexts; stacks in multiples of 512
  int processors = 100, threads = 1024;
  unsigned exchanges = 0;               // capture mode exchanges that are open
  unsigned pool_queries_unguarded = 0;  // made outside such an exchange
  unsigned calls = 0;

  // Called in the middle of each call that may be made to fail, with its name.
  std::function<void(const std::string&)> during;

  // The code that the next call of that name returns without doing anything.
  std::map<std::string, CUresult> fail;

  uint64_t next = 0x700000000000;
};

FakeDriver& Fake();

// A fresh fake driver, bound as the shim's real one. `devices` as above.
void InstallFakeDriver(unsigned devices = 1);

CUmemoryPool DefaultPool(int device);
CUcontext MakeCurrentContext(int device = 0);  // through the shim's hook

}  // namespace divvy::shim::testing
