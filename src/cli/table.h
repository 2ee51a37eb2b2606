// Plain text tables, and the short forms of amounts and ages that they show.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace divvy::cli {

class Table {
 public:
  explicit Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  // Left-aligned columns, two spaces apart, no trailing blanks.
  std::string ToString() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

std::string Age(double seconds);                        // "5s", "12m", "3h", "4d"
std::string Amount(uint64_t bytes);                     // "1.5 GiB"
std::string SignedAmount(int64_t bytes);                // "-2 MiB"
std::string DurationText(double ns);                    // "20.1 us", "3.0 ms"
std::string Shortened(std::string text, size_t width);  // "python train.py --ba…"

}  // namespace divvy::cli
