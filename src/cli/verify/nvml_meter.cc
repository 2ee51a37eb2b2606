#include "src/cli/verify/nvml_meter.h"

#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "src/base/paths.h"
#include "src/device/nvml.h"

namespace divvy::cli {
namespace {

constexpr timespec kBetween{0, 50'000'000};
constexpr int kStillReadings = 5;  // 250 ms without a change
constexpr int kMostReadings = 60;

pid_t ParentOf(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(stat, line);
  const size_t name_end = line.rfind(')');  // the name itself may hold anything
  if (name_end == std::string::npos || name_end + 4 >= line.size()) return 0;
  return std::atoi(line.c_str() + name_end + 4);
}

bool Descends(pid_t pid, pid_t root) {
  for (int depth = 0; pid > 1 && depth < 64; ++depth, pid = ParentOf(pid))
    if (pid == root) return true;
  return false;
}

}  // namespace

Result<NvmlMeter> NvmlMeter::Open(const std::string& sim_dir, const std::string& uuid) {
  if (!sim_dir.empty()) ::setenv("DIVVY_SIM_DIR", sim_dir.c_str(), 1);
  auto source = device::OpenNvml(sim_dir.empty() ? "libnvidia-ml.so.1"
                                                 : paths::SimLibDir() + "/libnvidia-ml.so.1");
  if (!source.ok()) return source.error();
  NvmlMeter meter;
  meter.source_ = std::move(*source);
  for (const device::Info& info : meter.source_->devices()) {
    if (device::ToString(info.uuid) != uuid) continue;
    meter.index_ = info.index;
    const auto reading = meter.source_->Read(info.index);
    if (!reading.ok()) return reading.error();
    if (!reading->lists_processes)
      return Unavailable("NVML gives no memory figures per process on " + info.name +
                         ", so nothing independent can be measured");
    return meter;
  }
  return NotFound("NVML has no device " + uuid);
}

Result<Bytes> NvmlMeter::Once(pid_t root) {
  const auto reading = source_->Read(index_);
  if (!reading.ok()) return reading.error();
  Bytes sum;
  for (const device::ProcessMemory& process : reading->processes)
    if (process.used && Descends(process.pid, root)) sum += *process.used;
  return sum;
}

Result<Bytes> NvmlMeter::Settled(pid_t root) {
  Bytes most, last;
  for (int reading = 0, still = 0; reading < kMostReadings && still < kStillReadings; ++reading) {
    const Result<Bytes> now = Once(root);
    if (!now.ok()) return now;
    still = *now == last ? still + 1 : 0;
    last = *now;
    most = std::max(most, last);
    ::nanosleep(&kBetween, nullptr);
  }
  return most;
}

Result<NvmlMeter::Device> NvmlMeter::Look() {
  const auto reading = source_->Read(index_);
  if (!reading.ok()) return reading.error();
  return Device{source_->devices()[index_].name, reading->total, reading->free};
}

}  // namespace divvy::cli
