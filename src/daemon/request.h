// What the API is asked for, as values: JSON bodies are read and checked here, completely, before
// anything is done. Also the form in which the state file keeps a tenant.
//
// Pure (no clock, no I/O). Threads: any. Errors: kInvalid, one line that names the field.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/bytes.h"
#include "src/base/percent.h"
#include "src/base/result.h"
#include "src/daemon/procfs.h"

namespace divvy::daemon {

enum class Class { kLatency, kStandard, kBatch };
const char* ToString(Class c);

// What one tenant gets of each of its devices.
struct ShareSpec {
  Bytes mem;                        // promised
  Bytes mem_max;                    // may be used while nobody else was promised it; >= mem
  Percent compute = {0};            // guaranteed; 0 = by weight alone
  Percent compute_max = {100'000};  // cap
  uint32_t weight = 0;              // for what nobody was promised; 0 = not said
  Class share_class = Class::kStandard;
  uint32_t on_full_wait_ms = 0;  // 0 = fail at once
  bool paused = false;           // by an operator: the gates are shut
};
// "4 GiB, 30 % compute (at most 50 %), latency"
std::string ToText(const ShareSpec& share);

struct TenantRequest {
  std::string name;               // "" = choose one
  std::vector<std::string> gpus;  // indices or UUIDs; empty = gpu_count of the daemon's choice
  unsigned gpu_count = 1;
  ShareSpec share;
  pid_t runner_pid = 0;  // 0 = lives until it is deleted
  std::string cgroup;    // "" = none of its own
  std::vector<std::string> command;
  bool cooperative = false;
  bool overcommit = false;
};

struct TenantPatch {
  std::optional<Bytes> mem, mem_max;
  std::optional<Percent> compute, compute_max;
  std::optional<uint32_t> weight, on_full_wait_ms;
  std::optional<Class> share_class;
  std::optional<bool> paused;
};

struct DevicePatch {
  bool cordoned = false;
  std::string reason;  // "" = none given
};

// A tenant as the state file keeps it.
struct TenantRecord {
  std::string name;
  std::vector<std::string> device_uuids;
  ShareSpec share;
  ProcessId runner;
  uid_t runner_uid = 0;
  std::string cgroup;
  std::vector<std::string> command;
  bool cooperative = false;
  bool overcommit = false;
  double created = 0;                // seconds since the epoch
  std::vector<ProcessId> processes;  // attached when the file was written
};

Result<TenantRequest> ParseTenantRequest(const std::string& body);
Result<DevicePatch> ParseDevicePatch(const std::string& body);
Result<TenantPatch> ParseTenantPatch(const std::string& body);
// {"for_ms": N}, 1 ms to one hour.
Result<uint64_t> ParseRecording(const std::string& body);
// `share` with what `patch` says; kInvalid when the two together make no sense.
Result<ShareSpec> Patched(const ShareSpec& share, const TenantPatch& patch);

nlohmann::json ToJson(const TenantRecord& record);
Result<TenantRecord> RecordFromJson(const nlohmann::json& j);

// 1 to 63 of [A-Za-z0-9._-], the first a letter or digit: it becomes a folder's name.
bool ValidName(const std::string& name);

}  // namespace divvy::daemon
