// User objects: reference-counted things of the program that graphs keep alive (CUDA C++
// Programming Guide, "CUDA User Objects"). Their destructors run on one internal thread. The graph
// lock is held
//
// for all calls but RunOnGraphThread.
#pragma once

#include <functional>

#include "src/abi/cuda.h"

namespace divvy::sim {

struct UserObject {
  void* data;
  CUhostFn destroy;
  unsigned references;
};

void RetainUserObject(UserObject* object, unsigned count);
// Hands the destructor to the internal thread when no reference is left.
void ReleaseUserObject(UserObject* object, unsigned count);

// Runs `job` on the internal thread, after those before it.
void RunOnGraphThread(std::function<void()> job);

}  // namespace divvy::sim
