#include "src/cli/load/operation.h"

#include <algorithm>
#include <cmath>

namespace divvy::cli {
namespace {

// sm_50 is the oldest that drivers still translate from, so it runs on every GPU since Maxwell.
constexpr char kPtx[] = R"(
.version 6.0
.target sm_50
.address_size 64
.visible .entry spin(.param .u64 ns)
{
  .reg .pred %p<2>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [ns];
  mov.u64 %rd2, %globaltimer;
again:
  mov.u64 %rd3, %globaltimer;
  sub.u64 %rd4, %rd3, %rd2;
  setp.lt.u64 %p1, %rd4, %rd1;
  @%p1 bra again;
  ret;
}
.visible .entry store(.param .u64 to, .param .u32 value)
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [to];
  ld.param.u32 %r1, [value];
  cvta.to.global.u64 %rd2, %rd1;
  st.volatile.global.u32 [%rd2], %r1;
  membar.sys;
  ret;
}
.visible .entry wait_value(.param .u64 at, .param .u32 value)
{
  .reg .pred %p<2>;
  .reg .b32 %r<3>;
  .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [at];
  ld.param.u32 %r1, [value];
  cvta.to.global.u64 %rd2, %rd1;
again:
  ld.volatile.global.u32 %r2, [%rd2];
  setp.ne.u32 %p1, %r2, %r1;
  @%p1 bra again;
  ret;
}
)";
constexpr int kGraphKernels = 10;
// An event behind so much work: finer than anybody looks, dear enough to be rare.
constexpr int64_t kEventSpaceNs = 500'000;

}  // namespace

Status Operation::Prepare() {
  lanes_.resize(static_cast<size_t>(options_.stream == "own" ? options_.streams : 1));
  for (Lane& lane : lanes_) {
    if (options_.stream == "own")
      DIVVY_CU(driver_, cuStreamCreate, &lane.stream, CU_STREAM_NON_BLOCKING);
    lane.completions = std::make_unique<Completions>(driver_);
  }
  CUmodule module = nullptr;
  DIVVY_CU(driver_, cuModuleLoadData, &module, kPtx);
  DIVVY_CU(driver_, cuModuleGetFunction, &spin_, module, "spin");
  if (!options_.meet.empty()) {
    DIVVY_CU(driver_, cuModuleGetFunction, &store_, module, "store");
    DIVVY_CU(driver_, cuModuleGetFunction, &wait_value_, module, "wait_value");
    auto meeting = Meeting::Open(driver_, options_.meet);
    if (!meeting.ok()) return meeting.error();
    meeting_ = std::move(*meeting);
  }
  if (options_.graph_ns > 0)
    if (const Status s = BuildGraph(); !s.ok()) return s;
  if (options_.event) DIVVY_CU(driver_, cuEventCreate, &event_, CU_EVENT_DISABLE_TIMING);
  if (options_.copy.n > 0) {
    DIVVY_CU(driver_, cuMemHostAlloc, &host_, options_.copy.n, 0);
    DIVVY_CU_TAKE(driver_, options_.copy, cuMemAlloc_v2, &target_, options_.copy.n);
  }
  return {};
}

Status Operation::Submit() {
  Lane& lane = lanes_[next_];
  next_ = (next_ + 1) % lanes_.size();
  if (const Status s = Launch(lane.stream); !s.ok()) return s;
  ++lane.submitted;
  // Requests that are waited for after little work tell by themselves.
  const bool by_wait =
      options_.sync_every > 0 &&
      options_.OperationNs() * static_cast<int64_t>(options_.sync_every) <= 2 * kEventSpaceNs;
  if (options_.every_ns == 0 || by_wait) return {};
  const auto operations =
      static_cast<uint64_t>(kEventSpaceNs / std::max<int64_t>(1, options_.OperationNs()));
  if (lane.submitted - lane.told < std::max<uint64_t>(1, operations)) return {};
  lane.told = lane.submitted;
  return lane.completions->Record(lane.stream, ptsz_, lane.submitted);
}

