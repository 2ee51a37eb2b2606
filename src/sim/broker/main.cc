// divvy-sim-broker: one process that is a simulated machine's GPUs. Started by `divvy run --sim`,
// by the client library (DIVVY_SIM), by tests, or by hand.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "src/sim/broker/machine.h"
#include "src/sim/broker/server.h"

namespace {

using namespace divvy;       // NOLINT
using namespace divvy::sim;  // NOLINT

int Fail(const std::string& message) {
  fprintf(stderr, "divvy-sim-broker: %s\n", message.c_str());
  return 1;
}

// Tells whoever waits on `fd` that clients can connect.
void SayReady(int fd) {
  if (fd < 0) return;
  (void)!write(fd, "1", 1);
  close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  std::string profile = "h100", dir = "/run/divvy-sim", seed, nvml = "truth", linger = "2000";
  uint32_t lag_ms = 0, teardown_ms = 300;
  int starter = getppid(), ready_fd = -1;
  bool daemonize = false, remove_dir = false;

  CLI::App app{"Divvy's simulated GPUs: the broker process that is the devices of one machine."};
  app.add_option("--profile", profile,
                 "machine, NAME[xCOUNT][@xDILATION]; names: " + ProfileNames() + " (h100)");
  app.add_option("--dir", dir, "folder for the socket; clients: DIVVY_SIM_DIR (/run/divvy-sim)");
  app.add_option("--seed", seed, "what the devices' UUIDs derive from (the folder's path)");
  app.add_option("--nvml-lag", lag_ms, "NVML shows memory as it was this many ms ago (0)")
      ->check(CLI::Range(0, 10000));
  app.add_option("--nvml", nvml, "per-process memory in NVML: truth or na (truth)")
      ->check(CLI::IsMember({"truth", "na"}));
  app.add_option("--teardown-delay", teardown_ms,
                 "ms until the memory of a killed process is given back (300)")
      ->check(CLI::Range(0, 60000));
  app.add_option("--linger", linger,
                 "ms to stay after the last client and the starter are gone, or 'forever' (2000)");
  app.add_option("--starter", starter, "stay while this process lives; 0: none (the parent)");
  app.add_option("--ready-fd", ready_fd, "write one byte here once clients can connect");
  app.add_flag("--daemonize", daemonize, "go to the background once clients can connect");
  app.add_flag("--remove-dir", remove_dir, "remove the folder at the end, if it is empty then");
  CLI11_PARSE(app, argc, argv);

  auto spec = ParseMachineSpec(profile);
  if (!spec) return Fail(spec.error().message);
  ServerOptions so;
  so.dir = dir;
  so.teardown_delay_ns = uint64_t(teardown_ms) * 1'000'000;
  so.starter_pid = starter;
  if (linger == "forever") {
    so.linger_ns = UINT64_MAX;
  } else {
    char* end = nullptr;
    errno = 0;
    unsigned long ms = strtoul(linger.c_str(), &end, 10);
    if (errno != 0 || *end != '\0' || linger.empty() || ms > 86'400'000) {
      return Fail("--linger takes milliseconds or 'forever', not '" + linger + "'");
    }
    so.linger_ns = uint64_t(ms) * 1'000'000;
  }

  int ready[2] = {-1, -1};
  if (daemonize) {
    if (pipe2(ready, O_CLOEXEC) != 0) return Fail("pipe");
    pid_t child = fork();
    if (child < 0) return Fail("fork");
    if (child > 0) {
      close(ready[1]);
      char byte;
      return read(ready[0], &byte, 1) == 1 ? 0 : 1;  // the child has said why
    }
    setsid();
  }

  rlimit files{};  // several descriptors per client
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  signal(SIGPIPE, SIG_IGN);
  UniqueFd stop_fd(signalfd(-1, &stop, SFD_CLOEXEC));

  MachineOptions mo;
  mo.spec = *spec;
  mo.seed = seed.empty() ? dir : seed;
  mo.nvml_lag_ns = uint64_t(lag_ms) * 1'000'000;
  mo.nvml_mode = nvml == "na" ? NvmlMode::kNotAvailable : NvmlMode::kTruth;
  auto machine = Machine::Make(mo);
  if (!machine) return Fail(machine.error().message);
  Timeline timeline(machine->page());
  Server server(so, &*machine, &timeline);
  if (Status s = server.Listen(); !s.ok()) return Fail(s.error().message);
  SayReady(ready_fd);
  if (daemonize) {
    SayReady(ready[1]);
    int null = open("/dev/null", O_RDWR);
    for (int fd : {0, 1, 2}) dup2(null, fd);
    close(null);
  }
  Status ran = server.Run(stop_fd.get());
  unlink(SocketPath(dir).c_str());
  if (remove_dir) rmdir(dir.c_str());
  return ran.ok() ? 0 : Fail(ran.error().message);
}
