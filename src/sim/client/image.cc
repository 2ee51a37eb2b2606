// Reads what can be told of a module image: names of kernels, layouts of their parameters, globals.
// PTX text and uncompressed ELF (alone or in a fatbin) are read; of a compressed fatbin any name is
// believed. Formats: PTX ISA "Kernel and Function Directives", the fatbin header of
// fatbinary_section.h, and the .nv.info sections of cubins (attribute 0x17, KPARAM_INFO).
#include <dlfcn.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "src/sim/client/module.h"

namespace divvy::sim {
namespace {

constexpr uint32_t kWrapperMagic = 0x466243B1, kFatbinMagic = 0xBA55ED50;

// "spin" of "spin", "divvy_spin_ns", "_Z4spinm".
std::string BaseName(const std::string& symbol) {
  std::string s = symbol;
  if (s.rfind("_Z", 0) == 0) {
    size_t at = 2, n = 0;
    while (at < s.size() && isdigit(static_cast<unsigned char>(s[at])))
      n = n * 10 + size_t(s[at++] - '0');
    if (n > 0 && at + n <= s.size()) s = s.substr(at, n);
  }
  if (s.rfind("divvy_", 0) == 0) s = s.substr(6);
  if (s.size() > 3 && s.compare(s.size() - 3, 3, "_ns") == 0) s.resize(s.size() - 3);
  return s;
}

std::shared_ptr<KernelInfo> MakeKernel(const std::string& name) {
  auto k = std::make_shared<KernelInfo>();
  k->name = name;
  std::string base = BaseName(name);
  if (void* f = dlsym(RTLD_DEFAULT, ("simk_" + name).c_str())) {
    k->kind = KernelKind::kHost;
    k->host = reinterpret_cast<void (*)(SimLaunch*)>(f);
  } else if (base == "spin") {
    k->kind = KernelKind::kSpin;
    k->params = {{0, 8}};
  } else if (base == "wait_value") {
    k->kind = KernelKind::kWaitValue;
    k->params = {{0, 8}, {8, 4}};
  } else if (base == "store") {
    k->kind = KernelKind::kStore;
    k->params = {{0, 8}, {8, 4}};
  } else if (base == "fault") {
    k->kind = KernelKind::kFault;
  }
  return k;
}

// One parameter or variable of PTX: ".align 8 .b8 name[24]" or ".u64 name". False when unreadable.
bool PtxSize(const std::string& text, size_t* bytes, size_t* align) {
  size_t element = 0;
  *align = 0;
  for (size_t at = text.find('.'); at != text.npos; at = text.find('.', at + 1)) {
    if (text.compare(at, 6, ".align") == 0) {
      *align = strtoul(text.c_str() + at + 6, nullptr, 10);
    } else if (strchr("usfb", text[at + 1]) != nullptr &&
               isdigit(static_cast<unsigned char>(text[at + 2]))) {
      element = strtoul(text.c_str() + at + 2, nullptr, 10) / 8;
    }
  }
  if (element == 0) return false;
  size_t count = 1, open = text.find('[');
  if (open != text.npos) count = strtoul(text.c_str() + open + 1, nullptr, 10);
  *bytes = element * count;
  if (*align == 0) *align = element;
  return true;
}

void ReadPtx(const std::string& text, Image* image) {
  for (size_t at = text.find(".entry"); at != text.npos; at = text.find(".entry", at + 6)) {
    size_t from = text.find_first_not_of(" \t\r\n", at + 6);
    if (from == text.npos) break;
    size_t to = text.find_first_of(" \t\r\n({", from);
    if (to == text.npos) break;
    std::string name = text.substr(from, to - from);
    auto k = MakeKernel(name);
    k->params.clear();
    size_t body = text.find('{', to);
    size_t open = text.find('(', to);
    if (open != text.npos && (body == text.npos || open < body)) {
      size_t close = text.find(')', open);
      std::string list = text.substr(open + 1, close - open - 1);
      size_t offset = 0;
      for (size_t p = list.find(".param"); p != list.npos; p = list.find(".param", p + 6)) {
        size_t end = std::min(list.find(',', p), list.size());
        size_t bytes, align;
        if (!PtxSize(list.substr(p + 6, end - p - 6), &bytes, &align)) continue;
        offset = (offset + align - 1) / align * align;
        k->params.push_back({offset, bytes});
        offset += bytes;
      }
    }
    k->params_known = true;
    image->kernels[name] = k;
  }
  for (size_t at = text.find(".global"); at != text.npos; at = text.find(".global", at + 7)) {
    size_t line_end = text.find_first_of(";{=\n", at);
    // Instructions have ".global" inside an opcode: a declaration begins with it.
    bool declares = at == 0 || isspace(static_cast<unsigned char>(text[at - 1]));
    if (!declares || line_end == text.npos) continue;
    std::string line = text.substr(at + 7, line_end - at - 7);
    size_t bytes, align;
    if (!PtxSize(line, &bytes, &align)) continue;
    size_t end = line.find('[');
    if (end == line.npos) end = line.find_last_not_of(" \t\r") + 1;
    size_t start = line.find_last_of(" \t", end - 1);
    image->globals[line.substr(start + 1, end - start - 1)] = bytes;
  }
}

// A cubin. Every offset is checked against `size`.
bool ReadElf(const unsigned char* data, size_t size, Image* image) {
  if (size < sizeof(Elf64_Ehdr)) return false;
  Elf64_Ehdr h;
  memcpy(&h, data, sizeof h);
  if (h.e_shentsize != sizeof(Elf64_Shdr) || h.e_shoff > size ||
      uint64_t(h.e_shnum) * sizeof(Elf64_Shdr) > size - h.e_shoff || h.e_shstrndx >= h.e_shnum) {
    return false;
  }
  std::vector<Elf64_Shdr> sections(h.e_shnum);
  memcpy(sections.data(), data + h.e_shoff, sections.size() * sizeof(Elf64_Shdr));
  auto text_at = [&](const Elf64_Shdr& strings, uint64_t at) -> std::string {
    if (strings.sh_offset > size || strings.sh_size > size - strings.sh_offset) return "";
    if (at >= strings.sh_size) return "";
    const char* p = reinterpret_cast<const char*>(data + strings.sh_offset + at);
    return {p, strnlen(p, strings.sh_size - at)};
  };
  for (const Elf64_Shdr& s : sections) {
    if (s.sh_offset > size || s.sh_size > size - s.sh_offset || s.sh_type != SHT_SYMTAB) continue;
    if (s.sh_link >= sections.size()) continue;
    for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= s.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      memcpy(&symbol, data + s.sh_offset + at, sizeof symbol);
      std::string name = text_at(sections[s.sh_link], symbol.st_name);
      if (name.empty()) continue;
      unsigned type = ELF64_ST_TYPE(symbol.st_info);
      if (type == STT_FUNC && (symbol.st_other & 0x10) != 0)
        image->kernels[name] = MakeKernel(name);
      if (type == STT_OBJECT) image->globals[name] = symbol.st_size;
    }
  }
  for (const Elf64_Shdr& s : sections) {
    std::string name = text_at(sections[h.e_shstrndx], s.sh_name);
    if (name.rfind(".nv.info.", 0) != 0 || s.sh_offset > size || s.sh_size > size - s.sh_offset) {
      continue;
    }
    auto k = image->kernels.find(name.substr(9));
    if (k == image->kernels.end()) continue;
    auto& params = k->second->params;
    params.clear();
    k->second->params_known = true;
    // Records of {format u8, attribute u8, size u16}; format 4 carries `size` bytes more.
    for (uint64_t at = 0; at + 4 <= s.sh_size;) {
      const unsigned char* r = data + s.sh_offset + at;
      uint16_t bytes;
      memcpy(&bytes, r + 2, 2);
      uint64_t whole = r[0] == 4 ? 4u + bytes : 4u;
      if (r[0] == 4 && r[1] == 0x17 && bytes >= 12 && at + whole <= s.sh_size) {
        uint16_t ordinal, offset;
        uint32_t word;
        memcpy(&ordinal, r + 8, 2);
        memcpy(&offset, r + 10, 2);
        memcpy(&word, r + 12, 4);
        if (ordinal >= params.size()) params.resize(ordinal + 1u);
        params[ordinal] = {offset, word >> 18};
      }
      at += whole;
    }
  }
  return true;
}

void ReadFatbin(const unsigned char* fat, Image* image) {
  struct {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes;
  } head;
  memcpy(&head, fat, sizeof head);
  image->bytes = head.bytes;
  for (uint64_t at = 0; at + 64 <= head.bytes;) {
    const unsigned char* e = fat + head.header_bytes + at;
    uint16_t kind;
    uint32_t header_bytes;
    uint64_t bytes, flags;
    memcpy(&kind, e, 2);
    memcpy(&header_bytes, e + 4, 4);
    memcpy(&bytes, e + 8, 8);
    memcpy(&flags, e + 40, 8);
    if (header_bytes < 64 || header_bytes + bytes > head.bytes - at) break;
    const unsigned char* payload = e + header_bytes;
    bool packed = (flags & 0xA000) != 0;
    if (packed) {
      image->open = true;
    } else if (kind == 2) {
      if (!ReadElf(payload, bytes, image)) image->open = true;
    } else if (kind == 1) {
      ReadPtx(std::string(reinterpret_cast<const char*>(payload),
                          strnlen(reinterpret_cast<const char*>(payload), bytes)),
              image);
    }
    at += header_bytes + bytes;
  }
}

}  // namespace

