#include "tests/attacks/attack.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "src/region/layout.h"

namespace attack {
namespace {

CUresult Missing() { return CUDA_ERROR_NOT_FOUND; }

// One object's dynamic symbols, by its own tables.
void* Lookup(const dl_phdr_info& info, const char* name) {
  const ElfW(Dyn)* dynamic = nullptr;
  for (unsigned i = 0; i < info.dlpi_phnum; ++i)
    if (info.dlpi_phdr[i].p_type == PT_DYNAMIC)
      dynamic = reinterpret_cast<const ElfW(Dyn)*>(info.dlpi_addr + info.dlpi_phdr[i].p_vaddr);
  if (dynamic == nullptr) return nullptr;
  const auto at = [&](uintptr_t v) { return v < info.dlpi_addr ? v + info.dlpi_addr : v; };
  uintptr_t symbols = 0, strings = 0, hash = 0;
  for (; dynamic->d_tag != DT_NULL; ++dynamic) {
    if (dynamic->d_tag == DT_SYMTAB) symbols = at(dynamic->d_un.d_ptr);
    if (dynamic->d_tag == DT_STRTAB) strings = at(dynamic->d_un.d_ptr);
    if (dynamic->d_tag == DT_GNU_HASH) hash = at(dynamic->d_un.d_ptr);
  }
  if (symbols == 0 || strings == 0 || hash == 0) return nullptr;
  const auto* words = reinterpret_cast<const uint32_t*>(hash);
  const uint32_t buckets = words[0], first = words[1], bloom = words[2];
  const uint32_t* bucket = words + 4 + bloom * (sizeof(void*) / 4);
  const uint32_t* chain = bucket + buckets;
  for (uint32_t b = 0; b < buckets; ++b) {
    for (uint32_t i = bucket[b]; i >= first; ++i) {
      const auto& s = reinterpret_cast<const ElfW(Sym)*>(symbols)[i];
      if (s.st_shndx != SHN_UNDEF &&
          std::strcmp(reinterpret_cast<const char*>(strings) + s.st_name, name) == 0)
        return reinterpret_cast<void*>(info.dlpi_addr + s.st_value);
      if (chain[i - first] & 1) break;
    }
  }
  return nullptr;
}

}  // namespace

divvy::abi::DriverFns Driver(const Finder& find) {
  divvy::abi::DriverFns fns;
  auto* slot = reinterpret_cast<void**>(&fns);
  for (unsigned i = 0; i < divvy::abi::kDriverSymbolCount; ++i) {
    void* found = find(divvy::abi::kDriverNameText + divvy::abi::kDriverNameAt[i]);
    slot[i] = found != nullptr ? found : reinterpret_cast<void*>(&Missing);
  }
  return fns;
}

Finder ByName() {
  void* handle = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  return [handle](const char* name) { return handle ? ::dlsym(handle, name) : nullptr; };
}

Finder BySymbolTable(const std::function<bool(const std::string&)>& accept) {
  return [accept](const char* name) {
    struct Search {
      const std::function<bool(const std::string&)>& accept;
      const char* name;
      void* found;
    } search{accept, name, nullptr};
    ::dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* opaque) {
          auto& s = *static_cast<Search*>(opaque);
          if (s.accept(info->dlpi_name != nullptr ? info->dlpi_name : ""))
            s.found = Lookup(*info, s.name);
          return s.found != nullptr ? 1 : 0;
        },
        &search);
    return search.found;
  };
}

bool IsDriverObject(const std::string& path) {
  if (path.find("libdivvy") != std::string::npos) return false;
  // The forwarder in front of the driver has the driver's name; its file is tiny beside it, and it
  // needs the real one by an absolute path of its own.
  if (path.find("/real/libcuda") != std::string::npos) return true;
  return path.find("libcuda") != std::string::npos && ::access("/run/divvy/real", F_OK) != 0;
}

std::string DriverFile() {
  const char* given = std::getenv("ATTACK_DRIVER");
  if (given != nullptr) return given;
  const std::string real = "/run/divvy/real/libcuda.so.1";
  if (::access(real.c_str(), R_OK) == 0) return real;
  std::stringstream dirs(std::getenv("LD_LIBRARY_PATH") ? std::getenv("LD_LIBRARY_PATH") : "");
  for (std::string dir; std::getline(dirs, dir, ':');)
    if (::access((dir + "/libcuda.so.1").c_str(), R_OK) == 0) return dir + "/libcuda.so.1";
  return "/usr/lib/x86_64-linux-gnu/libcuda.so.1";
}

