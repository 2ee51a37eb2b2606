// What the attack programs share: the driver found in one way or another, memory taken until the
// driver refuses, and the report to the suite.
//
// A program tries ONE way around its share, keeps what it got, prints one line of JSON
//   {"held": BYTES, "last": CODE, "breached": false, "note": "..."}
// and stays until its standard input ends, so that the suite can look from outside meanwhile.
// Nothing here knows the shim; the types are those of the driver's ABI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "src/abi/cuda.h"
#include "src/abi/generated/driver_fns.h"

namespace attack {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kGiB = size_t{1} << 30;
constexpr size_t kWanted = 5 * kGiB;  // every share in the suite is smaller

// Answers with the address of a driver function, or nullptr.
using Finder = std::function<void*(const char*)>;

// The driver's functions, each found by `find`; those not found answer CUDA_ERROR_NOT_FOUND.
divvy::abi::DriverFns Driver(const Finder& find);

// The usual way: dlopen("libcuda.so.1"), then dlsym.
Finder ByName();
// The symbol table of one loaded object, read by hand: nobody's dlsym is asked. `accept` chooses
// among the loaded objects by path.
Finder BySymbolTable(const std::function<bool(const std::string& path)>& accept);
// The loaded object that is the driver itself: defines cuMemAlloc_v2, and is neither the shim nor
// the forwarder in front of it.
bool IsDriverObject(const std::string& path);

// The real driver's file as an attacker can find it: in the namespace's private folder, else in
// LD_LIBRARY_PATH or where the loader has mapped it.
std::string DriverFile();

struct Holding {
  size_t held = 0;
  int last = 0;           // the last code that the driver gave
  bool breached = false;  // got at something that is not memory
  std::string note;
};

// cuInit, the device's primary context, made current.
CUresult Enter(const divvy::abi::DriverFns& cu, CUdevice device = 0);

// Calls `take(bytes)` with falling sizes until it is refused at the smallest or enough is held.
Holding TakeAll(const std::function<CUresult(size_t bytes)>& take, size_t first = 256 * kMiB,
                size_t smallest = 2 * kMiB);
// Linear memory, as much as there is.
Holding TakeLinear(const divvy::abi::DriverFns& cu);
// Enter and TakeLinear.
Holding EnterAndTake(const divvy::abi::DriverFns& cu, CUdevice device = 0);

// Prints the report, waits for the end of standard input, and returns the program's exit status.
int Report(const Holding& holding);
void WaitForEnd();

// What a program must keep of its environment to reach a (simulated) driver at all. A real machine
// needs nothing.
std::vector<std::string> MachineEnvironment();
// Replaces this process by `program` beside this one (build/test/attacks), with only `environment`.
[[noreturn]] void Exec(const std::string& program, const std::vector<std::string>& arguments,
                       const std::vector<std::string>& environment);
std::string Beside(const std::string& program);

// The mapping of the tenant's segment that is this large, if the shim has one.
struct Mapping {
  uintptr_t start = 0, end = 0;
  std::string range;  // as /proc/self/map_files names it
  bool writable = false;
};
std::vector<Mapping> SegmentMappings();

// Runs `body` in `count` forked children; the sum of what they report. They hold until the parent
// has reported and its input ended.
Holding InChildren(unsigned count, const std::function<Holding(unsigned index)>& body);

}  // namespace attack
