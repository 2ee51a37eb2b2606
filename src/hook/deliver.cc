#include "src/hook/deliver.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "src/base/delivery.h"
#include "src/hook/copies.h"
#include "src/hook/root.h"
#include "src/region/wire.h"

namespace divvy::hook {
namespace {

using delivery::kLib;
using delivery::kPreload;
using delivery::kReal;
using delivery::kRoot;
using delivery::kSelf;

constexpr char kShim[] = "libdivvy.so";
constexpr size_t kMostPreload = 64 << 10;
// Values of $PLATFORM, by which a loader finds the library of its own kind. glibc 2.26 to 2.36 say
// haswell or xeon_phi where the processor is one.
constexpr const char* kPlatforms64[] = {"haswell", "xeon_phi"};
constexpr const char* kPlatforms32[] = {"i486", "i586", "i686"};

Result<UniqueFd> Hold(const std::string& path, const char* hint) {
  UniqueFd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd.valid()) return Unavailable(path + " is missing; " + hint);
  return fd;
}

class Delivery {
 public:
  Delivery(const Root& root, const Options& options) : root_(root), options_(options) {}

  Status Mount(const std::vector<Copy>& copies) {
    const Root::Unlocked unlocked(root_);
    if (Status s = MakeRoot(); !s.ok()) return s;
    if (Status s = BindOwn(options_.lib_dir + "/" + kShim, std::string(kLib) + "/" + kShim);
        !s.ok())
      return s;
    if (Status s = Forward(copies); !s.ok()) return s;
    preload_ = HasGlibc(root_) ? Preload() : Status();
    return root_.Protect(kRoot);
  }
  // Whether the shim is preloaded wherever it can be.
  const Status& preload() const { return preload_; }

 private:
  Status MakeRoot() {
    // First of all: without it nobody would be asked.
    const Result<UniqueFd> tenant =
        Hold(options_.tenant_dir, "is the share there (divvy share list) and divvyd running?");
    if (!tenant.ok()) return tenant.error();
    if (Status s = root_.MakeFolders(kRoot); !s.ok()) return s;
    if (root_.Open(wire::kNamespaceMarker, O_PATH).ok())
      return Invalid(
          "this container has a share already; give it one, over several GPUs if need "
          "be (divvy share create --gpus 2)");
    if (Status s = root_.MountMemory(kRoot); !s.ok()) return s;
    for (const char* folder : {kSelf, "/run/divvy/real", kLib})
      if (Status s = root_.MakeFolders(folder); !s.ok()) return s;
    if (Status s = root_.MakeFile(wire::kNamespaceMarker); !s.ok()) return s;
    return root_.Bind(*tenant, kSelf);
  }

  Status BindOwn(const std::string& from, const std::string& to) {
    const Result<UniqueFd> file = Hold(from, "is Divvy installed completely?");
    if (!file.ok()) return file.error();
    if (Status s = root_.MakeFile(to); !s.ok()) return s;
    return root_.Bind(*file, to);
  }

  // The forwarder takes every copy's place; the one that the loader would take stays reachable.
  Status Forward(const std::vector<Copy>& copies) {
    if (copies.empty()) return {};
    if (Status s = root_.MakeFile(kReal); !s.ok()) return s;
    if (Status s = root_.Bind(copies.front().file, kReal); !s.ok()) return s;
    const Result<UniqueFd> forwarder =
        Hold(options_.lib_dir + "/libcuda-forward/libcuda.so.1", "is Divvy installed completely?");
    if (!forwarder.ok()) return forwarder.error();
    for (const Copy& copy : copies)
      if (Status s = root_.Bind(*forwarder, copy.path); !s.ok()) return s;
    return {};
  }

  Status Preload() {
    std::string ours = std::string(kLib) + "/" + kShim;
    if (Has32BitLoader(root_)) {
      if (Status s = MakePlatforms(); !s.ok()) return s;
      ours = std::string(kLib) + "/$PLATFORM/" + kShim;
    }
    const Result<std::string> kept = root_.Read(kPreload, kMostPreload);
    const std::string file = std::string(kRoot) + "/ld.so.preload";
    if (Status s = root_.MakeFile(file, delivery::MergedPreload(ours, kept.ok() ? *kept : ""));
        !s.ok())
      return s;
    // A mount point is needed; empty, it changes nothing for whoever looks without the mount.
    if (Status s = root_.MakeFile(kPreload); !s.ok()) return s;
    const Result<UniqueFd> merged = root_.Open(file, O_PATH);
    return merged.ok() ? root_.Bind(*merged, kPreload) : Status(merged.error());
  }

  // lib/x86_64/libdivvy.so for 64-bit loaders, lib/i386/libdivvy.so for the others.
  Status MakePlatforms() {
    const std::string lib = kLib;
    for (const char* folder : {"/x86_64", "/i386"})
      if (Status s = root_.MakeFolders(lib + folder); !s.ok()) return s;
    if (Status s = BindOwn(options_.lib_dir + "/" + kShim, lib + "/x86_64/" + kShim); !s.ok())
      return s;
    if (Status s = BindOwn(options_.lib_dir + "/libdivvy32.so", lib + "/i386/" + kShim); !s.ok())
      return s;
    const Result<UniqueFd> folder = root_.Open(lib, O_RDONLY | O_DIRECTORY);
    if (!folder.ok()) return folder.error();
    for (const char* name : kPlatforms64)
      if (::symlinkat("x86_64", folder->get(), name) != 0) return IoError(name, errno);
    for (const char* name : kPlatforms32)
      if (::symlinkat("i386", folder->get(), name) != 0) return IoError(name, errno);
    return {};
  }

  const Root& root_;
  const Options& options_;
  Status preload_;
};

}  // namespace

Result<std::string> Deliver(const Container& container, const Options& options) {
  const Result<Root> root = Root::At(container.root);
  if (!root.ok()) return root.error();
  const std::vector<Copy> copies = FindCopies(*root, container);
  Delivery delivery(*root, options);
  const Status mounted = delivery.Mount(copies);
  if (!mounted.ok()) {
    if (!copies.empty() || container.has_gpu_nodes) return mounted.error();
    return mounted.error().message + "; it has no driver and no GPU, and runs without a share";
  }
  if (!delivery.preload().ok()) {
    // The forwarder loads the shim by itself; without one nothing would.
    if (copies.empty() && container.has_gpu_nodes) return delivery.preload().error();
    return delivery.preload().error().message +
           "; the share holds by the driver's library alone, and nvidia-smi shows the whole GPU";
  }
  if (copies.empty() && container.has_gpu_nodes)
    return std::string(
        "it has a GPU, but no libcuda.so was found in it; name the GPU's own device "
        "before the share's");
  return std::string();
}

}  // namespace divvy::hook
