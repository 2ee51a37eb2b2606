// Finding the tenant's socket; see tenancy.h.
#include "src/shim/tenancy.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

#include "src/region/wire.h"
#include "src/shim/text.h"

namespace divvy::shim {
namespace {

enum State : uint32_t { kUnknown, kLooking, kNone, kTenant };
std::atomic<uint32_t> state{kUnknown};
char socket_path[kSocketPathBytes];

// The variable as it was when the program was started, read from the kernel's record of it.
bool FromStart(char* out) noexcept {
  // By system calls, past any library that wraps open and read: this runs before its start, too.
  const auto fd =
      static_cast<int>(syscall(SYS_openat, AT_FDCWD, "/proc/self/environ", O_RDONLY | O_CLOEXEC));
  if (fd < 0) return false;
  constexpr size_t kName = sizeof(wire::kSocketVariable) - 1;
  char block[4096];
  size_t matched = 0;  // characters of "NAME=" seen at the start of the current entry
  size_t length = 0;   // characters of the value copied
  bool skip = false, copying = false, done = false;
  for (ssize_t n; !done && (n = syscall(SYS_read, fd, block, sizeof(block))) > 0;) {
    for (ssize_t i = 0; i < n && !done; ++i) {
      const char c = block[i];
      if (copying) {
        if (length + 1 < kSocketPathBytes) out[length++] = c;
        done = c == 0;
      } else if (c == 0) {
        matched = 0, skip = false;
      } else if (!skip) {
        const char want = matched < kName ? wire::kSocketVariable[matched] : '=';
        skip = c != want;
        copying = !skip && matched++ == kName;
      }
    }
  }
  syscall(SYS_close, fd);
  out[length < kSocketPathBytes ? length : kSocketPathBytes - 1] = 0;
  return copying && length > 1;
}

bool Look() noexcept {
  if (access(wire::kSelfMarker, F_OK) == 0 || access(wire::kNamespaceMarker, F_OK) == 0) {
    CopyText(socket_path, wire::kSelfSocket, kSocketPathBytes);
    return true;
  }
  if (const char* value = getenv(wire::kSocketVariable); value != nullptr && *value != 0) {
    CopyText(socket_path, value, kSocketPathBytes);
    return true;
  }
  return FromStart(socket_path);
}

}  // namespace

bool IsTenant() noexcept {
  // Acquire: partner of the release below, so that socket_path is complete.
  uint32_t s = state.load(std::memory_order_acquire);
  if (__builtin_expect(s >= kNone, 1)) return s == kTenant;
  uint32_t unknown = kUnknown;
  if (state.compare_exchange_strong(unknown, kLooking, std::memory_order_acq_rel)) {
    s = Look() ? kTenant : kNone;
    state.store(s, std::memory_order_release);
    return s == kTenant;
  }
  // Another thread is looking. A child forked at this very moment would wait for nobody: bounded.
  constexpr timespec kNap{0, 100'000};
  for (int i = 0; i < 1000 && (s = state.load(std::memory_order_acquire)) == kLooking; ++i)
    syscall(SYS_nanosleep, &kNap, nullptr);
  if (s == kLooking) {
    s = Look() ? kTenant : kNone;
    state.store(s, std::memory_order_release);
  }
  return s == kTenant;
}

bool TenantByMarker() noexcept { return IsTenant() && Equal(socket_path, wire::kSelfSocket); }

const char* TenantSocket() noexcept { return socket_path; }

void ForgetTenancy() noexcept { state.store(kUnknown, std::memory_order_release); }

}  // namespace divvy::shim
