// Reads the driver's functions out of its own symbol table in memory, asking nobody.
#include <dlfcn.h>

#include "tests/attacks/attack.h"

int main() {
  ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  const auto cu = attack::Driver(attack::BySymbolTable(attack::IsDriverObject));
  return attack::Report(attack::EnterAndTake(cu));
}
