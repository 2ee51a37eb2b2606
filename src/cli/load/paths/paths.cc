// The list of memory paths.
#include "src/cli/load/paths/paths.h"

namespace divvy::cli {

const std::vector<PathInfo>& MemoryPaths() {
  static const auto& paths = *new std::vector<PathInfo>{
      {"linear", "cuMemAlloc", LinearPath},
      {"linear-odd", "cuMemAlloc of 2 MiB and a byte, each of which takes 4 MiB", OddPath},
      {"pitch", "cuMemAllocPitch", PitchPath},
      {"managed", "cuMemAllocManaged", ManagedPath},
      {"array", "cuArrayCreate", ArrayPath},
      {"array3d", "cuArray3DCreate", Array3dPath},
      {"mipmap", "cuMipmappedArrayCreate", MipmapPath},
      {"vmm", "cuMemCreate, cuMemMap", VmmPath},
      {"vmm-released", "cuMemCreate, cuMemMap, handle released while mapped", VmmReleasedPath},
      {"vmm-alias", "cuMemCreate once, cuMemMap twice", VmmAliasPath},
      {"vmm-import", "cuMemCreate, exported and imported by descriptor", VmmImportPath},
      {"pool", "cuMemAllocAsync from the device's pool", PoolPath},
      {"userpool", "cuMemAllocFromPoolAsync from a pool of its own", UserPoolPath},
      {"graph", "memory allocation nodes of graphs", GraphPath},
      {"ipc", "cuMemAlloc in another process, opened by cuIpcOpenMemHandle: counts once", IpcPath},
      {"module", "a variable in a loaded module", ModulePath},
      {"context", "cuCtxCreate, until --alloc is taken: a context takes what it takes", ContextPath,
       false},
      {"stack", "cuCtxSetLimit: deeper stacks for all of the device's threads", StackPath},
  };
  return paths;
}

Result<const PathInfo*> FindMemoryPath(const std::string& name) {
  std::string known;
  for (const PathInfo& path : MemoryPaths()) {
    if (name == path.name) return &path;
    known += std::string(known.empty() ? "" : ", ") + path.name;
  }
  return Invalid("no memory path is called '" + name + "'; there are " + known);
}

}  // namespace divvy::cli
