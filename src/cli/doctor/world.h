// What `divvy doctor` looks at: files below a root, the environment, limits, what NVML and the
// daemon say. ReadWorld takes the machine as it is; tests make worlds of their own, so that each
// finding can be had without the machine that has it. Reads only. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/cli/machines.h"

namespace divvy::cli::doctor {

struct NvmlDevice {
  unsigned index = 0;
  std::string name, uuid;
  int compute_mode = 0;              // nvmlComputeMode_t
  std::optional<unsigned> mig_mode;  // 1 = on; absent where there is no MIG
  bool figures_by_process = true;    // NVML has the memory of each process
};

struct NvmlFacts {
  std::string driver_version;
  int cuda_version = 0;  // 13000 = 13.0
  bool confidential = false;
  std::vector<NvmlDevice> devices;
};

struct DaemonFacts {
  std::string dir;  // its runtime folder
  bool dir_exists = false, dir_foreign = false, dir_writable = false, dir_too_long = false;
  uint64_t dir_free_bytes = 0;
  bool socket_exists = false, answers = false;
  size_t tenants_left = 0;  // in the state file of a daemon that is gone
  bool left_private = false;
  nlohmann::json status, tenants, devices;  // null: not asked, or no answer
  std::string error;                        // why not
};

struct World {
  std::string root;  // before every path; "" = the machine's own
  bool sim = false;  // a simulated machine: what only a real driver has is not looked for
  std::map<std::string, std::string> env;
  unsigned uid = 0;
  std::vector<unsigned> groups;
  uint64_t open_files = 0, locked_memory = 0;  // RLIMIT_NOFILE (hard), RLIMIT_MEMLOCK (soft)
  std::string kernel;                          // "6.1.0-18-amd64"
  bool can_isolate = false, can_cgroup = false;
  std::string version;                                // of this divvy
  std::string missing_file;                           // of the installation; "" = complete
  std::vector<std::string> cuda_copies, nvml_copies;  // in the loader's order, without the root
  std::optional<Result<NvmlFacts>> nvml;              // absent: there is no library to ask
  std::optional<int> cuda_init;  // cuInit's answer; absent: not asked; -1: it did not come back
  DaemonFacts daemon;

  bool Exists(const std::string& path) const;
  std::string Text(const std::string& path) const;                  // a small file; "" = none
  std::vector<std::string> Names(const std::string& folder) const;  // sorted
  bool IsSocket(const std::string& path) const;
  bool MayReadAndWrite(const std::string& path) const;  // by owner, group and mode
  std::string Env(const std::string& name) const;       // "" = not set
};

// The machine as it is. Starts nothing but the simulated machine that `sim` names.
Result<World> ReadWorld(const std::string& sim);

// NVML, loaded from `library`; `device::OpenNvml` asks what shares need, this what else matters.
Result<NvmlFacts> ReadNvml(const std::string& library);

}  // namespace divvy::cli::doctor
