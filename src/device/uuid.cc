#include "src/device/uuid.h"

namespace divvy::device {

Result<Uuid> ParseUuid(std::string_view text) {
  const auto bad = [&] { return Invalid("'" + std::string(text) + "' is not a device UUID"); };
  if (!text.starts_with("GPU-") && !text.starts_with("MIG-")) return bad();
  Uuid uuid;
  unsigned digits = 0;
  for (const char c : text.substr(4)) {
    if (c == '-') continue;
    int v = -1;
    if (c >= '0' && c <= '9') v = c - '0';
    if (c >= 'a' && c <= 'f') v = c - 'a' + 10;
    if (c >= 'A' && c <= 'F') v = c - 'A' + 10;
    if (v < 0 || digits == 32) return bad();
    uint8_t& byte = uuid.bytes[digits / 2];
    byte = static_cast<uint8_t>(byte << 4 | v);
    ++digits;
  }
  if (digits != 32) return bad();
  return uuid;
}

std::string ToString(const Uuid& uuid) {
  static const char* const kHex = "0123456789abcdef";
  std::string s = "GPU-";
  for (size_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) s += '-';
    s += kHex[uuid.bytes[i] >> 4];
    s += kHex[uuid.bytes[i] & 15];
  }
  return s;
}

}  // namespace divvy::device
