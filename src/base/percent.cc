#include "src/base/percent.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace divvy {

Result<Percent> ParsePercent(std::string_view text) {
  std::string s(text);
  if (!s.empty() && s.back() == '%') s.pop_back();
  char* end = nullptr;
  const double v = std::strtod(s.c_str(), &end);
  if (s.empty() || *end != '\0' || !std::isfinite(v) || v < 0.001 || v > 100)
    return Invalid("'" + std::string(text) +
                   "' is not a percentage: write a number above 0 and up to 100, for example 30");
  return Percent{static_cast<uint32_t>(std::lround(v * 1000))};
}

std::string ToString(Percent p) {
  char text[32];
  std::snprintf(text, sizeof text, "%g %%", p.milli / 1000.0);
  return text;
}

}  // namespace divvy
