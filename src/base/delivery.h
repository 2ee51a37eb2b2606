// What every way to deliver a share agrees on: the paths that a tenant's processes find without any
// environment, where copies of the driver lie, and which of them count. Used by `divvy run` (a
// private mount namespace, src/cli/delivery) and divvy-hook (a container's, src/hook).
//
// Pure; threads: any.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace divvy::delivery {

// In the tenant's mount namespace; src/region/wire.h has what is in the tenant's own folder.
constexpr char kRoot[] = "/run/divvy";  // a tmpfs
constexpr char kSelf[] = "/run/divvy/self";
constexpr char kLib[] = "/run/divvy/lib";
constexpr char kReal[] = "/run/divvy/real/libcuda.so.1";  // what the forwarder needs
constexpr char kPreload[] = "/etc/ld.so.preload";
constexpr char kSimMachine[] = "/run/divvy-sim";  // where the simulator looks

// Where drivers lie besides what the loader is told: distributions, containers' driver mounts,
// forward compatibility packages, WSL, NixOS. As for glob(3); in the loader's order, nearly.
constexpr const char* kDriverDirs[] = {
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/local/cuda*/compat",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
    "/usr/local/cuda*/compat/lib*",
};

constexpr size_t kElfHeaderBytes = 64;
// Whether a file that begins with `header` is an x86-64 ELF object.
bool IsNativeElf(std::string_view header);

// What ld.so.preload says when `ours` is loaded first: all of `kept` but what names `ours` already.
std::string MergedPreload(const std::string& ours, std::string_view kept);

}  // namespace divvy::delivery
