// Percent: a part of a device's compute, kept in thousandths of a percent so that sums are exact.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/base/result.h"

namespace divvy {

struct Percent {
  uint32_t milli = 0;  // 100 % = 100000

  constexpr auto operator<=>(const Percent&) const = default;
  constexpr Percent operator+(Percent o) const { return {milli + o.milli}; }
  constexpr double fraction() const { return milli / 100000.0; }
  static constexpr Percent Of(uint32_t whole) { return {whole * 1000}; }
};

// Reads "30", "12.5", "30%". Refuses 0, above 100, negatives and NaN.
Result<Percent> ParsePercent(std::string_view text);
std::string ToString(Percent p);  // "12.5 %"

}  // namespace divvy
