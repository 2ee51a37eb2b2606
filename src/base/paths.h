// Where things lie: the runtime directory of a machine's daemon, and the installed files beside the
// running program. divvyd and divvy agree on these; the shim finds its socket by itself (wire.h).
//
// Threads: any. Cost: allocates, a few system calls; no directory is created here except by
// MakeRuntimeDir.
#pragma once

#include <string>
#include <string_view>

#include "src/base/result.h"

namespace divvy::paths {

// $DIVVY_RUNTIME_DIR, else /run/divvy for root, else $XDG_RUNTIME_DIR/divvy, else /tmp/divvy-UID.
std::string RuntimeDir();

// The directory of one machine's daemon: RUNTIME itself for the real machine (empty profile),
// RUNTIME/sim/PROFILE for a simulated one.
std::string MachineDir(std::string_view runtime_dir, std::string_view sim_profile);

// `profile` as one path component: what is not a letter, digit or one of ".-_@" becomes '_'.
std::string Sanitized(std::string_view profile);

// Files in a machine's directory.
std::string ApiSocket(std::string_view machine_dir);   // divvyd.sock, HTTP
std::string StartLock(std::string_view machine_dir);   // held while a daemon is being started
std::string TenantsDir(std::string_view machine_dir);  // tenants/NAME/tenant.sock
std::string SimDir(std::string_view machine_dir);      // the simulated machine's broker

// Creates `dir` and its parents. Those made here are 0755 for root and 0700 otherwise. Refuses
// (kDenied) a directory that another user owns: it may be a trap in a world-writable /tmp.
Status MakeRuntimeDir(const std::string& dir);

// The installed files: DIVVY_LIB_DIR, else found from the running executable (build tree:
// bin/ beside lib/; installed: bin/ beside lib/ or lib/divvy/).
std::string BinDir();
std::string HelperProgram(std::string_view name);  // that nobody types: lib/divvy/, else BinDir()
std::string LibDir();
std::string ShimLibrary();       // LibDir()/libdivvy.so
std::string ForwarderLibrary();  // LibDir()/libcuda-forward/libcuda.so.1
std::string SimLibDir();         // LibDir()/sim: libcuda.so.1, libnvidia-ml.so.1

}  // namespace divvy::paths
