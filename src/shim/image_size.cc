// Layouts: ELF64 with .nv.global* sections; fat binary header {magic, u16 version, u16 header
// bytes, u64 bytes} and entries {u16 kind, u16, u32 header bytes, u64 bytes, ...} with kind 1 =
// PTX, 2 = cubin, as cuobjdump shows them and other readers of these formats have published.
#include "src/shim/image_size.h"

#include <elf.h>
#include <string.h>

namespace divvy::shim {
namespace {

constexpr uint32_t kWrapperMagic = 0x466243b1, kFatbinMagic = 0xba55ed50;
constexpr uint64_t kMost = uint64_t{1} << 48;
constexpr uint64_t kUnknownSize = uint64_t{1} << 31;

uint64_t Product(uint64_t a, uint64_t b) noexcept {
  return b != 0 && a > kMost / b ? kMost : a * b;
}
uint64_t Sum(uint64_t a, uint64_t b) noexcept { return a + b > kMost ? kMost : a + b; }

bool IsWord(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '$' || c == '%';
}

// One PTX statement as it is read. A declaration starts with a directive, holds .global and is no
// parameter: ".visible .global .align 16 .b8 table[1024];", also several names with commas.
class Statement {
 public:
  void Directive(const char* word, unsigned length) noexcept {
    if (words_++ == 0) declares_ = true;
    if (Is(word, length, "global")) global_ = true;
    if (Is(word, length, "param") || Is(word, length, "reg")) declares_ = false;
    if (length >= 2 && word[0] == 'v' && word[1] >= '0' && word[1] <= '9' && length == 2)
      vector_ = static_cast<unsigned>(word[1] - '0');
    if (strchr("busf", word[0]) != nullptr || (length > 2 && word[0] == 'b' && word[1] == 'f'))
      if (const unsigned bits = TrailingNumber(word, length)) element_bits_ = bits;
  }
  void Word() noexcept {
    ++words_;
    if (global_) named_ = true;
  }
  void Dimension(uint64_t n) noexcept { elements_ = Product(elements_, n); }
  // At a comma or at the end: one variable is complete.
  uint64_t Variable() noexcept {
    const bool counts = declares_ && global_ && named_;
    const uint64_t bytes =
        counts ? Product(Product(element_bits_, vector_) / 8, elements_) : uint64_t{0};
    elements_ = 1;
    named_ = false;
    return bytes;
  }
  bool declares() const noexcept { return declares_ && global_; }

 private:
  static bool Is(const char* word, unsigned length, const char* what) noexcept {
    return length == strlen(what) && memcmp(word, what, length) == 0;
  }
  static unsigned TrailingNumber(const char* word, unsigned length) noexcept {
    unsigned at = length;
    while (at > 0 && word[at - 1] >= '0' && word[at - 1] <= '9') --at;
    if (at == 0 || at == length || length - at > 3) return 0;
    unsigned n = 0;
    for (; at < length; ++at) n = n * 10 + static_cast<unsigned>(word[at] - '0');
    return n >= 8 && n <= 128 ? n : 0;
  }

