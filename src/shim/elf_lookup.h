// Reads the loaded ELF objects of this process by their own tables: which object an address lies
// in, and what an object defines. Needed because the shim itself exports dlsym, so nothing that it
// calls by name can be trusted to be the C library's. No allocation, takes the loader's own lock
// through dl_iterate_phdr, any thread. Not on the path of any GPU call: at first use only.
#pragma once

#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstdint>

namespace divvy::shim {

struct Module {
  uintptr_t base = 0;
  uintptr_t start = 0, end = 0;  // addresses covered by its segments
  const char* path = nullptr;    // the loader's name; "" for the program; lives as long as it does
  const ElfW(Dyn) * dynamic = nullptr;

  explicit operator bool() const noexcept { return dynamic != nullptr; }
  bool Has(const void* address) const noexcept {
    const auto a = reinterpret_cast<uintptr_t>(address);
    return a >= start && a < end;
  }
};

// The address that `module` itself defines for `name` (any version), or nullptr.
void* Defined(const Module& module, const char* name) noexcept;

// The module's DT_SONAME, or nullptr.
const char* SonameOf(const Module& module) noexcept;

// Visits the objects in load order until `visit(Module)` returns true; returns that one.
template <typename Visit>
Module FindModule(const Visit& visit) noexcept;

// The object that an address lies in; empty if there is none.
Module ModuleOf(const void* address) noexcept;

// This library's own object.
Module OwnModule() noexcept;

// Whether it is the C library, or the part of it that older systems have in libdl.
bool IsCLibrary(const Module& module) noexcept;

// dl_iterate_phdr past any library that puts one of its own before the C library's, as
// ThreadSanitizer's run time does, which cannot serve while it is itself being started.
using IteratePhdr = int (*)(int (*)(dl_phdr_info*, size_t, void*), void*);
IteratePhdr IteratePhdrOfLibc() noexcept;

// --- implementation of the template ---
bool ReadModule(const dl_phdr_info& info, Module* out) noexcept;

template <typename Visit>
Module FindModule(const Visit& visit) noexcept {
  struct State {
    const Visit& visit;
    Module found;
  } state{visit, {}};
  IteratePhdrOfLibc()(
      [](dl_phdr_info* info, size_t, void* opaque) -> int {
        State& s = *static_cast<State*>(opaque);
        Module module;
        if (!ReadModule(*info, &module) || !s.visit(module)) return 0;
        s.found = module;
        return 1;
      },
      &state);
  return state.found;
}

}  // namespace divvy::shim
