// Hidden replacements for what newer glibc versions or libstdc++.so would have to supply.
//
// An archive at the end of the link line of each portable library (cmake/portable.cmake): a
// function gets in only if something refers to it, and never out (version script, hidden).
// Nothing is taken from libc's headers, so that no inline or redirected declaration interferes.
// Any thread; no state; errno is set as by the functions that these stand in for.
#include <sys/syscall.h>

using size_type = decltype(sizeof 0);
struct stat;

extern "C" {
#pragma GCC visibility push(default)
long syscall(long number, ...);
[[noreturn]] void abort();
// The plain functions, whatever name the headers of the build host would redirect them to.
long plain_strtol(const char*, char**, int) __asm__("strtol");
unsigned long plain_strtoul(const char*, char**, int) __asm__("strtoul");
long long plain_strtoll(const char*, char**, int) __asm__("strtoll");
unsigned long long plain_strtoull(const char*, char**, int) __asm__("strtoull");
#pragma GCC visibility pop

#pragma GCC visibility push(hidden)

// glibc 2.33 made functions of these, before they were inline around __xstat, which musl lacks.
// The kernel's struct stat is libc's own on 64-bit systems.
constexpr int kAtFdcwd = -100;
constexpr int kAtSymlinkNofollow = 0x100;
int stat(const char* path, struct stat* out) {
  return static_cast<int>(syscall(SYS_newfstatat, kAtFdcwd, path, out, 0));
}
int lstat(const char* path, struct stat* out) {
  return static_cast<int>(syscall(SYS_newfstatat, kAtFdcwd, path, out, kAtSymlinkNofollow));
}
int fstat(int fd, struct stat* out) { return static_cast<int>(syscall(SYS_fstat, fd, out)); }
int fstatat(int dir, const char* path, struct stat* out, int flags) {
  return static_cast<int>(syscall(SYS_newfstatat, dir, path, out, flags));
}

long getrandom(void* out, size_type bytes, unsigned flags) {  // 2.25
  return syscall(SYS_getrandom, out, bytes, flags);
}
int memfd_create(const char* name, unsigned flags) {  // 2.27
  return static_cast<int>(syscall(SYS_memfd_create, name, flags));
}
int gettid() { return static_cast<int>(syscall(SYS_gettid)); }  // 2.30

// 2.32: libstdc++'s headers may skip atomics when it is set. Never set: always correct.
char __libc_single_threaded = 0;

// 2.38: where the headers of a newer build host send strtol and its like.
long __isoc23_strtol(const char* s, char** end, int base) { return plain_strtol(s, end, base); }
unsigned long __isoc23_strtoul(const char* s, char** end, int base) {
  return plain_strtoul(s, end, base);
}
long long __isoc23_strtoll(const char* s, char** end, int base) {
  return plain_strtoll(s, end, base);
}
unsigned long long __isoc23_strtoull(const char* s, char** end, int base) {
  return plain_strtoull(s, end, base);
}

// C++ without libstdc++: a pure virtual call is a bug of ours.
[[noreturn]] void __cxa_pure_virtual() { abort(); }
[[noreturn]] void __cxa_deleted_virtual() { abort(); }

#pragma GCC visibility pop
}

// The deleting destructor of a class with virtual functions refers to these even if nothing is
// ever deleted. There is no operator new here (its use is a link error), so nothing can be.
// (The compiler fixes their visibility itself; --exclude-libs keeps them in.)
namespace std {
enum class align_val_t : size_type;
}
void operator delete(void*) noexcept { abort(); }
void operator delete(void*, size_type) noexcept { abort(); }
void operator delete(void*, std::align_val_t) noexcept { abort(); }
void operator delete(void*, size_type, std::align_val_t) noexcept { abort(); }
