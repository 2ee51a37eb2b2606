// Lays hands on the memory that the shim shares with the daemon, after a first allocation.
//   segments zero      keeps writing zero into the books while it takes more
//   segments garbage   writes noise over the whole usage segment, then takes more
//   segments forge     writes charges of its own choice that explain what the driver shows
//   segments writable  mprotect, remap and reopen the policy, raise the limit, then take
//   segments replace   puts a private copy of the policy with a higher limit over the shared one
//   segments truncate  ftruncate of both, by their mappings and by every descriptor
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <random>

#include "src/region/layout.h"
#include "tests/attacks/attack.h"

namespace {

using divvy::region::Policy;
using divvy::region::Usage;

Policy* g_policy = nullptr;
Usage* g_usage = nullptr;
std::vector<attack::Mapping> g_mappings;

void Find() {
  g_mappings = attack::SegmentMappings();
  for (const attack::Mapping& m : g_mappings) {
    if (*reinterpret_cast<uint32_t*>(m.start) == divvy::region::kPolicyMagic)
      g_policy = reinterpret_cast<Policy*>(m.start);
    else
      g_usage = reinterpret_cast<Usage*>(m.start);
  }
}

int Reopen(const attack::Mapping& m) {
  return ::open(("/proc/self/map_files/" + m.range).c_str(), O_RDWR);
}

void RaiseLimit(Policy* policy) {
  policy->device[0].limit_bytes = size_t{64} << 30;
  policy->device[0].rest_bytes = UINT64_MAX;
}

// True if a limit was really raised in place.
bool Writable() {
  const uintptr_t at = reinterpret_cast<uintptr_t>(g_policy);
  if (::mprotect(g_policy, sizeof(Policy), PROT_READ | PROT_WRITE) == 0) {
    RaiseLimit(g_policy);
    return true;
  }
  for (const attack::Mapping& m : g_mappings) {
    if (m.start != at) continue;
    const int fd = Reopen(m);
    if (fd < 0) continue;
    void* again = ::mmap(nullptr, sizeof(Policy), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const uint64_t high = size_t{64} << 30;
    const bool written =
        ::pwrite(fd, &high, sizeof(high), offsetof(Policy, device[0].limit_bytes)) == sizeof(high);
    if (again != MAP_FAILED) RaiseLimit(static_cast<Policy*>(again));
    ::close(fd);
    if (again != MAP_FAILED || written) return true;
  }
  return false;
}

void Replace() {
  std::vector<char> copy(divvy::region::kPolicyBytes);
  std::memcpy(copy.data(), static_cast<void*>(g_policy), copy.size());
  void* mine = ::mmap(g_policy, copy.size(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (mine == MAP_FAILED) return;
  std::memcpy(mine, copy.data(), copy.size());
  RaiseLimit(g_policy);
}

bool Truncate() {
  bool any = false;
  for (const attack::Mapping& m : g_mappings) {
    const int fd = Reopen(m);
    any = (fd >= 0 && ::ftruncate(fd, 0) == 0) || any;
    any = (fd >= 0 && ::ftruncate(fd, 1 << 30) == 0) || any;
    if (fd >= 0) ::close(fd);
  }
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ec;
    const std::string to = std::filesystem::read_symlink(entry, ec).string();
    if (to.find("memfd:divvy-policy") != std::string::npos ||
        to.find("memfd:divvy-usage") != std::string::npos)
      any = ::ftruncate(std::stoi(entry.path().filename()), 0) == 0 || any;
  }
  return any;
}

void Zero() {
  for (auto& word : g_usage->book) word = 0;
  for (auto& slot : g_usage->slot) {
    if (slot.owner_tag == 0) continue;
    for (auto& device : slot.device) device.charged_units = 0;
  }
}

void Garbage() {
  std::mt19937_64 random(1);
  auto* words = reinterpret_cast<uint64_t*>(g_usage);
  for (size_t i = 0; i < offsetof(Usage, slot[64]) / 8; ++i) words[i] = random();
}

// What the driver will show of this process becomes its charge, and the book says less.
void Forge(size_t bytes) {
  for (auto& slot : g_usage->slot)
    if (slot.owner_tag != 0) slot.device[0].charged_units = divvy::region::UnitsOf(bytes);
  g_usage->book[0] = divvy::region::UnitsOf(attack::kGiB) << 28;
}

// Memory that it would share with itself, as large as can be: charged more than once, it says.
void Share() {
  g_usage->holds_top = 8;
  for (unsigned i = 0; i < 8; ++i) {
    divvy::region::SharedHold& hold = g_usage->hold[i];
    hold.object = 7;
    hold.units = divvy::region::UnitsOf(attack::kGiB);
    hold.word = divvy::region::kHoldCounted | uint64_t{1 + i % 2} << 16;
  }
}

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1];
  const auto cu = attack::Driver(attack::ByName());
  const CUresult entered = attack::Enter(cu);
  CUdeviceptr first = 0;
  cu.cuMemAlloc_v2(&first, attack::kMiB);
  Find();
  if (entered != CUDA_SUCCESS || g_policy == nullptr || g_usage == nullptr)
    return attack::Report({.last = entered, .note = "no segments found"});

  bool got_in = false;
  if (way == "garbage") Garbage();
  if (way == "share") Share();
  if (way == "writable") got_in = Writable();
  if (way == "replace") Replace();
  if (way == "truncate") got_in = Truncate();
  size_t held = attack::kMiB;
  attack::Holding holding = attack::TakeAll([&](size_t bytes) {
    if (way == "zero") Zero();
    if (way == "forge") Forge(held + 600 * attack::kMiB);
    CUdeviceptr p = 0;
    const CUresult r = cu.cuMemAlloc_v2(&p, bytes);
    if (r == CUDA_SUCCESS) held += bytes;
    return r;
  });
  holding.breached = got_in;
  if (way == "forge") Forge(held + 600 * attack::kMiB);
  return attack::Report(holding);
}
