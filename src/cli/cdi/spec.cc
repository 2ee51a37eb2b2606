#include "src/cli/cdi/spec.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <set>

#include "src/base/delivery.h"
#include "src/base/paths.h"
#include "src/base/unique_fd.h"
#include "src/cli/app.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

// Where a driver's library is found by the loader's own folders: Debian's kind and Red Hat's.
constexpr const char* kLibraryDirs[] = {"/usr/lib/x86_64-linux-gnu", "/usr/lib64"};

json Spec(const char* kind, json devices) {
  return {{"cdiVersion", "0.5.0"}, {"kind", kind}, {"devices", std::move(devices)}};
}

json ReadOnly(const std::string& from, const std::string& to) {
  return {
      {"hostPath", from}, {"containerPath", to}, {"options", {"ro", "nosuid", "nodev", "bind"}}};
}

// A profile may be h100@x10; CDI's names have no '@'.
std::string SimulatorName(const Machine& machine) {
  std::string name = paths::Sanitized(machine.sim);
  std::replace(name.begin(), name.end(), '@', '_');
  return name;
}

}  // namespace

Status CheckDeviceName(const std::string& name) {
  if (!name.empty() && std::isalnum(static_cast<unsigned char>(name.back())) != 0) return {};
  return Invalid("'" + name + "' cannot be a CDI device: its name must end with a letter or digit");
}

std::string ShareDevice(const LastingShare& share) {
  return std::string(kShareKind) + "=" + share.name;
}

std::vector<std::string> GpuDevices(const LastingShare& share) {
  if (!share.machine.sim.empty())
    return {std::string(kSimulatorKind) + "=" + SimulatorName(share.machine)};
  std::vector<std::string> devices;
  for (const json& device : share.tenant.value("devices", json::array()))
    devices.push_back("nvidia.com/gpu=" + device.value("uuid", ""));
  return devices;
}

Result<json> ShareSpec(const std::vector<LastingShare>& shares) {
  json devices = json::array();
  std::set<std::string> names;
  for (const LastingShare& share : shares) {
    if (Status s = CheckDeviceName(share.name); !s.ok()) return s.error();
    if (!names.insert(share.name).second)
      return Invalid("two machines have a share '" + share.name + "'; choose one with --sim");
    const json hook{
        {"hookName", "createContainer"},
        {"path", paths::HelperProgram("divvy-hook")},
        {"args",
         {"divvy-hook", "--tenant", share.tenant.value("dir", ""), "--lib", paths::LibDir()}}};
    devices.push_back({{"name", share.name},
                       {"containerEdits",
                        {{"env", {"DIVVY_SHARE=" + share.name}}, {"hooks", json::array({hook})}}}});
  }
  return Spec(kShareKind, std::move(devices));
}

json SimulatorSpec(const std::vector<LastingShare>& shares) {
  json devices = json::array();
  std::set<std::string> names;
  for (const LastingShare& share : shares) {
    if (share.machine.sim.empty() || !names.insert(SimulatorName(share.machine)).second) continue;
    json mounts = json::array({{{"hostPath", paths::SimDir(share.machine.dir)},
                                {"containerPath", delivery::kSimMachine},
                                {"options", {"rw", "nosuid", "nodev", "bind"}}}});
    for (const char* dir : kLibraryDirs)
      for (const char* library : {"/libcuda.so.1", "/libnvidia-ml.so.1"})
        mounts.push_back(ReadOnly(paths::SimLibDir() + library, std::string(dir) + library));
    devices.push_back({{"name", SimulatorName(share.machine)},
                       {"containerEdits", {{"mounts", std::move(mounts)}}}});
  }
  return Spec(kSimulatorKind, std::move(devices));
}

Result<bool> WriteSpec(const std::string& folder, const char* file, const json& spec) {
  const std::string path = folder + "/" + file, beside = folder + "/." + file + ".new";
  if (spec.at("devices").empty()) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT)
      return IoError("cannot remove " + path, errno);
    return false;
  }
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  const UniqueFd fd(
      ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!fd.valid())
    return IoError("cannot write into " + folder + " (choose another with --spec-dir)", errno);
  ::fchmod(fd.get(), 0644);
  const std::string text = JsonText(spec) + "\n";
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::rename(beside.c_str(), path.c_str()) != 0) {
    const Error error = IoError("cannot write " + path, errno);
    ::unlink(beside.c_str());
    return error;
  }
  return true;
}

}  // namespace divvy::cli
