// Who else hands out, shares or hooks the GPUs here: MPS, preloaded libraries, container runtimes,
// device plugins.
#include <algorithm>

#include "src/cli/doctor/checks.h"

namespace divvy::cli::doctor {
namespace {

constexpr char kDefaultPipes[] = "/tmp/nvidia-mps";
constexpr char kPlugins[] = "/var/lib/kubelet/device-plugins";

// "comm" is cut at 15 characters by the kernel.
std::vector<std::string> PidsOf(const World& world, const std::string& name) {
  std::vector<std::string> pids;
  for (const std::string& pid : world.Names("/proc")) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string comm = world.Text("/proc/" + pid + "/comm");
    comm = comm.substr(0, comm.find('\n'));
    if (comm != name.substr(0, 15)) continue;
    // Cut, the names of MPS's two programs are the same: the whole is in the command line.
    const std::string line = world.Text("/proc/" + pid + "/cmdline");
    const std::string program = line.substr(0, line.find('\0'));
    if (program.empty() || program.substr(program.rfind('/') + 1).rfind(name, 0) == 0)
      pids.push_back(pid);
  }
  return pids;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

bool HooksCuda(const std::string& text) {
  for (const char* known : {"libvgpu", "libnvshare", "libcuda_vmem", "libcuda-control",
                            "libgemhook", "libaccelerator", "vgpu-control"})
    if (text.find(known) != std::string::npos) return true;
  return false;
}

}  // namespace

void Mps(const World& world, std::vector<Finding>& out) {
  const std::string set = world.Env("CUDA_MPS_PIPE_DIRECTORY");
  const std::string pipes = set.empty() ? kDefaultPipes : set;
  const std::vector<std::string> control = PidsOf(world, "nvidia-cuda-mps-control"),
                                 server = PidsOf(world, "nvidia-cuda-mps-server");
  if (!control.empty() || !server.empty()) {
    std::vector<std::string> pids = control;
    pids.insert(pids.end(), server.begin(), server.end());
    out.push_back(
        {"mps", Level::kStop,
         "MPS runs (pid " + Joined(pids) +
             "): it puts programs into one context of its own, so neither memory nor "
             "compute can be told apart by tenant",
         "end it; its clients end with it",
         set.empty() ? "echo quit | nvidia-cuda-mps-control"
                     : "echo quit | CUDA_MPS_PIPE_DIRECTORY=" + set + " nvidia-cuda-mps-control"});
  } else if (world.Exists(pipes + "/control")) {
    out.push_back({"mps", Level::kWarning,
                   pipes + " is left over from an MPS that is gone: CUDA programs try to reach it",
                   "remove it", "rm -r " + pipes});
  } else {
    out.push_back({"mps", Level::kOk, "not running", "", ""});
  }
  for (const auto& [name, value] : world.env)
    if (name.rfind("CUDA_MPS_", 0) == 0)
      out.push_back({"mps", Level::kNote, name + " is set in this environment",
                     "it has no effect without MPS; commands inherit it", "unset " + name});
}

void Preload(const World& world, std::vector<Finding>& out) {
  const std::string file = world.Text("/etc/ld.so.preload"), env = world.Env("LD_PRELOAD");
  bool good = true;
  for (const auto& [where, text, command] :
       {std::tuple{"/etc/ld.so.preload", &file, "sed -i '/vgpu/d' /etc/ld.so.preload"},
        std::tuple{"LD_PRELOAD", &env, "unset LD_PRELOAD"}}) {
    if (!HooksCuda(*text)) continue;
    good = false;
    out.push_back({"preload", Level::kStop,
                   std::string(where) +
                       " has another product's hooks on CUDA: " + text->substr(0, text->find('\n')),
                   "two that hook the same calls count twice and may dead-lock: remove one",
                   command});
  }
  if (good) out.push_back({"preload", Level::kOk, "no other product hooks CUDA", "", ""});
}

void ContainerRuntime(const World& world, std::vector<Finding>& out) {
  std::vector<std::string> runtimes;
  for (const auto& [name, paths] :
       {std::pair{"docker", std::vector{"/run/docker.sock", "/etc/docker/daemon.json"}},
        std::pair{"containerd",
                  std::vector{"/run/containerd/containerd.sock", "/etc/containerd/config.toml"}},
        std::pair{"CRI-O", std::vector{"/run/crio/crio.sock", "/etc/crio/crio.conf"}},
        std::pair{"podman", std::vector{"/usr/bin/podman"}}})
    if (std::any_of(paths.begin(), paths.end(), [&](const char* p) { return world.Exists(p); }))
      runtimes.push_back(name);
  if (runtimes.empty()) {
    out.push_back({"containers", Level::kOk, "no container runtime", "", ""});
    return;
  }
  std::vector<std::string> specs;
  for (const char* folder : {"/etc/cdi", "/var/run/cdi", "/run/cdi"})
    for (const std::string& name : world.Names(folder))
      if (name.size() > 5 && (name.ends_with(".json") || name.ends_with(".yaml")))
        specs.push_back(std::string(folder) + "/" + name);
  out.push_back(
      {"containers", Level::kOk,
       Joined(runtimes) + (specs.empty() ? "; no CDI specifications" : "; CDI: " + Joined(specs)),
       "", ""});
  const std::string docker = world.Text("/etc/docker/daemon.json"),
                    containerd = world.Text("/etc/containerd/config.toml");
  if (containerd.find("enable_cdi = false") != std::string::npos)
    out.push_back({"containers", Level::kNote, "CDI is off in /etc/containerd/config.toml",
                   "set enable_cdi = true there", "systemctl restart containerd"});
  if (docker.find("\"cdi\": false") != std::string::npos)
    out.push_back({"containers", Level::kNote, "CDI is off in /etc/docker/daemon.json",
                   "set features.cdi to true there", "systemctl restart docker"});
}

void DevicePlugins(const World& world, std::vector<Finding>& out) {
  if (!world.Exists("/var/lib/kubelet")) return;
  std::vector<std::string> nvidia, others;
  for (const std::string& name : world.Names(kPlugins)) {
    if (!name.ends_with(".sock") || name == "kubelet.sock" || name.find("divvy") == 0) continue;
    const bool gpu = name.find("nvidia") != std::string::npos ||
                     name.find("gpu") != std::string::npos ||
                     name.find("hami") != std::string::npos;
    (gpu ? nvidia : others).push_back(name);
  }
  if (nvidia.empty()) {
    out.push_back({"device-plugins", Level::kOk,
                   others.empty() ? "a kubelet, and no device plugin"
                                  : "a kubelet; none of its device plugins (" + Joined(others) +
                                        ") hands out GPUs",
                   "", ""});
    return;
  }
  out.push_back({"device-plugins", Level::kWarning,
                 "a device plugin hands out GPUs on this node: " + Joined(nvidia) +
                     "; its pods get whole devices that Divvy also makes shares of",
                 "take the node or the devices from it (nodeSelector of its DaemonSet; "
                 "NVIDIA's GPU operator: the label below)",
                 "kubectl label node NODE nvidia.com/gpu.deploy.device-plugin=false"});
}

}  // namespace divvy::cli::doctor
