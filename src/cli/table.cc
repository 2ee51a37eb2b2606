#include "src/cli/table.h"

#include <algorithm>
#include <cstdio>

#include "src/base/bytes.h"

namespace divvy::cli {
namespace {

// Columns on a terminal: UTF-8 continuation bytes take none.
size_t Width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::string Table::ToString() const {
  std::vector<size_t> width;
  for (const auto& row : rows_) {
    width.resize(std::max(width.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], Width(row[i]));
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      line.append(width[i] - Width(row[i]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string Age(double seconds) {
  const auto s = static_cast<long long>(std::max(0.0, seconds));
  if (s < 120) return std::to_string(s) + "s";
  if (s < 2 * 3600) return std::to_string(s / 60) + "m";
  if (s < 48 * 3600) return std::to_string(s / 3600) + "h";
  return std::to_string(s / 86400) + "d";
}

std::string Amount(uint64_t bytes) { return ToString(Bytes{bytes}); }

std::string SignedAmount(int64_t bytes) {
  return bytes < 0 ? "-" + Amount(uint64_t{0} - static_cast<uint64_t>(bytes))
                   : Amount(static_cast<uint64_t>(bytes));
}

std::string DurationText(double ns) {
  char text[32];
  if (ns < 1e3)
    std::snprintf(text, sizeof(text), "%.0f ns", ns);
  else if (ns < 1e6)
    std::snprintf(text, sizeof(text), "%.1f us", ns / 1e3);
  else if (ns < 1e9)
    std::snprintf(text, sizeof(text), "%.2f ms", ns / 1e6);
  else
    std::snprintf(text, sizeof(text), "%.2f s", ns / 1e9);
  return text;
}

std::string Shortened(std::string text, size_t width) {
  if (Width(text) <= width) return text;
  size_t bytes = 0;
  for (size_t columns = 0; columns + 1 < width; ++columns) {
    ++bytes;
    while (bytes < text.size() && (text[bytes] & 0xc0) == 0x80) ++bytes;
  }
  return text.substr(0, bytes) + "…";
}

}  // namespace divvy::cli