std::shared_ptr<Image> ReadImage(const void* data) {
  auto image = std::make_shared<Image>();
  auto* bytes = static_cast<const unsigned char*>(data);
  uint32_t magic;
  memcpy(&magic, bytes, 4);
  if (magic == kWrapperMagic) {
    const unsigned char* fat;
    memcpy(&fat, bytes + 8, sizeof fat);
    memcpy(&magic, fat, 4);
    if (magic != kFatbinMagic) return nullptr;
    ReadFatbin(fat, image.get());
  } else if (magic == kFatbinMagic) {
    ReadFatbin(bytes, image.get());
  } else if (memcmp(bytes, ELFMAG, SELFMAG) == 0) {
    Elf64_Ehdr h;
    memcpy(&h, bytes, sizeof h);
    // No size is passed: the section headers come last but for the program headers.
    image->bytes = std::max<uint64_t>(h.e_shoff + uint64_t(h.e_shnum) * h.e_shentsize,
                                      h.e_phoff + uint64_t(h.e_phnum) * h.e_phentsize);
    if (!ReadElf(bytes, image->bytes, image.get())) return nullptr;
  } else {
    const char* text = static_cast<const char*>(data);
    std::string ptx(text, strnlen(text, 64 << 20));
    if (ptx.find(".version") == ptx.npos) return nullptr;
    image->bytes = ptx.size();
    ReadPtx(ptx, image.get());
  }
  return image;
}

std::shared_ptr<KernelInfo> FindKernel(Image* image, const std::string& name) {
  auto it = image->kernels.find(name);
  if (it != image->kernels.end()) return it->second;
  if (!image->open) return nullptr;
  return image->kernels[name] = MakeKernel(name);
}

}  // namespace divvy::sim