  unsigned words_ = 0;
  bool declares_ = false, global_ = false, named_ = false;
  unsigned element_bits_ = 0, vector_ = 1;
  uint64_t elements_ = 1;
};

uint64_t PtxBytes(const char* p, const char* end) noexcept {
  uint64_t total = 0;
  Statement statement;
  bool initializer = false;
  while (p < end && *p != 0) {
    if (p + 1 < end && p[0] == '/' && p[1] == '/') {
      while (p < end && *p != '\n') ++p;
    } else if (p + 1 < end && p[0] == '/' && p[1] == '*') {
      for (p += 2; p + 1 < end && !(p[0] == '*' && p[1] == '/'); ++p) {
      }
      p += 2;
    } else if (*p == '"') {
      for (++p; p < end && *p != '"'; ++p) {
      }
      ++p;
    } else if (*p == ';' || (!initializer && (*p == '{' || *p == '}' || *p == '(' || *p == ')'))) {
      if (!initializer) total = Sum(total, statement.Variable());
      statement = Statement();
      initializer = false;
      ++p;
    } else if (initializer) {
      ++p;
    } else if (*p == '=' || *p == ',') {
      total = Sum(total, statement.Variable());
      initializer = *p == '=' && statement.declares();
      ++p;
    } else if (*p == '[') {
      uint64_t n = 0;
      for (++p; p < end && *p != ']' && *p != ';'; ++p)
        if (*p >= '0' && *p <= '9') n = Sum(Product(n, 10), static_cast<uint64_t>(*p - '0'));
      statement.Dimension(n);
    } else if (*p == '.') {
      const char* word = ++p;
      while (p < end && IsWord(*p)) ++p;
      if (p > word) statement.Directive(word, static_cast<unsigned>(p - word));
    } else if (IsWord(*p)) {
      const bool name = !(*p >= '0' && *p <= '9');
      while (p < end && IsWord(*p)) ++p;
      if (name) statement.Word();
    } else {
      ++p;
    }
  }
  return total;
}

// Section headers say where they end; nothing beyond `size` is read.
uint64_t ElfBytes(const unsigned char* data, uint64_t size) noexcept {
  Elf64_Ehdr h;
  if (size < sizeof(h)) return 0;
  memcpy(&h, data, sizeof(h));
  if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_shentsize != sizeof(Elf64_Shdr) ||
      h.e_shoff > size || uint64_t{h.e_shnum} * sizeof(Elf64_Shdr) > size - h.e_shoff ||
      h.e_shstrndx >= h.e_shnum)
    return 0;
  const auto section = [&](unsigned i) {
    Elf64_Shdr s;
    memcpy(&s, data + h.e_shoff + uint64_t{i} * sizeof(s), sizeof(s));
    return s;
  };
  const Elf64_Shdr names = section(h.e_shstrndx);
  if (names.sh_offset > size || names.sh_size > size - names.sh_offset) return 0;
  constexpr char kGlobal[] = ".nv.global";  // and .nv.global.init
  uint64_t total = 0;
  for (unsigned i = 0; i < h.e_shnum; ++i) {
    const Elf64_Shdr s = section(i);
    if (s.sh_name >= names.sh_size || names.sh_size - s.sh_name < sizeof(kGlobal) - 1) continue;
    if (memcmp(data + names.sh_offset + s.sh_name, kGlobal, sizeof(kGlobal) - 1) == 0)
      total = Sum(total, s.sh_size);
  }
  return total;
}

// The largest of its images: the driver loads the one that fits the device.
uint64_t FatbinBytes(const unsigned char* fat, uint64_t size) noexcept {
  uint16_t header_bytes;
  uint64_t bytes;
  if (size < 16) return 0;
  memcpy(&header_bytes, fat + 6, sizeof(header_bytes));
  memcpy(&bytes, fat + 8, sizeof(bytes));
  if (header_bytes < 16 || header_bytes > size) return 0;
  if (bytes > size - header_bytes) bytes = size - header_bytes;
  uint64_t largest = 0;
  for (uint64_t at = 0; bytes - at >= 64;) {
    const unsigned char* entry = fat + header_bytes + at;
    uint16_t kind;
    uint32_t entry_bytes;
    uint64_t payload_bytes;
    memcpy(&kind, entry, sizeof(kind));
    memcpy(&entry_bytes, entry + 4, sizeof(entry_bytes));
    memcpy(&payload_bytes, entry + 8, sizeof(payload_bytes));
    if (entry_bytes < 64 || entry_bytes > bytes - at || payload_bytes > bytes - at - entry_bytes)
      break;
    const unsigned char* payload = entry + entry_bytes;
    uint64_t image = 0;
    if (payload_bytes >= SELFMAG && memcmp(payload, ELFMAG, SELFMAG) == 0)
      image = ElfBytes(payload, payload_bytes);
    else if (kind == 1)  // compressed text has no directives to be found
      image = PtxBytes(reinterpret_cast<const char*>(payload),
                       reinterpret_cast<const char*>(payload) + payload_bytes);
    if (image > largest) largest = image;
    at += entry_bytes + payload_bytes;
  }
  return largest;
}

}  // namespace

uint64_t ImageBytes(const void* image, uint64_t size) noexcept {
  const auto* data = static_cast<const unsigned char*>(image);
  uint32_t magic = 0;
  if (data == nullptr || size < sizeof(magic)) return 0;
  memcpy(&magic, data, sizeof(magic));
  if (memcmp(data, ELFMAG, SELFMAG) == 0) return ElfBytes(data, size);
  if (magic == kFatbinMagic) return FatbinBytes(data, size);
  return PtxBytes(reinterpret_cast<const char*>(data), reinterpret_cast<const char*>(data) + size);
}

uint64_t ImageBytes(const void* image) noexcept {
  const auto* data = static_cast<const unsigned char*>(image);
  if (data == nullptr) return 0;
  // Byte by byte: a text may be shorter than a magic number.
  const bool four = data[0] != 0 && data[1] != 0 && data[2] != 0 && data[3] != 0;
  uint32_t magic = 0;
  if (four) memcpy(&magic, data, sizeof(magic));
  if (magic == kWrapperMagic) {
    const unsigned char* fat = nullptr;
    memcpy(&fat, data + 8, sizeof(fat));
    return ImageBytes(fat);
  }
  if (magic == kFatbinMagic) {
    uint16_t header_bytes;
    uint64_t bytes;
    memcpy(&header_bytes, data + 6, sizeof(header_bytes));
    memcpy(&bytes, data + 8, sizeof(bytes));
    return FatbinBytes(data, bytes < kUnknownSize ? header_bytes + bytes : kUnknownSize);
  }
  if (four && memcmp(data, ELFMAG, SELFMAG) == 0) {
    // The section headers come last but for the program headers.
    Elf64_Ehdr h;
    memcpy(&h, data, sizeof(h));
    const uint64_t sections = h.e_shoff + uint64_t{h.e_shnum} * sizeof(Elf64_Shdr);
    const uint64_t programs = h.e_phoff + uint64_t{h.e_phnum} * sizeof(Elf64_Phdr);
    const uint64_t size = sections > programs ? sections : programs;
    return size < kUnknownSize ? ElfBytes(data, size) : 0;
  }
  const char* text = reinterpret_cast<const char*>(data);
  return PtxBytes(text, text + strlen(text));
}

}  // namespace divvy::shim
