// Visible: see visible.h.
#include "src/base/visible.h"

#include <cstdint>
#include <cstdio>

namespace divvy {
namespace {

// Bytes of the character of UTF-8 that `text` begins with; 0: it begins with none.
size_t CharacterOf(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Longer than need be, a surrogate, or beyond U+10FFFF.
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
      (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f)) {
    return 0;
  }
  return length;
}

// C0 and C1 control characters, and delete.
bool IsControl(std::string_view character) {
  const auto first = static_cast<uint8_t>(character[0]);
  return first < 0x20 || first == 0x7f ||
         (first == 0xc2 && static_cast<uint8_t>(character[1]) < 0xa0);
}

}  // namespace

std::string Visible(std::string_view text, size_t most) {
  std::string out;
  while (!text.empty()) {
    const size_t length = CharacterOf(text);
    const std::string_view next = text.substr(0, length > 0 ? length : 1);
    if (out.size() + next.size() > most) return out + "...";
    if (length > 0 && !IsControl(next)) {
      out += next;
    } else if (next == "\n") {
      out += "\\n";
    } else {
      for (const char c : next) {
        char hex[8];
        std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<uint8_t>(c));
        out += hex;
      }
    }
    text.remove_prefix(next.size());
  }
  return out;
}

}  // namespace divvy
