// Whatever bytes a tenant's socket delivers, ParseHello gives a reason or a Hello whose every value
// is in range.
#include <cstdlib>

#include "src/daemon/hello.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace divvy;  // NOLINT
  const Result<daemon::HelloView> hello = daemon::ParseHello(data, size);
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
