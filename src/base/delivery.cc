#include "src/base/delivery.h"

#include <elf.h>

#include <cstring>

namespace divvy::delivery {

static_assert(sizeof(Elf64_Ehdr) == kElfHeaderBytes);

bool IsNativeElf(std::string_view header) {
  Elf64_Ehdr elf{};
  if (header.size() < sizeof elf) return false;
  std::memcpy(&elf, header.data(), sizeof elf);
  return std::memcmp(elf.e_ident, ELFMAG, SELFMAG) == 0 && elf.e_ident[EI_CLASS] == ELFCLASS64 &&
         elf.e_machine == EM_X86_64;
}

std::string MergedPreload(const std::string& ours, std::string_view kept) {
  std::string merged = ours + "\n";
  while (!kept.empty()) {
    const size_t end = kept.find('\n');
    const std::string_view line = kept.substr(0, end);
    if (line != ours) merged.append(line).append("\n");
    if (end == std::string_view::npos) break;
    kept.remove_prefix(end + 1);
  }
  return merged;
}

}  // namespace divvy::delivery
