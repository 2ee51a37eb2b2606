#include "src/base/sim_spec.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace divvy {
namespace {

// A whole number and nothing after it.
bool ReadNumber(std::string_view text, uint32_t high, uint32_t* out) {
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, *out);
  return error == std::errc() && rest == end && *out >= 1 && *out <= high;
}

bool Find(std::string_view name, std::string_view* model) {
  const auto* const at = std::find(std::begin(kSimModels), std::end(kSimModels), name);
  if (at == std::end(kSimModels)) return false;
  *model = *at;
  return true;
}

}  // namespace

Result<SimSpec> ParseSimSpec(std::string_view text) {
  const std::string quoted = "simulated machine '" + std::string(text) + "'";
  SimSpec spec;
  std::string_view rest = text;
  if (const size_t at = rest.find('@'); at != rest.npos) {
    std::string_view factor = rest.substr(at + 1);
    if (factor.starts_with('x')) factor.remove_prefix(1);
    if (!ReadNumber(factor, kMaxSimDilation, &spec.dilation))
      return Invalid(quoted + ": dilation is @x1 to @x" + std::to_string(kMaxSimDilation));
    rest = rest.substr(0, at);
  }
  if (Find(rest, &spec.model)) return spec;
  const size_t x = rest.rfind('x');
  if (x == rest.npos || !Find(rest.substr(0, x), &spec.model)) {
    std::string models;
    for (const std::string_view m : kSimModels)
      models += (models.empty() ? "" : ", ") + std::string(m);
    return Invalid(quoted + ": known models are " + models +
                   "; write NAME[xCOUNT][@xDILATION], as in h100x4@x10");
  }
  if (!ReadNumber(rest.substr(x + 1), kMaxSimDevices, &spec.count))
    return Invalid(quoted + ": count is x1 to x" + std::to_string(kMaxSimDevices));
  return spec;
}

}  // namespace divvy