Status Operation::Launch(CUstream stream) {
  if (meeting_ != nullptr)
    if (const Status s = Meet(stream, 0); !s.ok()) return s;
  if (options_.kernel_ns > 0) {
    uint64_t ns = KernelNs();
    void* params[] = {&ns};
    if (const Status s = LaunchKernel(spin_, stream, params); !s.ok()) return s;
  }
  if (meeting_ != nullptr)
    if (const Status s = Meet(stream, 1); !s.ok()) return s;
  if (exec_ != nullptr) {
    if (ptsz_)
      DIVVY_CU(driver_, cuGraphLaunch_ptsz, exec_, nullptr);
    else
      DIVVY_CU(driver_, cuGraphLaunch, exec_, stream);
  }
  if (event_ != nullptr) DIVVY_CU(driver_, cuEventRecord, event_, stream);
  if (host_ != nullptr) {
    if (ptsz_)
      DIVVY_CU(driver_, cuMemcpyHtoDAsync_v2_ptsz, target_, host_, options_.copy.n, nullptr);
    else
      DIVVY_CU(driver_, cuMemcpyHtoDAsync_v2, target_, host_, options_.copy.n, stream);
  }
  return {};
}

Status Operation::LaunchKernel(CUfunction kernel, CUstream stream, void** params) {
  if (options_.cooperative && ptsz_)
    DIVVY_CU(driver_, cuLaunchCooperativeKernel_ptsz, kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, params);
  else if (options_.cooperative)
    DIVVY_CU(driver_, cuLaunchCooperativeKernel, kernel, 1, 1, 1, 1, 1, 1, 0, stream, params);
  else if (ptsz_)
    DIVVY_CU(driver_, cuLaunchKernel_ptsz, kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr);
  else
    DIVVY_CU(driver_, cuLaunchKernel, kernel, 1, 1, 1, 1, 1, 1, 0, stream, params, nullptr);
  return {};
}

// Lengths that differ are spread evenly on a logarithmic scale, in an order without a pattern;
// their mean is kernel_ns, whatever the number of kernels.
uint64_t Operation::KernelNs() {
  const auto mean = static_cast<double>(options_.kernel_ns);
  if (options_.vary <= 1) return static_cast<uint64_t>(options_.kernel_ns);
  constexpr double kGolden = 0.6180339887498949;
  const double at = std::fmod(static_cast<double>(++kernels_) * kGolden, 1.0);
  const double log = std::log(options_.vary);
  const double of_mean = 2 * log / (options_.vary - 1 / options_.vary);
  return static_cast<uint64_t>(mean * of_mean * std::exp((2 * at - 1) * log));
}

Status Operation::Meet(CUstream stream, unsigned half) {
  Meeting::Words words = meeting_->At(half);
  void* store[] = {&words.mine, &words.value};
  if (const Status s = LaunchKernel(store_, stream, store); !s.ok()) return s;
  void* wait[] = {&words.other, &words.value};
  return LaunchKernel(wait_value_, stream, wait);
}

Status Operation::Wait() {
  for (Lane& lane : lanes_) {
    if (ptsz_)
      DIVVY_CU(driver_, cuStreamSynchronize_ptsz, nullptr);
    else
      DIVVY_CU(driver_, cuStreamSynchronize, lane.stream);
    lane.completions->AllDone(lane.submitted);
  }
  return {};
}

uint64_t Operation::Done() {
  uint64_t sum = 0;
  for (Lane& lane : lanes_) sum += lane.completions->Done();
  return sum;
}

Status Operation::BuildGraph() {
  CUgraph graph = nullptr;
  DIVVY_CU(driver_, cuGraphCreate, &graph, 0);
  auto ns = static_cast<uint64_t>(options_.graph_ns / kGraphKernels);
  void* params[] = {&ns};
  CUDA_KERNEL_NODE_PARAMS_v1 kernel{};
  kernel.func = spin_;
  kernel.gridDimX = kernel.gridDimY = kernel.gridDimZ = 1;
  kernel.blockDimX = kernel.blockDimY = kernel.blockDimZ = 1;
  kernel.kernelParams = params;
  CUgraphNode before = nullptr;
  for (int i = 0; i < kGraphKernels; ++i) {
    CUgraphNode node = nullptr;
    DIVVY_CU(driver_, cuGraphAddKernelNode, &node, graph, &before, i == 0 ? 0 : 1, &kernel);
    before = node;
  }
  DIVVY_CU(driver_, cuGraphInstantiateWithFlags, &exec_, graph, 0);
  DIVVY_CU(driver_, cuGraphDestroy, graph);
  return {};
}

}  // namespace divvy::cli
