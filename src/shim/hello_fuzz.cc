// What a tenant makes of anything that comes over its socket: one packet, and segments that hold
// whatever the input says. Mapped segments must be what the welcome claims. A version of 1 in the
// input stands for the present one, so that the corpus outlives it.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "src/shim/hello.h"

namespace {

int Segment(size_t bytes) {
  const int fd = memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) abort();
  return fd;
}

// A version of `Int` at `offset`, if the bytes reach that far.
template <typename Int>
void MakePresent(std::vector<uint8_t>& bytes, size_t offset, Int version) {
  Int said;
  if (bytes.size() < offset + sizeof(said)) return;
  memcpy(&said, &bytes[offset], sizeof(said));
  if (said == 1) memcpy(&bytes[offset], &version, sizeof(version));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace divvy;
  static const int segments[3] = {Segment(region::kPolicyBytes), Segment(region::kUsageBytes),
                                  Segment(region::kBellBytes)};
  if (size < 1) return 0;
  // Twice the first byte is the packet's length; what is left begins both segments.
  const size_t packet = data[0] * 2u < size - 1 ? data[0] * 2u : size - 1;
  const uint8_t* rest = data + 1 + packet;
  const size_t left = size - 1 - packet;
  const size_t half = left / 2 < 256 ? left / 2 : 256;
  std::vector<uint8_t> said(data + 1, rest);
  MakePresent(said, offsetof(wire::Welcome, protocol_version), wire::kProtocolVersion);
  MakePresent(said, offsetof(wire::Welcome, layout_version), uint16_t{region::kLayoutVersion});
  for (size_t i = 0; i < 2; ++i) {
    std::vector<uint8_t> head(rest + i * half, rest + (i + 1) * half);
    MakePresent(head, offsetof(region::Policy, version), region::kLayoutVersion);
    if (pwrite(segments[i], head.data(), half, 0) < 0) abort();
  }
  wire::Hello hello;
  shim::PrepareHello(&hello);
  hello.last_generation = size % 3;
  shim::Welcomed out;
  const int error = shim::TakeAnswer(said.data(), packet, segments, hello, &out);
  if (error < 0) abort();
  if (error == 0 && !out.same_generation) {
    if (out.policy->device_count > region::kMaxDevices || out.welcome.slot >= region::kMaxSlots ||
        out.welcome.slot == 0)
      abort();
    shim::Unmap(out.policy, out.usage, out.bell);
  } else if (out.policy != nullptr || out.usage != nullptr || out.bell != nullptr) {
    abort();
  }
  return 0;
}
