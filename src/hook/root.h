// A container's root as divvy-hook sees it: a folder of the host whose contents nobody vouches for.
// Every path is resolved inside of it by the kernel (openat2, RESOLVE_IN_ROOT): links, absolute
// ones and "..", lead to other files of the root, never out of it.
//
// One thread. Errors: kNotFound (no such file), kInvalid (not what was asked for), kIo, kDenied.
#pragma once

#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/base/unique_fd.h"

namespace divvy::hook {

class Root {
 public:
  // kUnavailable on kernels without openat2 (before 5.6).
  static Result<Root> At(const std::string& folder);

  // As open(2); O_CLOEXEC is added. What is mounted at `path` is what is opened.
  Result<UniqueFd> Open(const std::string& path, int flags, unsigned mode = 0) const;
  // A regular file's contents, at most `most` bytes of them. Never blocks on a FIFO or a device.
  Result<std::string> Read(const std::string& path, size_t most) const;
  std::vector<std::string> List(const std::string& folder) const;  // sorted; none: empty
  // The existing paths that match, "*" standing for a part of a name, sorted.
  std::vector<std::string> Match(const std::string& pattern) const;

  Status MakeFolders(const std::string& path) const;
  // A file with this content; an existing one is kept as it is.
  Status MakeFile(const std::string& path, const std::string& content = "") const;

  // Mounts what `source` is (a file or a folder, held by a descriptor) over `path`: read-only,
  // without devices and setuid.
  Status Bind(const UniqueFd& source, const std::string& path) const;
  // An empty file system in memory of its own over `path`, and that it is read-only from now on.
  Status MountMemory(const std::string& path) const;
  Status Protect(const std::string& path) const;

  // While one lives, a root that is mounted read-only can be written to: mount points are made in
  // it. (crun has it read-only before it calls hooks; runc makes it so afterwards.)
  class Unlocked {
   public:
    explicit Unlocked(const Root& root);
    ~Unlocked();
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

   private:
    const Root& root_;
    unsigned long flags_ = 0;  // those it had, 0 = nothing was changed
  };

 private:
  explicit Root(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// The kernel's name for a descriptor's file: what follows neither link nor mount.
std::string ByDescriptor(const UniqueFd& fd);
// The first `most` bytes of the regular file that `file` (O_PATH) is.
Result<std::string> ReadHeld(const UniqueFd& file, size_t most);

}  // namespace divvy::hook
