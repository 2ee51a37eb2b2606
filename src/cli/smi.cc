// divvy smi: what NVML says to this process, in nvidia-smi's manner: inside of a share the share,
// outside of it the devices. It asks public calls only, so it works where nvidia-smi's table of
// processes, which comes by a private way, does not.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "src/base/paths.h"
#include "src/cli/app.h"
#include "src/cli/delivery/delivery.h"
#include "src/cli/machines.h"
#include "src/cli/nvml_library.h"
#include "src/cli/table.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct SmiOptions {
  Format format = Format::kText;
  std::string sim;
  bool list = false;
};

constexpr unsigned kMostProcesses = 1024;
constexpr unsigned long long kNoFigure = ~0ull;  // NVML_VALUE_NOT_AVAILABLE

std::string CommandOf(unsigned pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline");
  std::string text;
  for (std::string word; std::getline(file, word, '\0');) text += (text.empty() ? "" : " ") + word;
  return text;
}

json Processes(const NvmlLibrary& nvml, nvmlDevice_t device) {
  json list = json::array();
  std::vector<nvmlProcessInfo_v2_t> rows(kMostProcesses);
  for (const auto& [call, type] :
       {std::pair{"nvmlDeviceGetComputeRunningProcesses_v2", "compute"},
        std::pair{"nvmlDeviceGetGraphicsRunningProcesses_v2", "graphics"},
        std::pair{"nvmlDeviceGetMPSComputeRunningProcesses_v2", "mps"}}) {
    unsigned count = kMostProcesses;
    if (nvml.Call(call, device, &count, rows.data()) != NVML_SUCCESS) continue;
    for (unsigned i = 0; i < count && i < kMostProcesses; ++i) {
      std::string command = CommandOf(rows[i].pid);
      if (command.empty()) command = nvml.Text("nvmlSystemGetProcessName", rows[i].pid);
      list.push_back({{"pid", rows[i].pid},
                      {"type", type},
                      {"command", command},
                      {"used_bytes",
                       rows[i].usedGpuMemory == kNoFigure ? json() : json(rows[i].usedGpuMemory)}});
    }
  }
  return list;
}

json DeviceOf(const NvmlLibrary& nvml, unsigned index, nvmlDevice_t device) {
  json one{{"index", index},
           {"name", nvml.Text("nvmlDeviceGetName", device)},
           {"uuid", nvml.Text("nvmlDeviceGetUUID", device)}};
  nvmlMemory_t memory{};
  if (nvml.Call("nvmlDeviceGetMemoryInfo", device, &memory) == NVML_SUCCESS)
    one.update(
        {{"total_bytes", memory.total}, {"used_bytes", memory.used}, {"free_bytes", memory.free}});
  nvmlUtilization_t use{};
  one["utilization_percent"] =
      nvml.Call("nvmlDeviceGetUtilizationRates", device, &use) == NVML_SUCCESS ? json(use.gpu)
                                                                               : json();
  unsigned celsius = 0, milliwatts = 0;
  if (nvml.Call("nvmlDeviceGetTemperature", device, 0u, &celsius) == NVML_SUCCESS)
    one["temperature_c"] = celsius;
  if (nvml.Call("nvmlDeviceGetPowerUsage", device, &milliwatts) == NVML_SUCCESS)
    one["power_w"] = milliwatts / 1000.0;
  one["processes"] = Processes(nvml, device);
  return one;
}

std::string Percent(const json& value) {
  return value.is_null() ? "-" : std::to_string(value.get<unsigned>()) + " %";
}

