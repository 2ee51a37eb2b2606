// divvyd: one per machine, or one per simulated machine. Everything real is in daemon.h.
#include <fcntl.h>
#include <linux/close_range.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "src/base/paths.h"
#include "src/daemon/daemon.h"

namespace {

// Tells whoever started us, on --ready-fd or stderr.
void Say(int fd, const std::string& line) {
  const std::string text = line + "\n";
  if (fd >= 0) {
    [[maybe_unused]] const ssize_t n = ::write(fd, text.data(), text.size());
    ::close(fd);
  }
}

// Whoever started us may be a shell or a pipe: neither its signals nor its end are ours.
void Detach() {
  ::setsid();
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2 && null >= 0; ++fd) ::dup2(null, fd);
  if (null > 2) ::close(null);
  [[maybe_unused]] const int ignored = ::chdir("/");
}

}  // namespace

int main(int argc, char** argv) {
  divvy::daemon::Options options;
  int exit_code = 0;
  if (!divvy::daemon::ParseOptions(argc, argv, options, exit_code)) return exit_code;
  ::umask(022);
  // What whoever started us left open is neither ours to keep nor the broker's to inherit.
  ::syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
  auto daemon = divvy::daemon::Daemon::Start(options);
  if (!daemon.ok()) {
    std::fprintf(stderr, "divvyd: %s\n", daemon.error().message.c_str());
    Say(options.ready_fd, "error: " + daemon.error().message);
    return 1;
  }
  if (!options.foreground) Detach();
  spdlog::info("serving {}", options.node.machine_dir);
  Say(options.ready_fd, "ready");
  (*daemon)->Run();
  spdlog::info("ending");
  return 0;
}
