// Modules, libraries, functions and kernels: names in an image, what they do here, and the layout
// of their parameters.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "src/sim/client/context.h"
#include "src/sim/client/node.h"

namespace divvy::sim {

// What a kernel does on the simulated device; by its (demangled) base name.
enum class KernelKind {
  kTimed,      // nothing, for DIVVY_SIM_KERNEL_NS (5 us)
  kSpin,       // u64 ns: takes that long
  kWaitValue,  // u64 devptr, u32 value: ends when the word is equal
  kStore,      // u64 devptr, u32 value: writes the word at its end
  kFault,      // CUDA_ERROR_ILLEGAL_ADDRESS, for good
  kHost,       // a function simk_<name> in the program
};

struct Param {
  size_t offset, bytes;
};

// One kernel of an image; shared by the functions made of it in several contexts.
struct KernelInfo {
  std::string name;
  KernelKind kind = KernelKind::kTimed;
  std::vector<Param> params;
  bool params_known = false;
  void (*host)(struct SimLaunch*) = nullptr;
};

// What an image holds, as far as it can be told: PTX text and ELF are read, of a compressed fatbin
// every name is believed.
struct Image {
  std::map<std::string, std::shared_ptr<KernelInfo>> kernels;
  std::map<std::string, size_t> globals;  // bytes
  bool open = false;                      // any name exists
  size_t bytes = 0;
};
std::shared_ptr<Image> ReadImage(const void* image);
std::shared_ptr<KernelInfo> FindKernel(Image* image, const std::string& name);

struct Module;
struct Library;

// CUfunction, and (with library set, context null) CUkernel.
struct Function {
  static constexpr uint64_t kLive = 0x46554E43ull;
  uint64_t magic = kLive;
  std::shared_ptr<KernelInfo> info;
  Module* module = nullptr;
  Library* library = nullptr;
  int attribute[CU_FUNC_ATTRIBUTE_MAX] = {};
};
// The function that a handle means; a CUkernel handle is accepted where the API does (null:
// invalid).
Function* FunctionOf(CUfunction handle);

// Passed to a function simk_<name> registered in the program.
struct SimLaunch {
  const char* name;
  unsigned grid[3], block[3];
  unsigned shared_bytes;
  void** args;             // one pointer per parameter, or null when the layout is not known
  const void* arg_buffer;  // packed parameters
  size_t arg_bytes;
  uint64_t duration_ns;  // in: the default; may be set by a call with phase 0
  int phase;             // 0: at submission (may set duration_ns), 1: at the kernel's end
};

}  // namespace divvy::sim
