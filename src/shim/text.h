// Comparing and copying C strings without the C library. What runs before a sanitizer's run time is
// up (it asks our dlsym for the functions that it wraps) must not call anything that such a run
// time wraps itself: strcmp, read, dl_iterate_phdr. Any thread, no state.
#pragma once

#include <cstddef>

namespace divvy::shim {

inline bool Equal(const char* a, const char* b) noexcept {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

inline bool StartsWith(const char* text, const char* with) noexcept {
  while (*with != 0 && *text == *with) ++text, ++with;
  return *with == 0;
}

// At most `room` bytes, the last of them 0.
inline void CopyText(char* out, const char* text, size_t room) noexcept {
  size_t n = 0;
  for (; n + 1 < room && text[n] != 0; ++n) out[n] = text[n];
  out[n] = 0;
}

}  // namespace divvy::shim