void PrintText(const json& report) {
  const std::string share = report.value("share", "");
  std::printf("driver %s, CUDA %s%s\n", report.value("driver_version", "").c_str(),
              report.value("cuda_version", "").c_str(),
              share.empty() ? "" : (", in the share '" + share + "'").c_str());
  Table devices({"GPU", "NAME", share.empty() ? "MEMORY USED / TOTAL" : "MEMORY USED / SHARE",
                 share.empty() ? "BUSY" : "BUSY (OF SHARE)", "TEMP", "POWER"});
  Table processes({"GPU", "PID", "TYPE", "MEMORY", "COMMAND"});
  size_t count = 0;
  for (const json& d : report["devices"]) {
    const std::string index = std::to_string(d.value("index", 0u));
    devices.Add({index, d.value("name", ""),
                 Amount(d.value("used_bytes", uint64_t{0})) + " / " +
                     Amount(d.value("total_bytes", uint64_t{0})),
                 Percent(d["utilization_percent"]),
                 d.contains("temperature_c")
                     ? std::to_string(d["temperature_c"].get<unsigned>()) + " C"
                     : "-",
                 d.contains("power_w")
                     ? std::to_string(static_cast<unsigned>(d["power_w"].get<double>())) + " W"
                     : "-"});
    for (const json& p : d["processes"]) {
      ++count;
      processes.Add({index, std::to_string(p.value("pid", 0u)), p.value("type", ""),
                     p["used_bytes"].is_null() ? "-" : Amount(p["used_bytes"].get<uint64_t>()),
                     Shortened(p.value("command", ""), 60)});
    }
  }
  std::fputs(devices.ToString().c_str(), stdout);
  std::fputs(count == 0 ? "no processes\n" : ("\n" + processes.ToString()).c_str(), stdout);
}

void Smi(const SmiOptions& options) {
  const std::string share = OwnTenant();
  std::string library = "libnvidia-ml.so.1";
  if (!options.sim.empty()) {
    const Machine machine = MachineOf(options.sim);
    OrFail(EnsureDaemon(machine));
    ::setenv("DIVVY_SIM_DIR", paths::SimDir(machine.dir).c_str(), 1);
    library = paths::SimLibDir() + "/libnvidia-ml.so.1";
  }
  const NvmlLibrary nvml(library);
  if (!nvml)
    Fail(Unavailable("no NVIDIA driver here (" + library +
                     " cannot be loaded); `divvy doctor` says more"));
  if (const nvmlReturn_t r = nvml.Call("nvmlInit_v2"); r != NVML_SUCCESS)
    Fail(Unavailable("nvmlInit: " + nvml.TextOf(r) + "; `divvy doctor` says more"));
  int cuda = 0;
  nvml.Call("nvmlSystemGetCudaDriverVersion_v2", &cuda);
  json devices = json::array();
  unsigned count = 0;
  if (const nvmlReturn_t r = nvml.Call("nvmlDeviceGetCount_v2", &count); r != NVML_SUCCESS)
    Fail(Unavailable("nvmlDeviceGetCount: " + nvml.TextOf(r)));
  for (unsigned i = 0; i < count; ++i) {
    nvmlDevice_t device = nullptr;
    if (nvml.Call("nvmlDeviceGetHandleByIndex_v2", i, &device) == NVML_SUCCESS)
      devices.push_back(DeviceOf(nvml, i, device));
  }
  const json report{
      {"share", share},
      {"driver_version", nvml.Text("nvmlSystemGetDriverVersion")},
      {"cuda_version", std::to_string(cuda / 1000) + "." + std::to_string(cuda % 1000 / 10)},
      {"devices", devices}};
  nvml.Call("nvmlShutdown");
  if (options.format == Format::kJson)
    PrintJson(report);
  else if (options.list)
    for (const json& d : devices)
      std::printf("GPU %u: %s (UUID: %s)\n", d.value("index", 0u), d.value("name", "").c_str(),
                  d.value("uuid", "").c_str());
  else
    PrintText(report);
}

}  // namespace

void AddSmi(CLI::App& app) {
  auto options = std::make_shared<SmiOptions>();
  auto* verb = app.add_subcommand(
      "smi",
      "the GPU as programs here see it: inside of a share, the share\n\n"
      "Memory, how busy, processes, by NVML's public calls. Inside of a share: of the share, with\n"
      "the share's own processes and their pids as they are there; it needs no daemon in sight.\n"
      "Outside: the devices, with all processes; `divvy ps` shows the shares.\n\n"
      "  divvy run --mem 4GiB -- divvy smi\n"
      "  divvy smi -L                 one line for each device, as nvidia-smi -L");
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim);
  verb->add_flag("-L,--list-gpus", options->list, "names and UUIDs only");
  verb->callback([options] { Smi(*options); });
}

}  // namespace divvy::cli
