#include "src/daemon/options.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>

#include "src/base/describe.h"
#include "src/base/paths.h"
#include "src/daemon/version.h"

namespace divvy::daemon {

bool ParseOptions(int argc, char** argv, Options& out, int& exit_code) {
  CLI::App app{"Holds the tenants of one machine's GPUs to their shares.", "divvyd"};
  app.set_version_flag("--version", std::string("divvyd ") + kVersion);
  app.add_option("--sim", out.sim_profile,
                 "a simulated machine instead of the real one, e.g. h100x4")
      ->type_name("PROFILE");
  app.add_option("--runtime-dir", out.runtime_dir,
                 "where sockets and state lie (DIVVY_RUNTIME_DIR)")
      ->type_name("DIR");
  app.add_flag("--private", out.private_daemon, "end 2 s after the last tenant has");
  app.add_flag("--foreground", out.foreground, "log to stderr instead of divvyd.log");
  app.add_flag("--overcommit", out.node.overcommit, "promise more memory than there is");
  app.add_option("--ready-fd", out.ready_fd, "write 'ready' or an error line here, once")
      ->type_name("FD");
  auto* token = app.add_option("--api-token-file", out.api_token_file,
                               "whose first line who asks on TCP must send (Authorization: Bearer)")
                    ->type_name("FILE");
  auto* certificate =
      app.add_option("--api-tls-cert", out.api_tls.certificate, "TLS on TCP: our certificate (PEM)")
          ->type_name("FILE");
  auto* key = app.add_option("--api-tls-key", out.api_tls.key, "its key (PEM)")->type_name("FILE");
  certificate->needs(key);
  key->needs(certificate);
  app.add_option("--api-tls-client-ca", out.api_tls.client_ca,
                 "who asks on TCP must have a certificate that one of these signed (PEM)")
      ->needs(certificate)
      ->type_name("FILE");
  auto* tcp = app.add_option("--api-tcp", out.api_tcp,
                             "serve the API and the dashboard on ADDRESS:PORT, too; needs "
                             "--api-token-file or --api-tls-client-ca")
                  ->type_name("ADDRESS:PORT");
  certificate->needs(tcp);
  token->needs(tcp);
  std::string compat;
  app.add_option("--metrics-compat", compat,
                 "export metrics under another product's names, too: hami")
      ->check(CLI::IsMember({"hami"}).description(""))
      ->type_name("PRODUCT");
  std::string journal = "auto";
  app.add_option(
         "--journal", journal,
         "journald's socket for events; none; auto: /run/systemd/journal/socket where there "
         "is one, and no simulated machine (auto)")
      ->type_name("SOCKET");
  constexpr uint32_t kLongestUs = 1'000'000;
  app.add_option("--slice-us", out.node.slice_us,
                 "the devices' time slice, as `divvy verify hardware` measured it (by their names)")
      ->check(CLI::Range(uint32_t{1}, kLongestUs).description(""))
      ->type_name("US");
  app.add_option("--switch-us", out.node.switch_us, "... and the cost of a switch")
      ->check(CLI::Range(uint32_t{1}, kLongestUs).description(""))
      ->type_name("US");
  std::string audit = "warn", on_fault = "open";
  app.add_option("--audit", audit, "what a finding leads to: warn, gate, kill (warn)")
      ->check(CLI::IsMember({"warn", "gate", "kill"}).description(""))
      ->type_name("ACTION");
  app.add_option("--on-fault", on_fault, "gates of tenants whose daemon died: open, deny (open)")
      ->envname("DIVVY_ON_FAULT")
      ->check(CLI::IsMember({"open", "deny"}).description(""))
      ->type_name("ACTION");
  if (argc == 2 && std::strcmp(argv[1], "--describe") == 0) {
    std::puts(Describe(app).c_str());
    exit_code = 0;
    return false;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    exit_code = app.exit(help);
    return false;
  } catch (const CLI::ParseError& e) {
    std::fprintf(stderr, "divvyd: %s (see 'divvyd --help')\n", e.what());
    exit_code = 2;
    return false;
  }
  if (!out.api_tcp.empty() && out.api_token_file.empty() && out.api_tls.client_ca.empty()) {
    std::fprintf(stderr,
                 "divvyd: --api-tcp requires --api-token-file or --api-tls-client-ca: who may ask? "
                 "(see 'divvyd --help')\n");
    exit_code = 2;
    return false;
  }
  if (out.runtime_dir.empty()) out.runtime_dir = paths::RuntimeDir();
  out.node.machine_dir = paths::MachineDir(out.runtime_dir, out.sim_profile);
  out.node.sim_profile = out.sim_profile;
  out.node.audit = audit == "gate"   ? AuditAction::kGate
                   : audit == "kill" ? AuditAction::kKill
                                     : AuditAction::kWarn;
  out.journal = journal == "none"         ? ""
                : journal != "auto"       ? journal
                : out.sim_profile.empty() ? "/run/systemd/journal/socket"
                                          : "";
  out.hami_metrics = compat == "hami";
  out.node.deny_on_fault = on_fault == "deny";
  out.node.private_daemon = out.private_daemon;
  return true;
}

}  // namespace divvy::daemon
