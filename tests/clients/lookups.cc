// Asks the driver what NVIDIA's runtime 13.0 asks of it, by the way the runtime takes: one dlsym of
// cuGetProcAddress_v2, all else through that. Prints "NAME VERSION FLAGS STATUS OBJECT OFFSET" for
// each question ("- 0" for no answer). The test compares the answers with and without the shim.
#include <dlfcn.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include "src/abi/cuda.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  void* driver = ::dlopen("libcuda.so.1", RTLD_NOW);
  using Ask = CUresult (*)(const char*, void**, int, cuuint64_t, CUdriverProcAddressQueryResult*);
  const auto ask = driver ? reinterpret_cast<Ask>(::dlsym(driver, "cuGetProcAddress_v2")) : nullptr;
  if (ask == nullptr) return 3;
  std::ifstream questions(argv[1]);
  for (std::string line; std::getline(questions, line);) {
    // The runtime's first question is for the empty name.
    const bool nameless = line.rfind(' ') != std::string::npos && line[0] >= '0' && line[0] <= '9';
    std::stringstream fields(nameless ? " " + line : line);
    std::string name;
    int version = 0;
    unsigned long flags = 0;
    if (!nameless) fields >> name;
    fields >> version >> flags;
    void* found = nullptr;
    CUdriverProcAddressQueryResult status{};
    const CUresult r = ask(name.c_str(), &found, version, flags, &status);
    Dl_info where{};
    if (found != nullptr && ::dladdr(found, &where) == 0) where.dli_fname = "?";
    std::printf(
        "%s %d %lu %d/%d %s %lx\n", name.empty() ? "''" : name.c_str(), version, flags,
        static_cast<int>(r), static_cast<int>(status), found != nullptr ? where.dli_fname : "-",
        found != nullptr ? static_cast<char*>(found) - static_cast<char*>(where.dli_fbase) : 0L);
  }
  return 0;
}
