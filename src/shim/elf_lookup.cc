// ELF symbol tables read in place; see elf_lookup.h.
#include "src/shim/elf_lookup.h"

#include <sys/auxv.h>

#include "src/shim/text.h"

namespace divvy::shim {
namespace {

struct Tables {
  const ElfW(Sym) * symbols = nullptr;
  const char* strings = nullptr;
  const uint32_t* gnu_hash = nullptr;
  const uint32_t* hash = nullptr;
  size_t soname = 0;
};

// glibc relocates the addresses in the dynamic section, musl does not.
template <typename T>
const T* At(const Module& module, uintptr_t value) noexcept {
  return reinterpret_cast<const T*>(value < module.base ? module.base + value : value);
}

Tables ReadTables(const Module& module) noexcept {
  Tables t;
  for (const ElfW(Dyn)* d = module.dynamic; d->d_tag != DT_NULL; ++d) {
    switch (d->d_tag) {
      case DT_SYMTAB:
        t.symbols = At<ElfW(Sym)>(module, d->d_un.d_ptr);
        break;
      case DT_STRTAB:
        t.strings = At<char>(module, d->d_un.d_ptr);
        break;
      case DT_GNU_HASH:
        t.gnu_hash = At<uint32_t>(module, d->d_un.d_ptr);
        break;
      case DT_HASH:
        t.hash = At<uint32_t>(module, d->d_un.d_ptr);
        break;
      case DT_SONAME:
        t.soname = d->d_un.d_val;
        break;
      default:
        break;
    }
  }
  return t;
}

void* Value(const Module& module, const Tables& t, uint32_t i, const char* name) noexcept {
  const ElfW(Sym)& s = t.symbols[i];
  const unsigned type = s.st_info & 0xf;
  if (s.st_shndx == SHN_UNDEF || s.st_value == 0 || type == STT_TLS || type == STT_GNU_IFUNC)
    return nullptr;
  if (!Equal(t.strings + s.st_name, name)) return nullptr;
  return reinterpret_cast<void*>(module.base + s.st_value);
}

void* ByGnuHash(const Module& module, const Tables& t, const char* name) noexcept {
  uint32_t h = 5381;
  for (const char* c = name; *c != 0; ++c) h = h * 33 + static_cast<unsigned char>(*c);
  const uint32_t bucket_count = t.gnu_hash[0], first = t.gnu_hash[1];
  const uint32_t bloom_words = t.gnu_hash[2], shift = t.gnu_hash[3];
  if (bucket_count == 0 || bloom_words == 0) return nullptr;
  const auto* bloom = reinterpret_cast<const ElfW(Addr)*>(t.gnu_hash + 4);
  constexpr unsigned kBits = sizeof(ElfW(Addr)) * 8;
  const ElfW(Addr) word = bloom[(h / kBits) % bloom_words];
  if (((word >> (h % kBits)) & (word >> ((h >> shift) % kBits)) & 1) == 0) return nullptr;
  const auto* buckets = reinterpret_cast<const uint32_t*>(bloom + bloom_words);
  const uint32_t* chain = buckets + bucket_count;
  uint32_t i = buckets[h % bucket_count];
  if (i < first) return nullptr;
  for (;; ++i) {
    const uint32_t entry = chain[i - first];
    if ((entry | 1) == (h | 1))
      if (void* v = Value(module, t, i, name)) return v;
    if (entry & 1) return nullptr;
  }
}

void* BySysvHash(const Module& module, const Tables& t, const char* name) noexcept {
  uint32_t h = 0;
  for (const char* c = name; *c != 0; ++c) {
    h = (h << 4) + static_cast<unsigned char>(*c);
    const uint32_t g = h & 0xf0000000;
    h = (h ^ (g >> 24)) & ~g;
  }
  const uint32_t bucket_count = t.hash[0];
  if (bucket_count == 0) return nullptr;
  const uint32_t* chain = t.hash + 2 + bucket_count;
  for (uint32_t i = t.hash[2 + h % bucket_count]; i != 0; i = chain[i])
    if (void* v = Value(module, t, i, name)) return v;
  return nullptr;
}

// The loader's list of objects, as it shows it to debuggers, by way of the program's headers.
const link_map* LoadedObjects() noexcept {
  const auto* headers = reinterpret_cast<const ElfW(Phdr)*>(getauxval(AT_PHDR));
  const size_t count = getauxval(AT_PHNUM);
  const ElfW(Phdr)* dynamic = nullptr;
  uintptr_t base = 0;
  for (size_t i = 0; headers != nullptr && i < count; ++i) {
    if (headers[i].p_type == PT_PHDR)
      base = reinterpret_cast<uintptr_t>(headers) - headers[i].p_vaddr;
    if (headers[i].p_type == PT_DYNAMIC) dynamic = &headers[i];
  }
  if (dynamic == nullptr) return nullptr;
  for (const auto* d = reinterpret_cast<const ElfW(Dyn)*>(base + dynamic->p_vaddr);
       d->d_tag != DT_NULL; ++d)
    if (d->d_tag == DT_DEBUG && d->d_un.d_ptr != 0)
      return reinterpret_cast<const r_debug*>(d->d_un.d_ptr)->r_map;
  return nullptr;
}

// dl_iterate_phdr of the C library itself. Null when this object is not in the program's own name
// space (dlmopen): what that list has is not for us.
void* PlainIterate() noexcept {
  bool listed = false;
  void* found = nullptr;
  for (const link_map* m = LoadedObjects(); m != nullptr; m = m->l_next) {
    listed = listed || m->l_ld == _DYNAMIC;  // link.h; the linker's own name for this object's
    if (found != nullptr || m->l_ld == nullptr) continue;
    Module module;
    module.base = m->l_addr;
    module.dynamic = m->l_ld;
    if (IsCLibrary(module)) found = Defined(module, "dl_iterate_phdr");
  }
  return listed ? found : nullptr;
}

}  // namespace

IteratePhdr IteratePhdrOfLibc() noexcept {
  // Filled by whoever comes first; everyone finds the same.
  static void* known;
  void* iterate = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (iterate == nullptr) {
    iterate = PlainIterate();
    if (iterate == nullptr) iterate = reinterpret_cast<void*>(&dl_iterate_phdr);
    __atomic_store_n(&known, iterate, __ATOMIC_RELAXED);
  }
  return reinterpret_cast<IteratePhdr>(iterate);
}

// Since 2.34 glibc has all in libc.so.6, before that some in libdl.so.2; musl has one file.
bool IsCLibrary(const Module& module) noexcept {
  const char* soname = SonameOf(module);
  return soname != nullptr && (StartsWith(soname, "libc.so") || StartsWith(soname, "libdl.so") ||
                               StartsWith(soname, "ld-musl") || StartsWith(soname, "libc.musl"));
}

bool ReadModule(const dl_phdr_info& info, Module* out) noexcept {
  out->base = info.dlpi_addr;
  out->path = info.dlpi_name != nullptr ? info.dlpi_name : "";
  out->start = UINTPTR_MAX;
  for (unsigned i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& p = info.dlpi_phdr[i];
    const uintptr_t at = info.dlpi_addr + p.p_vaddr;
    if (p.p_type == PT_DYNAMIC) out->dynamic = reinterpret_cast<const ElfW(Dyn)*>(at);
    if (p.p_type != PT_LOAD) continue;
    if (at < out->start) out->start = at;
    if (at + p.p_memsz > out->end) out->end = at + p.p_memsz;
  }
  // The kernel's vDSO is listed like a library, but its tables are not relocated and it defines
  // nothing that is asked for here.
  return out->dynamic != nullptr && !StartsWith(out->path, "linux-vdso");
}

void* Defined(const Module& module, const char* name) noexcept {
  if (!module) return nullptr;
  const Tables t = ReadTables(module);
  if (t.symbols == nullptr || t.strings == nullptr) return nullptr;
  if (t.gnu_hash != nullptr) return ByGnuHash(module, t, name);
  return t.hash != nullptr ? BySysvHash(module, t, name) : nullptr;
}

const char* SonameOf(const Module& module) noexcept {
  if (!module) return nullptr;
  const Tables t = ReadTables(module);
  return t.strings != nullptr && t.soname != 0 ? t.strings + t.soname : nullptr;
}

Module ModuleOf(const void* address) noexcept {
  return FindModule([address](const Module& m) { return m.Has(address); });
}

Module OwnModule() noexcept {
  // Kept by whoever comes first; others who come meanwhile look for themselves.
  static Module own;
  static uint32_t claimed, known;
  if (__atomic_load_n(&known, __ATOMIC_ACQUIRE) != 0) return own;
  const Module found = ModuleOf(reinterpret_cast<const void*>(&known));
  if (__atomic_exchange_n(&claimed, 1, __ATOMIC_RELAXED) == 0) {
    own = found;
    __atomic_store_n(&known, 1, __ATOMIC_RELEASE);  // partner of the acquire above
  }
  return found;
}

}  // namespace divvy::shim
