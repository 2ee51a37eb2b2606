#include "src/cli/load/write_value.h"
#include "src/base/clock.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace divvy::cli {
namespace {

constexpr int kRounds = 500, kBatch = 50;

int64_t Median(std::vector<int64_t>& values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace

Result<nlohmann::json> MeasureWriteValue(const Driver& driver) {
  CUstream stream = nullptr;
  void* host = nullptr;
  CUdeviceptr device = 0;
  DIVVY_CU(driver, cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
  DIVVY_CU(driver, cuMemHostAlloc, &host, 4096, CU_MEMHOSTALLOC_DEVICEMAP);
  DIVVY_CU(driver, cuMemHostGetDevicePointer_v2, &device, host, 0);
  std::atomic_ref<uint64_t> word(*static_cast<uint64_t*>(host));
  word = 0;
  std::vector<int64_t> calls, seen;
  uint64_t value = 0;
  const auto write = [&]() -> Status {
    DIVVY_CU(driver, cuStreamWriteValue64_v2, stream, device, ++value,
             CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER);
    return {};
  };
  for (int round = 0; round < kRounds; ++round) {
    const int64_t from = NowNs();
    if (const Status s = write(); !s.ok()) return s.error();
    // A second at most: a device that is gone must not hang its measurement.
    while (word.load(std::memory_order_acquire) != value && NowNs() - from < 1'000'000'000) {
    }
    seen.push_back(NowNs() - from);
  }
  for (int round = 0; round < kRounds / kBatch; ++round) {
    const int64_t from = NowNs();
    for (int i = 0; i < kBatch; ++i)
      if (const Status s = write(); !s.ok()) return s.error();
    calls.push_back((NowNs() - from) / kBatch);
    DIVVY_CU(driver, cuStreamSynchronize, stream);
  }
  return nlohmann::json{{"host_ns", Median(calls)}, {"visible_ns", Median(seen)}};
}

}  // namespace divvy::cli