CUresult Enter(const divvy::abi::DriverFns& cu, CUdevice device) {
  CUcontext context = nullptr;
  CUresult r = cu.cuInit(0);
  if (r == CUDA_SUCCESS) r = cu.cuDevicePrimaryCtxRetain(&context, device);
  if (r == CUDA_SUCCESS) r = cu.cuCtxSetCurrent(context);
  return r;
}

Holding TakeAll(const std::function<CUresult(size_t)>& take, size_t first, size_t smallest) {
  Holding h;
  for (size_t size = first; size >= smallest && h.held < kWanted;) {
    const CUresult r = take(size);
    h.last = r;
    if (r == CUDA_SUCCESS) {
      h.held += size;
    } else {
      size /= 2;
    }
  }
  return h;
}

Holding TakeLinear(const divvy::abi::DriverFns& cu) {
  return TakeAll([&](size_t bytes) {
    CUdeviceptr p = 0;
    return cu.cuMemAlloc_v2(&p, bytes);
  });
}

Holding EnterAndTake(const divvy::abi::DriverFns& cu, CUdevice device) {
  const CUresult r = Enter(cu, device);
  if (r != CUDA_SUCCESS) return {.last = r, .note = "no context"};
  return TakeLinear(cu);
}

void WaitForEnd() {
  char c;
  while (::read(STDIN_FILENO, &c, 1) > 0) {
  }
}

int Report(const Holding& h) {
  std::printf("{\"held\": %zu, \"last\": %d, \"breached\": %s, \"note\": \"%s\"}\n", h.held, h.last,
              h.breached ? "true" : "false", h.note.c_str());
  std::fflush(stdout);
  WaitForEnd();
  return 0;
}

std::vector<std::string> MachineEnvironment() {
  std::vector<std::string> kept;
  for (const char* name : {"LD_LIBRARY_PATH", "DIVVY_SIM_DIR", "ATTACK_DRIVER"})
    if (const char* value = std::getenv(name)) kept.push_back(std::string(name) + "=" + value);
  return kept;
}

std::string Beside(const std::string& program) {
  char self[4096] = {};
  if (::readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) return program;
  const std::string path(self);
  return path.substr(0, path.rfind('/') + 1) + program;
}

void Exec(const std::string& program, const std::vector<std::string>& arguments,
          const std::vector<std::string>& environment) {
  const std::string path = Beside(program);
  std::vector<char*> argv{const_cast<char*>(path.c_str())}, envp;
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  for (const std::string& e : environment) envp.push_back(const_cast<char*>(e.c_str()));
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  ::execve(path.c_str(), argv.data(), envp.data());
  std::perror(path.c_str());
  ::_exit(127);
}

std::vector<Mapping> SegmentMappings() {
  std::vector<Mapping> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long start = 0, end = 0;
    char rights[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, rights) != 3) continue;
    if (line.find("memfd:") == std::string::npos || rights[0] != 'r') continue;
    uint32_t magic = 0;
    std::memcpy(&magic, reinterpret_cast<const void*>(start), sizeof(magic));
    if (magic != divvy::region::kPolicyMagic && magic != divvy::region::kUsageMagic) continue;
    found.push_back({start, end, line.substr(0, line.find(' ')), rights[1] == 'w'});
  }
  return found;
}

Holding InChildren(unsigned count, const std::function<Holding(unsigned)>& body) {
  int results[2], release[2];
  if (::pipe(results) != 0 || ::pipe(release) != 0) return {.note = "no pipe"};
  std::fflush(stdout);
  unsigned started = 0;
  for (unsigned i = 0; i < count; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(release[1]);
      const Holding mine = body(i);
      const uint64_t row[2] = {mine.held, static_cast<uint64_t>(mine.last)};
      if (::write(results[1], row, sizeof(row)) != sizeof(row)) ::_exit(1);
      ::close(results[1]);  // the parent reads until the last child has reported or died
      char c;
      while (::read(release[0], &c, 1) > 0) {
      }
      ::_exit(0);
    }
    if (child > 0) ++started;
  }
  ::close(results[1]);
  Holding sum;
  uint64_t row[2];
  while (::read(results[0], row, sizeof(row)) == sizeof(row)) {
    sum.held += row[0];
    sum.last = static_cast<int>(row[1]);
  }
  sum.note = std::to_string(started) + " children";
  return sum;
}

}  // namespace attack
