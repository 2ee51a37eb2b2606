// divvy cdi: offers shares to container runtimes as devices of the Container Device Interface.
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "src/base/paths.h"
#include "src/cli/app.h"
#include "src/cli/cdi/lasting.h"
#include "src/cli/cdi/spec.h"
#include "src/cli/table.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

// Runtimes read both; what is here goes with the machine's uptime, as shares do.
constexpr const char* kSpecFolders[] = {"/var/run/cdi", "/etc/cdi"};

struct CdiOptions {
  std::string sim, folder = kSpecFolders[0];
  Format format = Format::kText;
};

std::string Joined(const std::vector<std::string>& words, const char* before) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + (before + word);
  return text;
}

// What a spec would need on this machine.
Status CheckInstalled() {
  for (const std::string& file :
       {paths::HelperProgram("divvy-hook"), paths::ShimLibrary(), paths::ForwarderLibrary()})
    if (::access(file.c_str(), R_OK) != 0)
      return Unavailable(file + " is missing; is Divvy installed completely?");
  return {};
}

void Generate(const CdiOptions& options) {
  OrFail(CheckInstalled());
  const std::vector<LastingShare> shares = OrFail(LastingShares(options.sim));
  const json spec = OrFail(ShareSpec(shares)), simulator = SimulatorSpec(shares);
  const bool written = OrFail(WriteSpec(options.folder, kShareSpecFile, spec));
  const bool simulated = OrFail(WriteSpec(options.folder, kSimulatorSpecFile, simulator));
  if (options.format == Format::kJson) {
    json files = json::array(), devices = json::array();
    if (written) files.push_back(options.folder + "/" + kShareSpecFile);
    if (simulated) files.push_back(options.folder + "/" + kSimulatorSpecFile);
    for (const LastingShare& share : shares) devices.push_back(ShareDevice(share));
    PrintJson({{"files", std::move(files)}, {"devices", std::move(devices)}, {"spec", spec}});
    return;
  }
  if (!written) {
    std::puts("no shares, so no spec; make one: divvy share create web --mem 4GiB");
    return;
  }
  std::printf("%s/%s: %zu device%s; for example:\n", options.folder.c_str(), kShareSpecFile,
              shares.size(), shares.size() == 1 ? "" : "s");
  const LastingShare& first = shares.front();
  std::printf("  podman run %s --device %s IMAGE\n", Joined(GpuDevices(first), "--device ").c_str(),
              ShareDevice(first).c_str());
}

// The spec file that has the share as it is now, "" = none.
std::string SpecOf(const LastingShare& share, const std::string& folder) {
  std::vector<std::string> folders(std::begin(kSpecFolders), std::end(kSpecFolders));
  if (folder != kSpecFolders[0]) folders = {folder};
  for (const std::string& dir : folders) {
    const std::string path = dir + "/" + kShareSpecFile;
    std::ifstream file(path);
    const json spec = json::parse(file, nullptr, false);
    if (!spec.is_object() || !spec.contains("devices") || !spec["devices"].is_array()) continue;
    for (const json& device : spec["devices"])
      if (device.is_object() && device.value("name", "") == share.name) return path;
  }
  return "";
}

void List(const CdiOptions& options) {
  const std::vector<LastingShare> shares = OrFail(LastingShares(options.sim));
  json list = json::array();
  Table table({"DEVICE", "TOGETHER WITH", "SHARE", "SPEC"});
  for (const LastingShare& share : shares) {
    const std::string spec = SpecOf(share, options.folder);
    list.push_back({{"device", ShareDevice(share)},
                    {"gpu_devices", GpuDevices(share)},
                    {"share", share.name},
                    {"machine", share.machine.Name()},
                    {"spec", spec}});
    table.Add({ShareDevice(share), Joined(GpuDevices(share), ""), Summary(share),
               spec.empty() ? "none: divvy cdi generate" : spec});
  }
  if (options.format == Format::kJson)
    PrintJson({{"devices", std::move(list)}});
  else if (shares.empty())
    std::puts("no shares; make one: divvy share create web --mem 4GiB");
  else
    std::fputs(table.ToString().c_str(), stdout);
}

void AddGenerate(CLI::App& cdi) {
  auto options = std::make_shared<CdiOptions>();
  auto* verb = cdi.add_subcommand(
      "generate",
      "write the CDI spec: a device per share\n\n"
      "A container is given two devices: the GPU's own, which brings the driver (`nvidia-ctk cdi\n"
      "generate` describes it), and the share's, whose hook holds everything in the container to "
      "the\nshare. Run it again after `divvy share create` and `rm`; running containers are not\n"
      "affected.\n\n"
      "  divvy share create web --mem 4GiB\n"
      "  divvy cdi generate\n"
      "  podman run --device nvidia.com/gpu=0 --device divvy/share=web IMAGE");
  verb->add_option("--spec-dir", options->folder, "the folder to write to (/var/run/cdi)")
      ->type_name("DIR");
  AddSim(*verb, options->sim)->description("only shares of this simulated machine");
  AddFormat(*verb, options->format);
  verb->callback([options] { Generate(*options); });
}

void AddCdiList(CLI::App& cdi) {
  auto options = std::make_shared<CdiOptions>();
  auto* verb = cdi.add_subcommand("list", "the devices to give to containers, and their specs");
  verb->add_option("--spec-dir", options->folder, "look here instead of /var/run/cdi and /etc/cdi")
      ->type_name("DIR");
  AddSim(*verb, options->sim)->description("only shares of this simulated machine");
  AddFormat(*verb, options->format);
  verb->callback([options] { List(*options); });
}

}  // namespace

void AddCdi(CLI::App& app) {
  auto* cdi = app.add_subcommand(
      "cdi",
      "offer shares to container runtimes: generate, list\n\n"
      "podman, Docker, containerd and CRI-O take devices by the Container Device Interface: a\n"
      "container that is given divvy/share=NAME runs in that share. docs/containers.md has more.");
  cdi->require_subcommand(1);
  AddGenerate(*cdi);
  AddCdiList(*cdi);
}

}  // namespace divvy::cli
