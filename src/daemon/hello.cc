#include "src/daemon/hello.h"

#include <algorithm>
#include <cstring>

namespace divvy::daemon {

Result<HelloView> ParseHello(const void* data, size_t size) {
  wire::Hello h;
  if (size != sizeof h) return Invalid("a Hello has " + std::to_string(sizeof h) + " bytes");
  std::memcpy(&h, data, sizeof h);
  if (h.header.magic != wire::kMagic || h.header.type != wire::Type::kHello ||
      h.header.size_bytes != sizeof h)
    return Invalid("not a Hello");
  if (h.protocol_version != wire::kProtocolVersion || h.layout_version != region::kLayoutVersion)
    return Invalid("the shim speaks protocol " + std::to_string(h.protocol_version) + ", layout " +
                   std::to_string(h.layout_version) + "; this divvyd " +
                   std::to_string(wire::kProtocolVersion) + ", " +
                   std::to_string(region::kLayoutVersion) + ": use the libdivvy.so beside it");
  if (h.held_count > region::kMaxDevices) return Invalid("too many devices in a Hello");
  if ((h.flags & ~(wire::kHelloForked | wire::kHelloSecondCopy)) != 0)
    return Invalid("unknown flags in a Hello");
  HelloView view{.ns_pid = h.ns_pid,
                 .last_generation = h.last_generation,
                 .forked = (h.flags & wire::kHelloForked) != 0,
                 .second_copy = (h.flags & wire::kHelloSecondCopy) != 0};
  view.command.assign(h.command, ::strnlen(h.command, sizeof h.command - 1));
  for (char& c : view.command)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  for (uint32_t i = 0; i < h.held_count; ++i) {
    HelloView::Held held;
    std::memcpy(held.uuid.bytes.data(), h.held[i].uuid, 16);
    held.units = h.held[i].units;
    uint64_t sum = 0;
    for (unsigned k = 0; k < region::kKinds; ++k) {
      held.kind_units[k] = h.held[i].kind_units[k];
      if (held.kind_units[k] > region::kMaxUnits) return Invalid("an impossible charge in a Hello");
      sum += held.kind_units[k];
    }
    // The kinds are for people and may be torn; the total is what counts.
    if (held.units > region::kMaxUnits) return Invalid("an impossible charge in a Hello");
    if (sum > held.units) std::fill(std::begin(held.kind_units), std::end(held.kind_units), 0);
    for (const HelloView::Held& other : view.held)
      if (other.uuid == held.uuid) return Invalid("a device twice in a Hello");
    view.held.push_back(held);
  }
  return view;
}

wire::Refused MakeRefused(uint32_t code, const std::string& reason) {
  wire::Refused r{};
  r.header = {wire::kMagic, wire::Type::kRefused, sizeof r};
  r.code = code;
  std::strncpy(r.reason, reason.c_str(), sizeof r.reason - 1);
  return r;
}

}  // namespace divvy::daemon
