// What `divvy top` knows: the devices and shares of every machine, as the API's JSON has them.
//
// Pure. Names and command lines are made fit for a terminal here: what is not printable ASCII
// becomes '?', so that one byte is one column from here on.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace divvy::cli::top {

struct ProcessRow {
  int pid = 0;
  std::string command, state;
  uint64_t used_bytes = 0;
};

struct DeviceRow {
  std::string machine, uuid, name, health, cordon;
  unsigned index = 0;
  uint64_t total_bytes = 0, used_bytes = 0, promised_bytes = 0, outside_bytes = 0;
  double promised_percent = 0;         // compute
  std::optional<double> used_percent;  // compute, of the metered tenants in the last second
  unsigned tenants = 0;
  std::vector<ProcessRow> outside;
};

// One tenant's share of one device.
struct ShareRow {
  std::string machine, tenant, uuid, share_class, state, command;
  unsigned index = 0;
  uint64_t used_bytes = 0, limit_bytes = 0;
  bool metered = false, paused = false, over = false;
  // Percent of the device; nothing where it is not metered.
  std::optional<double> got_1s, got_60s, wanted_1s, wanted_60s;
  double guaranteed = 0, cap = 100, part = 0;
  double wait_percent = 0;  // threads that wait at the gate, times 100
  uint64_t refusals = 0;
  unsigned process_count = 0;
  std::vector<ProcessRow> processes;  // of the tenant, on its first share's row only
};

struct Model {
  std::vector<DeviceRow> devices;
  std::vector<ShareRow> shares;
};

// Adds what one machine's /v1/devices and /v1/tenants say. Fields that are missing or of another
// type are left at their defaults: nothing throws.
void AddMachine(const std::string& machine, const nlohmann::json& devices,
                const nlohmann::json& tenants, Model& model);

std::string Printable(const std::string& text);

}  // namespace divvy::cli::top
