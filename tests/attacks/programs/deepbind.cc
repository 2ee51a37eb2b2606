// Loads a library with RTLD_DEEPBIND that uses the driver. `deepbind linked|dlsym`.
#include <dlfcn.h>

#include "tests/attacks/attack.h"

int main(int, char** argv) {
  const std::string file = attack::Beside("libdeepbind_" + std::string(argv[1]) + ".so");
  void* handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_DEEPBIND);
  if (handle == nullptr) return attack::Report({.last = -1, .note = "plugin not loaded"});
  attack::Holding holding;
  reinterpret_cast<void (*)(attack::Holding*)>(::dlsym(handle, "plugin_take"))(&holding);
  return attack::Report(holding);
}
