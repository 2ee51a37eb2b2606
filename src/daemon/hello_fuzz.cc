// Whatever bytes a tenant's socket delivers, ParseHello gives a reason or a Hello whose every value
// is in range. Versions of 1 in the input stand for the present ones, so that the corpus outlives
// them.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "src/daemon/hello.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace divvy;  // NOLINT
  std::vector<uint8_t> said(data, data + size);
  const auto make_present = [&said](size_t offset, uint16_t version) {
    if (said.size() >= offset + 2 && said[offset] == 1 && said[offset + 1] == 0)
      std::memcpy(&said[offset], &version, sizeof version);
  };
  make_present(offsetof(wire::Hello, protocol_version), wire::kProtocolVersion);
  make_present(offsetof(wire::Hello, layout_version), region::kLayoutVersion);
  const Result<daemon::HelloView> hello = daemon::ParseHello(said.data(), size);
  if (!hello.ok()) {
    if (hello.error().message.empty()) std::abort();
    const wire::Refused refused = daemon::MakeRefused(71, hello.error().message);
    if (refused.reason[sizeof refused.reason - 1] != '\0') std::abort();
    return 0;
  }
  if (hello->command.size() > 15 || hello->held.size() > region::kMaxDevices) std::abort();
  for (const char c : hello->command)
    if (c < 0x20 || c >= 0x7f) std::abort();
  for (const auto& held : hello->held) {
    uint64_t sum = 0;
    for (const uint64_t k : held.kind_units) sum += k;
    if (held.units > region::kMaxUnits || sum > held.units) std::abort();
  }
  return 0;
}
