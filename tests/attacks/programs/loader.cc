// Asks the dynamic loader for the driver's functions in ways that may lead past a preloaded shim.
//   loader next       dlsym(RTLD_NEXT, …) from a program that has loaded the driver
//   loader dlvsym     the C library's own dlsym, asked for by its version
//   loader dlmopen    the driver in a name space of its own
//   loader absolute   dlopen of the driver's file by its whole path
//   loader bootstrap  the C library's own dlopen and dlsym, found by hand and asked directly
#include <dlfcn.h>

#include <cstring>

#include "tests/attacks/attack.h"

namespace {

attack::Finder Next() {
  ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  return [](const char* name) { return ::dlsym(RTLD_NEXT, name); };
}

attack::Finder Versioned() {
  void* libc = ::dlopen("libc.so.6", RTLD_NOW);
  void* handle = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  using Dlsym = void* (*)(void*, const char*);
  Dlsym asked = nullptr;
  for (const char* version : {"GLIBC_2.34", "GLIBC_2.2.5"})
    if (asked == nullptr) asked = reinterpret_cast<Dlsym>(::dlvsym(libc, "dlsym", version));
  return [=](const char* name) { return asked ? asked(handle, name) : nullptr; };
}

attack::Finder OwnNameSpace() {
  void* handle = ::dlmopen(LM_ID_NEWLM, attack::DriverFile().c_str(), RTLD_NOW);
  if (handle == nullptr) handle = ::dlmopen(LM_ID_NEWLM, "libcuda.so.1", RTLD_NOW);
  return [handle](const char* name) { return handle ? ::dlsym(handle, name) : nullptr; };
}

attack::Finder Absolute() {
  void* handle = ::dlopen(attack::DriverFile().c_str(), RTLD_NOW);
  return [handle](const char* name) { return handle ? ::dlsym(handle, name) : nullptr; };
}

attack::Finder ThroughLibc() {
  const auto in_libc = attack::BySymbolTable([](const std::string& path) {
    return path.find("/libc.so") != std::string::npos || path.find("/libc-") != std::string::npos ||
           path.find("/libdl") != std::string::npos;
  });
  using Dlsym = void* (*)(void*, const char*);
  using Dlopen = void* (*)(const char*, int);
  const auto dlsym_of_libc = reinterpret_cast<Dlsym>(in_libc("dlsym"));
  const auto dlopen_of_libc = reinterpret_cast<Dlopen>(in_libc("dlopen"));
  if (dlsym_of_libc == nullptr || dlopen_of_libc == nullptr)
    return [](const char*) -> void* { return nullptr; };
  void* handle = dlopen_of_libc(attack::DriverFile().c_str(), RTLD_NOW);
  return [=](const char* name) { return handle ? dlsym_of_libc(handle, name) : nullptr; };
}

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1];
  const attack::Finder find = way == "next"       ? Next()
                              : way == "dlvsym"   ? Versioned()
                              : way == "dlmopen"  ? OwnNameSpace()
                              : way == "absolute" ? Absolute()
                                                  : ThroughLibc();
  return attack::Report(attack::EnterAndTake(attack::Driver(find)));
}
