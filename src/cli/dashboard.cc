// divvy dashboard: where the dashboard is, and a browser for it where there is a display. Starts no
// daemon and opens no port: how to have one is what it says otherwise.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/process/supervise.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct DashboardOptions {
  Format format = Format::kText;
  std::string sim;
  bool no_open = false;
};

bool HasDisplay() {
  for (const char* name : {"DISPLAY", "WAYLAND_DISPLAY"})
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return true;
  return false;
}

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 && name[0] != '\0' ? name : "HOST";
}

// Whoever listens on every address is reached on this machine by this one.
std::string Reachable(std::string address) {
  for (const auto& [any, local] :
       {std::pair{"0.0.0.0:", "127.0.0.1:"}, std::pair{"[::]:", "[::1]:"}})
    if (address.rfind(any, 0) == 0) return local + address.substr(std::string(any).size());
  return address;
}

bool Open(const std::string& url) {
  const Result<pid_t> opened =
      Launch({"sh", "-c", "xdg-open \"$0\" >/dev/null 2>&1", url}, [] { return Status{}; });
  return opened.ok() && Reap(*opened).status == 0;
}

void Dashboard(const DashboardOptions& options) {
  OrFail(CheckOutside());
  OrFail(CheckFolder(options.sim));
  const Machine machine = MachineOf(options.sim);
  if (!machine.api.Alive())
    Fail(NotFound("no daemon runs in " + machine.dir +
                  "; `divvy run` starts one, or divvyd --api-tcp 127.0.0.1:9434 --api-token-file "
                  "FILE for good"));
  const json status = OrFail(machine.api.Get("/v1/status"));
  const std::string tcp = status.value("tcp", ""), socket = machine.api.socket_path();
  const std::string url =
      tcp.empty() ? ""
                  : (status.value("tls", false) ? "https://" : "http://") + Reachable(tcp) + "/";
  const std::string forward = "ssh -L 8080:" + socket + " " + HostName();
  const bool open = !url.empty() && !options.no_open && HasDisplay() && Open(url);
  if (options.format == Format::kJson) {
    PrintJson({{"url", url}, {"opened", open}, {"socket", socket}, {"forward", forward}});
    return;
  }
  if (!url.empty()) {
    std::printf("%s%s\n", url.c_str(), open ? "   (opened)" : "");
    std::printf(
        "It asks for the token, the first line of divvyd's --api-token-file; #token=TOKEN "
        "behind the\naddress gives it at once.\n");
  } else {
    std::printf(
        "This daemon serves its dashboard on its socket only. From your own machine:\n"
        "  %s\nthen open http://localhost:8080/. Or let divvyd listen on this machine:\n"
        "  openssl rand -hex 16 > TOKENFILE && chmod 600 TOKENFILE\n"
        "  divvy daemon stop%s && divvyd%s --api-tcp 127.0.0.1:9434 --api-token-file "
        "TOKENFILE\n(tenants run on meanwhile and are taken over).\n",
        forward.c_str(), options.sim.empty() ? "" : (" --sim " + options.sim).c_str(),
        options.sim.empty() ? "" : (" --sim " + options.sim).c_str());
  }
}

}  // namespace

void AddDashboard(CLI::App& app) {
  auto options = std::make_shared<DashboardOptions>();
  auto* verb =
      app.add_subcommand("dashboard",
                         "where the dashboard is; opens it where there is a display\n\n"
                         "divvyd serves it itself, on its socket and, where it was told to, on "
                         "TCP. This starts nothing\n"
                         "and opens no port; it says how to reach the socket from elsewhere.\n\n"
                         "  divvy dashboard\n"
                         "  divvy dashboard --no-open -o json");
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim);
  verb->add_flag("--no-open", options->no_open, "print the address only");
  verb->callback([options] { Dashboard(*options); });
}

}  // namespace divvy::cli
