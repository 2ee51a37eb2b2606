// Context: one CUDA context of this process, primary or not, and the thread's stack of them. A
// context costs device memory, owns allocations and streams, and dies of its own sticky error.
#pragma once

#include <atomic>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "src/sim/client/device.h"

namespace divvy::sim {

struct Stream;

struct Module;
struct Stream;

struct Context {
  static constexpr uint64_t kLive = 0x43544C495645ull;

  uint64_t magic = kLive;
  Device* device = nullptr;
  bool primary = false;
  std::atomic<bool> destroyed{false};
  unsigned flags = 0;
  unsigned api_version = 0;
  uint64_t id = 0;
  uint64_t booked_bytes = 0;
  // A fault's code once one has happened; every later call in this context returns it.
  std::atomic<int> sticky{CUDA_SUCCESS};
  uint64_t limit[CU_LIMIT_MAX] = {};
  Stream* legacy = nullptr;  // the NULL stream

  std::mutex mu;                             // guards what follows
  Suballocator small;                        // allocations under one block share blocks
  std::unordered_set<uint64_t> allocations;  // bases of ranges in the address map
  std::vector<Module*> modules;
  std::unordered_map<uint64_t, uint64_t> array_memory;  // offset to block bytes (0: shared block)

  CUcontext handle() { return reinterpret_cast<CUcontext>(this); }
  // Null unless the handle is of a context that was made here; destroyed ones stay recognisable.
  static Context* From(CUcontext handle);
};

// The prologue of nearly every driver call: initialised, a current context, no sticky error.
CUresult Enter(Context** context);

// Makes and frees contexts; thread-safe.
CUresult MakeContext(Device* device, unsigned flags, bool primary, Context** out);
void DestroyContext(Context* context);

// Hooks that other files hang on a context's life. Called with no lock held.
void ReleaseContextMemory(Context* context);   // memory.cc: allocations it owns
void ReleaseContextModules(Context* context);  // module.cc: their code and globals
void ReleaseContextStreams(Context* context);  // stream.cc: streams and pending work

}  // namespace divvy::sim
