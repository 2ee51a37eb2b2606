// The driver: its module, device nodes, libraries and modes.
#include <algorithm>

#include "src/abi/cuda.h"
#include "src/abi/nvml.h"
#include "src/cli/doctor/checks.h"

namespace divvy::cli::doctor {
namespace {

constexpr char kModule[] = "/proc/driver/nvidia/version";

void Say(std::vector<Finding>& out, const char* check, Level level, std::string message,
         std::string advice = "", std::string command = "") {
  out.push_back({check, level, std::move(message), std::move(advice), std::move(command)});
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue ..." -> "580.95.05".
std::string VersionIn(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(" \t\n", at), text.size());
    const std::string word = text.substr(at, end - at);
    const auto dots = std::count(word.begin(), word.end(), '.');
    if (dots >= 1 && word.find_first_not_of("0123456789.") == std::string::npos) return word;
    at = end + 1;
  }
  return "";
}

// "…/libcuda.so.580.95.05" -> "580.95.05"; "" where the name does not say.
std::string VersionOfFile(const std::string& path) {
  const size_t so = path.rfind(".so.");
  const std::string version = so == std::string::npos ? "" : path.substr(so + 4);
  return version.find('.') == std::string::npos ? "" : version;
}

bool IsStub(const std::string& path) { return path.find("/stubs/") != std::string::npos; }

std::string Gpu(const NvmlDevice& device) {
  return "GPU " + std::to_string(device.index) + " (" + device.name + ")";
}

const NvmlFacts* Facts(const World& world) {
  return world.nvml && world.nvml->ok() ? &world.nvml->value() : nullptr;
}

}  // namespace

void DriverModule(const World& world, std::vector<Finding>& out) {
  const char* const check = "driver-module";
  const std::string text = world.Text(kModule);
  if (!text.empty()) {
    const bool open = text.find("Open Kernel Module") != std::string::npos;
    Say(out, check, Level::kOk,
        "NVIDIA " + VersionIn(text) + (open ? ", open kernel modules" : ", proprietary modules"));
  } else if (world.Exists("/dev/dxg")) {
    Say(out, check, Level::kWarning,
        "this is WSL: the driver is Windows', and nothing here has been tried on it",
        "use a Linux machine, or try on the simulator", "divvy run --sim h100 --mem 2GiB -- CMD");
  } else if (world.Exists("/sys/bus/pci/drivers/nouveau") &&
             !world.Names("/sys/bus/pci/drivers/nouveau").empty() &&
             world.Exists("/sys/module/nouveau")) {
    Say(out, check, Level::kStop, "nouveau is loaded in the place of NVIDIA's kernel module",
        "install NVIDIA's driver, which puts nouveau on the blacklist, and restart",
        "apt install nvidia-driver");
  } else {
    Say(out, check, Level::kStop, "NVIDIA's kernel module is not loaded",
        "load it, or install the driver; without a GPU use the simulator (--sim h100)",
        "modprobe nvidia");
  }
}

void DeviceNodes(const World& world, std::vector<Finding>& out) {
  const char* const check = "device-nodes";
  if (world.Text(kModule).empty()) return;  // DriverModule says it
  std::vector<std::string> nodes{"/dev/nvidiactl", "/dev/nvidia-uvm"};
  size_t devices = 0;
  for (const std::string& name : world.Names("/dev"))
    if (name.rfind("nvidia", 0) == 0 && name.size() > 6 &&
        name.find_first_not_of("0123456789", 6) == std::string::npos) {
      nodes.push_back("/dev/" + name);
      ++devices;
    }
  bool good = devices > 0;
  if (devices == 0)
    Say(out, check, Level::kStop, "there is no /dev/nvidia0",
        "make the nodes; if that does not help, no GPU is attached to the driver (lspci -d 10de:)",
        "nvidia-modprobe -c 0");
  for (const std::string& node : nodes) {
    if (!world.Exists(node)) {
      good = false;
      Say(out, check, Level::kStop, node + " is missing",
          "make it; at each start of the machine nvidia-persistenced does",
          node == "/dev/nvidia-uvm" ? "nvidia-modprobe -u -c 0" : "nvidia-modprobe -c 0");
    } else if (!world.MayReadAndWrite(node)) {
      good = false;
      Say(out, check, Level::kStop, "this user may not read and write " + node,
          "join the group that owns it (ls -l shows which, often video) and log in again",
          "usermod -aG video USER");
    }
  }
  if (good)
    Say(out, check, Level::kOk, std::to_string(devices) + " devices, readable and writable");
}

