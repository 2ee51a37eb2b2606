// Look-up of a name in a generated open-addressing table: what dlsym, cuGetProcAddress and the
// tests ask. Constant time, no allocation, no locale; usable at compile time. codegen/text.py
// builds the tables.
#pragma once

#include <cstdint>

namespace divvy::abi {

// 32-bit FNV-1a.
constexpr std::uint32_t name_hash(const char* name) {
  std::uint32_t value = 0x811C9DC5u;
  for (; *name; ++name) value = (value ^ static_cast<unsigned char>(*name)) * 0x01000193u;
  return value;
}

constexpr bool same_name(const char* a, const char* b) {
  while (*a && *a == *b) ++a, ++b;
  return *a == *b;
}

// The position of `name` among the names that `slots` was built from, or -1. `slot_count` is a
// power of two and leaves empty (zero) slots, so the walk ends.
constexpr int find_name(const char* name, const std::uint16_t* slots, unsigned slot_count,
                        const char* text, const std::uint16_t* text_at) {
  for (unsigned at = name_hash(name) & (slot_count - 1); slots[at];
       at = (at + 1) & (slot_count - 1)) {
    const int position = slots[at] - 1;
    if (same_name(name, text + text_at[position])) return position;
  }
  return -1;
}

}  // namespace divvy::abi
