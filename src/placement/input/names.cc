// Small texts: see names.h.
#include "src/placement/input/names.h"

#include <algorithm>
#include <charconv>

#include "src/base/visible.h"

namespace divvy::placement {

Numbered::Numbered(std::vector<std::string>* names) : names_(names) {
  for (uint32_t i = 0; i < names->size(); ++i) at_[(*names)[i]] = i;
}

uint32_t Numbered::Of(std::string_view name) {
  const auto [it, added] =
      at_.try_emplace(std::string(name), static_cast<uint32_t>(names_->size()));
  if (added) names_->emplace_back(name);
  return it->second;
}

std::string GangName(uint16_t space, std::string_view name) {
  return std::to_string(space) + "/" + std::string(name);
}

Result<uint64_t> ParseModels(std::string_view spec, Models* models) {
  uint64_t mask = 0;
  while (!spec.empty()) {
    const size_t bar = std::min(spec.find('|'), spec.size());
    if (bar > 0) {
      const Result<uint8_t> id = models->Intern(spec.substr(0, bar));
      if (!id) return id.error();
      mask |= uint64_t{1} << *id;
    }
    spec.remove_prefix(std::min(bar + 1, spec.size()));
  }
  return mask == 0 ? kAnyModel : mask;
}

Status ParseGroups(std::string_view text, char separator, int32_t devices,
                   std::vector<uint8_t>* out) {
  if (text.empty()) return {};
  const char* p = text.data();
  const char* end = p + text.size();
  for (;;) {
    uint8_t group = 0;
    const auto [next, ec] = std::from_chars(p, end, group);
    if (ec != std::errc() || (next != end && *next != separator)) {
      return Invalid("\"" + VisibleName(text) + "\" is not a list of numbers to 255");
    }
    out->push_back(group);
    if (next == end) break;
    p = next + 1;
  }
  if (out->size() != static_cast<size_t>(devices)) {
    return Invalid(std::to_string(out->size()) + " numbers for " + std::to_string(devices) +
                   " GPUs");
  }
  return {};
}

Result<Link> ParseLink(std::string_view text) {
  if (text.empty() || text == "any") return Link::kAny;
  if (text == "prefer") return Link::kPrefer;
  if (text == "require") return Link::kRequire;
  return Invalid("link is \"" + VisibleName(text) + "\", not any, prefer or require");
}

}  // namespace divvy::placement