void Libraries(const World& world, std::vector<Finding>& out) {
  const char* const check = "libraries";
  const std::string module = VersionIn(world.Text(kModule));
  for (const auto& [soname, package, copies] :
       {std::tuple{"libcuda.so.1", "libcuda1", &world.cuda_copies},
        std::tuple{"libnvidia-ml.so.1", "libnvidia-ml1", &world.nvml_copies}}) {
    if (copies->empty()) {
      Say(out, check, Level::kStop,
          std::string(soname) + " is neither in the loader's cache nor in a usual folder",
          "install the driver's libraries; if they lie elsewhere, tell the loader in "
          "/etc/ld.so.conf.d and run ldconfig",
          std::string("apt install ") + package);
      continue;
    }
    for (const std::string& copy : *copies) {
      const std::string version = VersionOfFile(copy);
      const bool first = copy == copies->front();
      if (IsStub(copy))
        Say(out, check, first ? Level::kStop : Level::kWarning,
            copy + " is CUDA's stub for linking: programs that load it find no GPU",
            "take its folder out of LD_LIBRARY_PATH and the loader's cache",
            "unset LD_LIBRARY_PATH; ldconfig");
      else if (!version.empty() && !module.empty() && version != module &&
               copy.find("/compat") == std::string::npos)
        Say(out, check, first ? Level::kStop : Level::kWarning,
            copy + " is of version " + version + ", the loaded module of " + module,
            "after an upgrade: load the new module, or restart the machine; else remove the copy",
            first ? "reboot" : "");
    }
    std::string list;
    for (const std::string& copy : *copies) list += (list.empty() ? "" : ", ") + copy;
    if (copies->size() == 1)
      Say(out, check, Level::kOk, list);
    else if (std::string(soname) == "libcuda.so.1")
      Say(out, check, world.can_isolate ? Level::kNote : Level::kWarning,
          std::to_string(copies->size()) + " copies of libcuda: " + list,
          world.can_isolate
              ? "as root each of them leads to the share; nothing to do unless one is left over"
              : "without root only the copy that a program finds first is known to be held to the "
                "share; run as root, or remove those that are left over");
  }
}

void Nvml(const World& world, std::vector<Finding>& out) {
  const char* const check = "nvml";
  if (!world.nvml) return;  // Libraries says it
  if (!world.nvml->ok()) {
    const std::string& why = world.nvml->error().message;
    const bool mismatch = why.find("version mismatch") != std::string::npos;
    Say(out, check, Level::kStop, "NVML does not start: " + why,
        mismatch ? "the libraries are newer than the loaded module: restart the machine"
                 : "see what the kernel says of the driver",
        mismatch ? "reboot" : "dmesg | grep -i nvrm");
    return;
  }
  const NvmlFacts& facts = world.nvml->value();
  const std::string cuda = std::to_string(facts.cuda_version / 1000) + "." +
                           std::to_string(facts.cuda_version % 1000 / 10);
  if (facts.devices.empty()) {
    Say(out, check, Level::kStop, "NVML lists no device", "see what the kernel says of the driver",
        "dmesg | grep -i nvrm");
    return;
  }
  if (facts.cuda_version != 0 && facts.cuda_version < 11000)
    Say(out, check, Level::kWarning,
        "the driver is made for CUDA " + cuda + "; Divvy knows drivers from CUDA 11.0 on",
        "install a newer driver");
  Say(out, check, Level::kOk,
      "driver " + facts.driver_version + " (CUDA " + cuda + "), " +
          std::to_string(facts.devices.size()) + " devices");
  for (const NvmlDevice& device : facts.devices)
    if (!device.figures_by_process)
      Say(out, check, Level::kWarning,
          "NVML has no memory figures by process on " + Gpu(device) +
              ": the audit cannot see what bypasses a share there",
          "on bare metal this is MIG or an old driver; in a virtual machine it is the host's "
          "choice");
}

