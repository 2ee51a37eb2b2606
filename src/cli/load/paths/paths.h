// One function for each way to take memory; the list is in paths.cc. Private to this folder.
#pragma once

#include <memory>

#include "src/cli/load/paths.h"

namespace divvy::cli {

// linear.cc
std::unique_ptr<MemoryPath> LinearPath(Driver driver);
std::unique_ptr<MemoryPath> OddPath(Driver driver);
std::unique_ptr<MemoryPath> PitchPath(Driver driver);
std::unique_ptr<MemoryPath> ManagedPath(Driver driver);
// array.cc
std::unique_ptr<MemoryPath> ArrayPath(Driver driver);
std::unique_ptr<MemoryPath> Array3dPath(Driver driver);
std::unique_ptr<MemoryPath> MipmapPath(Driver driver);
// vmm.cc
std::unique_ptr<MemoryPath> VmmPath(Driver driver);
std::unique_ptr<MemoryPath> VmmReleasedPath(Driver driver);
std::unique_ptr<MemoryPath> VmmAliasPath(Driver driver);
std::unique_ptr<MemoryPath> VmmImportPath(Driver driver);
// pool.cc
std::unique_ptr<MemoryPath> PoolPath(Driver driver);
std::unique_ptr<MemoryPath> UserPoolPath(Driver driver);
std::unique_ptr<MemoryPath> GraphPath(Driver driver);
// ipc.cc
std::unique_ptr<MemoryPath> IpcPath(Driver driver);
// code.cc
std::unique_ptr<MemoryPath> ModulePath(Driver driver);
std::unique_ptr<MemoryPath> ContextPath(Driver driver);
std::unique_ptr<MemoryPath> StackPath(Driver driver);

}  // namespace divvy::cli
