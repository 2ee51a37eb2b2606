// A share is put into a container that is about to start. In its mount namespace, before its root
// becomes "/":
//   /run/divvy            a tmpfs, read-only in the end
//   /run/divvy/self       the tenant's folder (socket and marker)
//   /run/divvy/real       the driver's real libcuda.so.1, which the forwarder loads
//   /run/divvy/lib        libdivvy.so; where the root runs 32-bit programs, too, by $PLATFORM: an
//                         empty library for those
//   /etc/ld.so.preload    what the image has, and libdivvy.so; only where glibc is the loader
//   every libcuda.so*     the forwarder
//
// One thread. A container is started, unchanged, when nothing in it could use a GPU; one that could
// and cannot be held to its share is an error, and the runtime starts nothing.
#pragma once

#include <string>

#include "src/base/result.h"
#include "src/hook/container.h"

namespace divvy::hook {

struct Options {
  std::string tenant_dir;  // of the host: tenants/NAME
  std::string lib_dir;     // of the host: libdivvy.so, libcuda-forward/, libdivvy32.so
};

// What was not delivered to a container that goes on, one line; "" = all there is.
Result<std::string> Deliver(const Container& container, const Options& options);

}  // namespace divvy::hook
