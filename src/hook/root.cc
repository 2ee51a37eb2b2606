#include "src/hook/root.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace divvy::hook {
namespace {

Error Failed(const std::string& what, int error) {
  if (error == ENOENT || error == ENOTDIR) return NotFound(what + ": not there");
  return IoError(what, error);
}

int OpenAt(int folder, const std::string& path, int flags, unsigned mode) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_IN_ROOT;
  // EAGAIN: something was renamed meanwhile, and ".." could not be vouched for.
  for (int tries = 0;; ++tries) {
    const auto fd =
        static_cast<int>(::syscall(SYS_openat2, folder, path.c_str(), &how, sizeof how));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR) || tries == 100) return fd;
  }
}

// A user namespace may not take away the flags of a mount that came from outside.
unsigned long KeptFlags(const UniqueFd& mount) {
  struct statfs st {};
  if (::fstatfs(mount.get(), &st) != 0) return 0;
  const auto has = static_cast<unsigned long>(st.f_flags);
  unsigned long kept = has & (MS_NOEXEC | MS_NOATIME | MS_NODIRATIME);
  if ((has & ST_RELATIME) != 0) kept |= MS_RELATIME;
  return kept;
}

}  // namespace

std::string ByDescriptor(const UniqueFd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

Result<std::string> ReadHeld(const UniqueFd& file, size_t most) {
  struct stat st {};
  if (::fstat(file.get(), &st) != 0) return IoError("cannot look at a file", errno);
  if (!S_ISREG(st.st_mode)) return Invalid("not a regular file");
  const UniqueFd fd(::open(ByDescriptor(file).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return IoError("cannot read a file", errno);
  std::string text(std::min(most, static_cast<size_t>(st.st_size)), '\0');
  size_t at = 0;
  while (at < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError("cannot read a file", errno);
    if (n == 0) break;
    at += static_cast<size_t>(n);
  }
  text.resize(at);
  return text;
}

Result<Root> Root::At(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return Failed("the container's root " + folder, errno);
  const UniqueFd works(OpenAt(fd.get(), "/", O_PATH, 0));
  if (!works.valid() && errno == ENOSYS)
    return Unavailable(
        "this kernel has no openat2 (Linux 5.6), without which links in an image "
        "cannot be followed safely");
  return Root(std::move(fd));
}

Result<UniqueFd> Root::Open(const std::string& path, int flags, unsigned mode) const {
  UniqueFd fd(OpenAt(fd_.get(), path, flags, mode));
  if (!fd.valid()) return Failed("the container's " + path, errno);
  return fd;
}

Result<std::string> Root::Read(const std::string& path, size_t most) const {
  const Result<UniqueFd> file = Open(path, O_PATH);
  if (!file.ok()) return file.error();
  Result<std::string> text = ReadHeld(*file, most);
  if (!text.ok()) return Error{text.error().code, path + ": " + text.error().message};
  return text;
}

std::vector<std::string> Root::List(const std::string& folder) const {
  std::vector<std::string> names;
  Result<UniqueFd> fd = Open(folder, O_RDONLY | O_DIRECTORY);
  if (!fd.ok()) return names;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(fd->get()), ::closedir);
  if (dir == nullptr) return names;
  fd->release();
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> Root::Match(const std::string& pattern) const {
  std::vector<std::string> found{""};
  for (size_t at = 0; at < pattern.size();) {
    const size_t end = std::min(pattern.find('/', at + 1), pattern.size());
    const std::string part = pattern.substr(at, end - at);  // "/name"
    at = end;
    if (part.find_first_of("*?[") == std::string::npos) {
      for (std::string& path : found) path += part;
      continue;
    }
    std::vector<std::string> deeper;
    for (const std::string& path : found)
      for (const std::string& name : List(path.empty() ? "/" : path))
        if (::fnmatch(part.c_str() + 1, name.c_str(), FNM_PERIOD) == 0)
          deeper.push_back(path + "/" + name);
    found = std::move(deeper);
  }
  std::erase_if(found, [this](const std::string& path) { return !Open(path, O_PATH).ok(); });
  return found;
}

Status Root::MakeFolders(const std::string& path) const {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (!Open(part, O_PATH | O_DIRECTORY).ok()) {
      const size_t slash = part.rfind('/');
      const Result<UniqueFd> parent =
          Open(slash == 0 ? "/" : part.substr(0, slash), O_RDONLY | O_DIRECTORY);
      if (!parent.ok()) return parent.error();
      if (::mkdirat(parent->get(), part.c_str() + slash + 1, 0755) != 0)
        return IoError("cannot make " + part + " in the container", errno);
    }
    if (end == std::string::npos) return {};
  }
}

Status Root::MakeFile(const std::string& path, const std::string& content) const {
  if (Open(path, O_PATH).ok()) return {};
  const Result<UniqueFd> fd = Open(path, O_WRONLY | O_CREAT, 0644);
  if (!fd.ok()) return fd.error();
  if (::write(fd->get(), content.data(), content.size()) != static_cast<ssize_t>(content.size()))
    return IoError("cannot write the container's " + path, errno);
  return {};
}

Status Root::Bind(const UniqueFd& source, const std::string& path) const {
  const Result<UniqueFd> target = Open(path, O_PATH);
  if (!target.ok()) return target.error();
  if (::mount(ByDescriptor(source).c_str(), ByDescriptor(*target).c_str(), nullptr, MS_BIND,
              nullptr) != 0)
    return IoError("cannot mount over the container's " + path, errno);
  return Protect(path);
}

Status Root::MountMemory(const std::string& path) const {
  const Result<UniqueFd> target = Open(path, O_PATH | O_DIRECTORY);
  if (!target.ok()) return target.error();
  if (::mount("divvy", ByDescriptor(*target).c_str(), "tmpfs", MS_NOSUID | MS_NODEV,
              "size=1m,mode=0755") != 0)
    return IoError("cannot mount a tmpfs at the container's " + path, errno);
  return {};
}

Root::Unlocked::Unlocked(const Root& root) : root_(root) {
  struct statfs st {};
  if (::fstatfs(root.fd_.get(), &st) != 0) return;
  const auto has = static_cast<unsigned long>(st.f_flags);
  if ((has & MS_RDONLY) == 0) return;
  const unsigned long kept =
      MS_REMOUNT | MS_BIND | KeptFlags(root.fd_) | (has & (MS_NOSUID | MS_NODEV));
  // Where it may not be: making a mount point says so, if one is missing.
  if (::mount(nullptr, ByDescriptor(root.fd_).c_str(), nullptr, kept, nullptr) == 0)
    flags_ = kept | MS_RDONLY;
}

Root::Unlocked::~Unlocked() {
  if (flags_ == 0) return;
  // It cannot fail where the opposite could; a container whose root stayed writable must not start.
  if (::mount(nullptr, ByDescriptor(root_.fd_).c_str(), nullptr, flags_, nullptr) != 0) ::_exit(1);
}

Status Root::Protect(const std::string& path) const {
  // Opened anew: the descriptor is of what is mounted there now.
  const Result<UniqueFd> mounted = Open(path, O_PATH);
  if (!mounted.ok()) return mounted.error();
  const unsigned long flags =
      MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | KeptFlags(*mounted);
  if (::mount(nullptr, ByDescriptor(*mounted).c_str(), nullptr, flags, nullptr) != 0)
    return IoError("cannot make the container's " + path + " read-only", errno);
  return {};
}

}  // namespace divvy::hook