void CudaInit(const World& world, std::vector<Finding>& out) {
  const char* const check = "cuda-init";
  if (!world.cuda_init) return;
  const int answer = *world.cuda_init;
  const std::string code = "cuInit answers " + std::to_string(answer);
  switch (answer) {
    case CUDA_SUCCESS:
      Say(out, check, Level::kOk, "cuInit works");
      return;
    case -1:
      Say(out, check, Level::kStop, "cuInit does not come back",
          "the driver hangs: see what the kernel says of it", "dmesg | grep -i nvrm");
      return;
    case CUDA_ERROR_NO_DEVICE:
      Say(out, check, Level::kStop, code + ": no device",
          world.Env("CUDA_VISIBLE_DEVICES").empty() && world.env.count("CUDA_VISIBLE_DEVICES") == 0
              ? "see what NVML and the kernel say of the devices"
              : "CUDA_VISIBLE_DEVICES is '" + world.Env("CUDA_VISIBLE_DEVICES") +
                    "' and hides all of them",
          world.env.count("CUDA_VISIBLE_DEVICES") != 0 ? "unset CUDA_VISIBLE_DEVICES" : "");
      return;
    case CUDA_ERROR_SYSTEM_NOT_READY:
      Say(out, check, Level::kStop, code + ": the system is not ready",
          "on machines with NVSwitch the fabric manager must run",
          "systemctl start nvidia-fabricmanager");
      return;
    default:
      Say(out, check, Level::kStop, code, "see what the kernel says of the driver",
          "dmesg | grep -i nvrm");
  }
}

void ComputeMode(const World& world, std::vector<Finding>& out) {
  const NvmlFacts* facts = Facts(world);
  if (facts == nullptr) return;
  bool good = true;
  for (const NvmlDevice& device : facts->devices) {
    if (device.compute_mode == NVML_COMPUTEMODE_DEFAULT) continue;
    good = false;
    const bool none = device.compute_mode == NVML_COMPUTEMODE_PROHIBITED;
    Say(out, "compute-mode", Level::kStop,
        Gpu(device) + (none ? " is in compute mode PROHIBITED: no program can use it"
                            : " is in compute mode EXCLUSIVE_PROCESS: one process at a time can "
                              "use it, so shares beside each other cannot be"),
        "set it to DEFAULT (after a restart it is what the machine sets)",
        "nvidia-smi -i " + std::to_string(device.index) + " -c DEFAULT");
  }
  if (good) Say(out, "compute-mode", Level::kOk, "DEFAULT on all devices");
}

void Mig(const World& world, std::vector<Finding>& out) {
  const NvmlFacts* facts = Facts(world);
  if (facts == nullptr) return;
  bool off = true;
  for (const NvmlDevice& device : facts->devices) {
    if (device.mig_mode.value_or(0) != 1) continue;
    off = false;
    Say(out, "mig", Level::kWarning,
        Gpu(device) +
            " is in MIG mode: programs see its instances only, and Divvy makes shares of "
            "whole devices",
        "turn it off to share the device (needs it idle, and all instances removed)",
        "nvidia-smi mig -i " + std::to_string(device.index) + " -dci; nvidia-smi mig -i " +
            std::to_string(device.index) + " -dgi; nvidia-smi -i " + std::to_string(device.index) +
            " -mig 0");
  }
  if (off) Say(out, "mig", Level::kOk, "off");
}

void Confidential(const World& world, std::vector<Finding>& out) {
  const NvmlFacts* facts = Facts(world);
  if (facts == nullptr) return;
  if (!facts->confidential) {
    Say(out, "confidential", Level::kOk, "off");
    return;
  }
  Say(out, "confidential", Level::kWarning,
      "confidential computing is on: copies are staged through encrypted buffers, and stream "
      "memory operations, which Divvy meters with, may be missing",
      "see whether metering works here; for shares between tenants who trust each other turn it "
      "off on the host",
      "divvy verify hardware");
}

}  // namespace divvy::cli::doctor
