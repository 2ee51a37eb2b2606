#include "src/base/paths.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include <cerrno>
#include <climits>
#include <cstdlib>

namespace divvy::paths {
namespace {

std::string Join(std::string_view a, std::string_view b) {
  return std::string(a) + "/" + std::string(b);
}

bool Exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

const char* NonEmptyEnv(const char* name) {
  const char* value = ::secure_getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

}  // namespace

std::string RuntimeDir() {
  if (const char* dir = NonEmptyEnv("DIVVY_RUNTIME_DIR")) {
    // Absolute: the daemon that is started for it works from "/".
    std::error_code ignored;
    const auto absolute = std::filesystem::absolute(dir, ignored);
    return ignored ? std::string(dir) : absolute.string();
  }
  if (::geteuid() == 0) return "/run/divvy";
  if (const char* dir = NonEmptyEnv("XDG_RUNTIME_DIR")) return Join(dir, "divvy");
  return "/tmp/divvy-" + std::to_string(::geteuid());
}

std::string MachineDir(std::string_view runtime_dir, std::string_view sim_profile) {
  if (sim_profile.empty()) return std::string(runtime_dir);
  return Join(Join(runtime_dir, "sim"), Sanitized(sim_profile));
}

std::string Sanitized(std::string_view profile) {
  std::string out;
  for (const char c : profile) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '@' || (c == '.' && !out.empty());
    out += plain ? c : '_';
  }
  return out;
}

std::string ApiSocket(std::string_view machine_dir) { return Join(machine_dir, "divvyd.sock"); }
std::string StartLock(std::string_view machine_dir) { return Join(machine_dir, "start.lock"); }
std::string TenantsDir(std::string_view machine_dir) { return Join(machine_dir, "tenants"); }
std::string SimDir(std::string_view machine_dir) { return Join(machine_dir, "machine"); }

Status MakeRuntimeDir(const std::string& dir) {
  const mode_t mode = ::geteuid() == 0 ? 0755 : 0700;
  for (size_t at = 1; at <= dir.size(); ++at) {
    if (at != dir.size() && dir[at] != '/') continue;
    const std::string part = dir.substr(0, at);
    if (::mkdir(part.c_str(), mode) != 0 && errno != EEXIST)
      return IoError("cannot create " + part + " (set DIVVY_RUNTIME_DIR to a folder you can write)",
                     errno);
  }
  struct stat st;
  if (::stat(dir.c_str(), &st) != 0) return IoError("cannot read " + dir, errno);
  if (!S_ISDIR(st.st_mode)) return Invalid(dir + " is not a folder; set DIVVY_RUNTIME_DIR");
  if (st.st_uid != ::geteuid())
    return Error{ErrorCode::kDenied,
                 dir + " belongs to another user; set DIVVY_RUNTIME_DIR to a folder of your own"};
  return {};
}

std::string BinDir() {
  // Asked once: in a mount namespace of its own the answer of a process with another root (chroot)
  // is as seen from outside of that.
  static const std::string& dir = *new std::string([] {
    char path[PATH_MAX];
    const ssize_t n = ::readlink("/proc/self/exe", path, sizeof(path));
    const std::string exe = n > 0 ? std::string(path, static_cast<size_t>(n)) : std::string();
    const size_t slash = exe.rfind('/');
    return slash == std::string::npos ? "." : exe.substr(0, slash);
  }());
  return dir;
}

std::string LibDir() {
  if (const char* dir = NonEmptyEnv("DIVVY_LIB_DIR")) return dir;
  const std::string bin = BinDir();
  const size_t slash = bin.rfind('/');
  const std::string prefix = slash == std::string::npos ? ".." : bin.substr(0, slash);
  const std::string packaged = prefix + "/lib/divvy";
  return Exists(packaged + "/libdivvy.so") ? packaged : prefix + "/lib";
}

std::string HelperProgram(std::string_view name) {
  const std::string packaged = Join(LibDir(), name);
  return Exists(packaged) ? packaged : Join(BinDir(), name);
}

std::string ShimLibrary() { return Join(LibDir(), "libdivvy.so"); }
std::string ForwarderLibrary() { return Join(LibDir(), "libcuda-forward/libcuda.so.1"); }
std::string SimLibDir() { return Join(LibDir(), "sim"); }

}  // namespace divvy::paths
