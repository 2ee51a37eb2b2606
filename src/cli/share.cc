// divvy share: shares that no command of ours holds: made, listed, deleted. Containers get them.
#include <cstdio>

#include "src/cli/app.h"
#include "src/cli/cdi/lasting.h"
#include "src/cli/cdi/spec.h"
#include "src/cli/share_options.h"
#include "src/cli/table.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct CreateOptions {
  ShareOptions share;
  Format format = Format::kText;
};

struct RemoveOptions {
  std::string name, sim;
  bool force = false;
  Format format = Format::kText;
};

struct ListOptions {
  std::string sim;
  Format format = Format::kText;
};

json Described(const LastingShare& share) {
  json one = share.tenant;
  one["machine"] = share.machine.Name();
  one["cdi_device"] = ShareDevice(share);
  one["cdi_gpu_devices"] = GpuDevices(share);
  return one;
}

void Create(CreateOptions& options) {
  OrFail(CompleteShare(options.share));
  options.share.request.lasting = true;
  OrFail(CheckDeviceName(options.share.request.name));
  const Tenancy made = OrFail(MakeTenant(options.share.request));
  const LastingShare share{made.machine, made.name,
                           OrFail(made.machine.api.Get("/v1/tenants/" + made.name))};
  if (options.format == Format::kJson) {
    PrintJson(Described(share));
    return;
  }
  std::printf("%s: %s; it lives until `divvy share rm %s`\n", share.name.c_str(),
              Summary(share).c_str(), share.name.c_str());
}

void Remove(const RemoveOptions& options) {
  OrFail(CheckName(options.name));
  const Machine machine = OrFail(FindTenant(options.name, options.sim));
  const std::string path = "/v1/tenants/" + options.name;
  if (OrFail(machine.api.Get(path)).value("runner_pid", 0) != 0)
    Fail(Invalid("'" + options.name + "' is the share of a command and ends with it"));
  const Result<json> removed = machine.api.Delete(path + (options.force ? "?force=1" : ""));
  if (!removed.ok() && removed.error().code == ErrorCode::kExists)
    Fail(Error{ErrorCode::kExists, "processes run in the share '" + options.name +
                                       "' (divvy ps); end them, or say --force"});
  if (!removed.ok()) Fail(removed.error());
  if (options.format == Format::kJson) PrintJson(json{{"name", options.name}});
}

void List(const ListOptions& options) {
  const std::vector<LastingShare> shares = OrFail(LastingShares(options.sim));
  if (options.format == Format::kJson) {
    json list = json::array();
    for (const LastingShare& share : shares) list.push_back(Described(share));
    PrintJson({{"shares", std::move(list)}});
    return;
  }
  if (shares.empty()) {
    std::puts("no shares; make one: divvy share create web --mem 4GiB");
    return;
  }
  Table table({"NAME", "SHARE", "USED", "PROCESSES", "MACHINE"});
  for (const LastingShare& share : shares) {
    uint64_t used = 0;
    for (const json& one : share.tenant.value("shares", json::array()))
      used += one.value("used_bytes", uint64_t{0});
    table.Add({share.name, Summary(share), Amount(used),
               std::to_string(share.tenant.value("processes", json::array()).size()),
               share.machine.Name()});
  }
  std::fputs(table.ToString().c_str(), stdout);
}

void AddCreate(CLI::App& share) {
  auto options = std::make_shared<CreateOptions>();
  auto* verb = share.add_subcommand(
      "create",
      "make a share that lives until it is removed\n\n"
      "It is promised at once, also while nothing runs in it, and kept over restarts of divvyd.\n"
      "Several containers in one share have it together.\n\n"
      "  divvy share create web --mem 4GiB --compute 30\n"
      "  divvy share create train --gpus 2 --mem 20GiB");
  AddTenantName(*verb, "name", options->share.request.name, "what to call it")->required();
  AddShareOptions(*verb, options->share);
  AddFormat(*verb, options->format);
  verb->callback([options] { Create(*options); });
}

void AddRemove(CLI::App& share) {
  auto options = std::make_shared<RemoveOptions>();
  auto* verb = share.add_subcommand("rm",
                                    "remove a share\n\n"
                                    "Refused while processes run in it; --force kills them.\n\n"
                                    "  divvy share rm web");
  verb->add_option("name", options->name, "the share")->required()->type_name("");
  verb->add_flag("--force", options->force, "kill what runs in it (SIGKILL)");
  AddSim(*verb, options->sim)->description("the machine, when several have a share of that name");
  AddFormat(*verb, options->format);
  verb->callback([options] { Remove(*options); });
}

void AddList(CLI::App& share) {
  auto options = std::make_shared<ListOptions>();
  auto* verb = share.add_subcommand("list", "the shares that live until they are removed");
  AddSim(*verb, options->sim);
  AddFormat(*verb, options->format);
  verb->callback([options] { List(*options); });
}

}  // namespace

void AddShare(CLI::App& app) {
  auto* share = app.add_subcommand(
      "share",
      "shares for containers: create, list, rm\n\n"
      "`divvy run` makes a share for one command. These live until they are removed, and\n"
      "`divvy cdi generate` offers them to podman, Docker, containerd and CRI-O.");
  share->require_subcommand(1);
  AddCreate(*share);
  AddList(*share);
  AddRemove(*share);
}

}  // namespace divvy::cli
