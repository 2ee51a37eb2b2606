// Copies the driver's file to another name and uses the copy.
//   second_copy dlsym  by dlsym          second_copy walk  by its symbol table
//   second_copy soname with its DT_SONAME overwritten as well, by dlsym
#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "tests/attacks/attack.h"

namespace {

std::string Copy(bool rename) {
  std::ifstream in(attack::DriverFile(), std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (rename)
    for (size_t at = bytes.find("libcuda.so.1"); at != std::string::npos;
         at = bytes.find("libcuda.so.1", at + 1))
      bytes.replace(at, 12, "libother.s.1");
  char dir[] = "/tmp/attack-copy-XXXXXX";
  if (::mkdtemp(dir) == nullptr) return "";
  const std::string path = std::string(dir) + "/libunlike.so";
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1], copy = Copy(way == "soname");
  void* handle = ::dlopen(copy.c_str(), RTLD_NOW);
  if (handle == nullptr) {
    const char* why = ::dlerror();
    return attack::Report({.last = -1, .note = why != nullptr ? why : "not loaded"});
  }
  const attack::Finder find =
      way == "walk" ? attack::BySymbolTable([&](const std::string& path) { return path == copy; })
                    : attack::Finder([=](const char* name) { return ::dlsym(handle, name); });
  const attack::Holding holding = attack::EnterAndTake(attack::Driver(find));
  ::unlink(copy.c_str());
  ::rmdir(copy.substr(0, copy.rfind('/')).c_str());
  return attack::Report(holding);
}
