// divvy-hook: the OCI createContainer hook that puts a container into a share. Called by a
// container runtime, as a CDI spec of `divvy cdi generate` tells it to, in the mount namespace of a
// container that is not running yet; the container's state comes on stdin. Static: an image's
// libraries and the machine's are no matter. One thread; ends in milliseconds.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#include "src/hook/container.h"
#include "src/hook/deliver.h"

namespace divvy::hook {
namespace {

constexpr char kUsage[] =
    "usage: divvy-hook --tenant DIR --lib DIR   <OCI state on stdin>\n\n"
    "Puts a container that is about to start into the share of a tenant. For container runtimes:\n"
    "an OCI createContainer hook, written into a CDI spec by `divvy cdi generate`.\n\n"
    "  --tenant DIR   the tenant's folder, RUNTIME/tenants/NAME\n"
    "  --lib DIR      where libdivvy.so and libcuda-forward/ are\n"
    "  --version      print the version\n\n"
    "Exit status: 0 the container is in the share, or has no use for one; 1 it would have run\n"
    "without a limit, and must not be started; 2 wrong command line.\n";

Result<std::string> ReadState() {
  constexpr size_t kMost = 4 << 20;
  std::string text;
  char block[16384];
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError("cannot read the container's state from stdin", errno);
    if (n == 0) return text;
    text.append(block, static_cast<size_t>(n));
    if (text.size() > kMost) return Invalid("stdin is too long for an OCI state");
  }
}

Result<std::string> Run(const Options& options) {
  const Result<std::string> state = ReadState();
  if (!state.ok()) return state.error();
  Result<Container> container = ParseState(*state);
  if (!container.ok()) return container.error();
  if (Status s = ReadBundle(*container); !s.ok()) return s.error();
  return Deliver(*container, options);
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--help" || word == "-h") {
      std::fputs(kUsage, stdout);
      return 0;
    }
    if (word == "--version") {
      std::puts("divvy-hook " DIVVY_VERSION);
      return 0;
    }
    std::string* const value = word == "--tenant" ? &options.tenant_dir
                               : word == "--lib"  ? &options.lib_dir
                                                  : nullptr;
    if (value == nullptr || i + 1 == argc) {
      std::fputs(kUsage, stderr);
      return 2;
    }
    *value = argv[++i];
  }
  if (options.tenant_dir.empty() || options.lib_dir.empty()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  try {
    const Result<std::string> done = Run(options);
    if (!done.ok() || !done->empty())
      std::fprintf(stderr, "divvy-hook: %s\n", (done.ok() ? *done : done.error().message).c_str());
    return done.ok() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "divvy-hook: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace divvy::hook

int main(int argc, char** argv) { return divvy::hook::Main(argc, argv); }
