#include "src/daemon/locks.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace divvy::daemon {

Result<UniqueFd> TakeLock(const std::string& path, const std::string& holder,
                          const std::string& taken, mode_t mode) {
  UniqueFd fd;
  // Without O_CREAT first: in a sticky folder the kernel may refuse to "create" another user's file
  // (fs.protected_regular), even to root.
  for (int attempt = 0; attempt < 10 && !fd.valid(); ++attempt) {
    fd.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (fd.valid() || errno != ENOENT) break;
    fd.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
    if (fd.valid()) ::fchmod(fd.get(), mode);  // whatever the umask
    if (!fd.valid() && errno != EEXIST) break;
  }
  if (!fd.valid()) return IoError("cannot open the lock " + path, errno);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    char text[512] = {};
    const ssize_t n = ::pread(fd.get(), text, sizeof text - 1, 0);
    std::string who(text, n > 0 ? static_cast<size_t>(n) : 0);
    while (!who.empty() && who.back() == '\n') who.pop_back();
    return Error{ErrorCode::kExists, taken + (who.empty() ? "another divvyd" : who)};
  }
  const std::string line = holder + "\n";
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), line.data(), line.size(), 0) != static_cast<ssize_t>(line.size()))
    return IoError("cannot write " + path, errno);
  return fd;
}

Result<std::string> DeviceLockDir() {
  for (const char* dir : {"/run/lock/divvy", "/tmp/divvy-locks"}) {
    if (::mkdir(dir, 01777) == 0) ::chmod(dir, 01777);
    struct stat st {};
    if (::lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && ::access(dir, W_OK | X_OK) == 0)
      return std::string(dir);
  }
  return Error{
      ErrorCode::kDenied,
      "neither /run/lock/divvy nor /tmp/divvy-locks can be written: device locks need one"};
}

}  // namespace divvy::daemon
