#include "src/base/bytes.h"

#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace divvy {

Error IoError(const std::string& what, int err) {
  const bool denied = err == EACCES || err == EPERM;
  return {denied ? ErrorCode::kDenied : ErrorCode::kIo, what + ": " + std::strerror(err)};
}

Result<Bytes> ParseBytes(std::string_view text) {
  const auto bad = [&](const char* why) {
    return Invalid("'" + std::string(text) + "' is not a size: " + why +
                   "; write for example 4GiB, 512MiB or 2g");
  };
  size_t i = 0;
  while (i < text.size() && (std::isdigit(static_cast<unsigned char>(text[i])) || text[i] == '.'))
    ++i;
  if (!text.empty() && text[0] == '-') return bad("it is negative");
  if (i == 0) return bad("it does not start with a number");
  const std::string number(text.substr(0, i));
  char* end = nullptr;
  const long double value = std::strtold(number.c_str(), &end);
  if (*end != '\0') return bad("its number cannot be read");
  std::string unit;
  for (char c : text.substr(i))
    unit += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  int shift = -1;
  const char* units = "bkmgtp";
  if (unit.empty()) {
    shift = 0;
  } else if (const char* p = std::strchr(units, unit[0]); p != nullptr) {
    const std::string rest = unit.substr(1);
    const bool plain = unit[0] == 'b';
    if (rest.empty() || (!plain && (rest == "b" || rest == "ib" || rest == "i")))
      shift = static_cast<int>(p - units) * 10;
  }
  if (shift < 0) return bad("its unit is unknown");
  const long double scaled = std::ldexp(value, shift);
  if (!(scaled < 9.2e18L)) return bad("it is too large");
  const auto n = static_cast<uint64_t>(scaled);
  if (static_cast<long double>(n) != scaled && shift == 0) return bad("bytes come whole");
  return Bytes{n};
}

namespace {

std::string Text(Bytes b, int decimals) {
  static const char* const kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  int u = 0;
  double v = static_cast<double>(b.n);
  while (v >= 1024 && u < 5) {
    v /= 1024;
    ++u;
  }
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", decimals, v);
  std::string s = text;
  while (s.back() == '0') s.pop_back();
  if (s.back() == '.') s.pop_back();
  return s + " " + kUnits[u];
}

constexpr int kDecimals = 2, kMostDecimals = 4, kAllDecimals = 17;

bool ReadsLikeAnother(size_t which, const std::vector<Bytes>& amounts,
                      const std::vector<std::string>& texts) {
  for (size_t i = 0; i < amounts.size(); ++i)
    if (amounts[i] != amounts[which] && texts[i] == texts[which]) return true;
  return false;
}

}  // namespace

std::string ToString(Bytes b) { return Text(b, kDecimals); }

std::vector<std::string> ToStringsApart(const std::vector<Bytes>& amounts) {
  std::vector<std::string> texts(amounts.size());
  for (size_t i = 0; i < amounts.size(); ++i) texts[i] = ToString(amounts[i]);
  for (int decimals = kDecimals + 1; decimals <= kMostDecimals + 1; ++decimals) {
    std::vector<std::string> next = texts;
    for (size_t i = 0; i < amounts.size(); ++i) {
      const bool exact = ToString(amounts[i]) == Text(amounts[i], kAllDecimals);
      if (exact || !ReadsLikeAnother(i, amounts, texts)) continue;
      next[i] = decimals <= kMostDecimals ? Text(amounts[i], decimals)
                                          : std::to_string(amounts[i].n) + " B";
    }
    texts = std::move(next);
  }
  return texts;
}

}  // namespace divvy
