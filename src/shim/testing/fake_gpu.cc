#include "src/shim/testing/fake_gpu.h"

#include <pthread.h>
#include <stdlib.h>

#include "src/shim/driver.h"
#include "src/shim/testing/fake_driver.h"

namespace divvy::shim::testing {
namespace {

FakeGpu* the_gpu = nullptr;
std::atomic<uint64_t> next_event{0x5000000};

// Default streams are queues of their own: one of the context, one of each thread.
uint64_t NameOf(CUstream stream) {
  if (stream == nullptr) stream = CU_STREAM_LEGACY;
  if (stream != CU_STREAM_PER_THREAD) return reinterpret_cast<uint64_t>(stream);
  return static_cast<uint64_t>(pthread_self()) | 1;
}

CUresult Kernel(CUfunction f, CUstream stream) {
  if (const CUresult r = FakeGpu::Get().TakeLaunchFailure(); r != CUDA_SUCCESS) return r;
  return FakeGpu::Get().Queue(stream, {FakeGpu::Item::kKernel, reinterpret_cast<uint64_t>(f) >> 4});
}
CUresult Launch(CUfunction f, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                CUstream s, void**, void**) {
  return Kernel(f, s);
}
CUresult LaunchPtsz(CUfunction f, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                    unsigned, CUstream s, void**, void**) {
  return Kernel(f, s != nullptr ? s : CU_STREAM_PER_THREAD);
}
CUresult LaunchEx(const CUlaunchConfig* c, CUfunction f, void**, void**) {
  return Kernel(f, c->hStream);
}
CUresult LaunchExPtsz(const CUlaunchConfig* c, CUfunction f, void**, void**) {
  return Kernel(f, c->hStream != nullptr ? c->hStream : CU_STREAM_PER_THREAD);
}
CUresult Cooperative(CUfunction f, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                     unsigned, CUstream s, void**) {
  return Kernel(f, s);
}
CUresult CooperativePtsz(CUfunction f, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                         unsigned, CUstream s, void**) {
  return Kernel(f, s != nullptr ? s : CU_STREAM_PER_THREAD);
}
CUresult OldLaunch(CUfunction f) { return Kernel(f, nullptr); }
CUresult OldGrid(CUfunction f, int, int) { return Kernel(f, nullptr); }
CUresult OldGridAsync(CUfunction f, int, int, CUstream s) { return Kernel(f, s); }
CUresult MultiDevice(CUDA_LAUNCH_PARAMS_v1* list, unsigned count, unsigned) {
  for (unsigned i = 0; i < count; ++i)
    if (const CUresult r = Kernel(list[i].function, list[i].hStream)) return r;
  return CUDA_SUCCESS;
}
CUresult Graph(CUgraphExec exec, CUstream s) {
  return Kernel(reinterpret_cast<CUfunction>(exec), s);
}
CUresult GraphPtsz(CUgraphExec exec, CUstream s) {
  return Graph(exec, s != nullptr ? s : CU_STREAM_PER_THREAD);
}
CUresult Memset(CUdeviceptr, unsigned char, size_t bytes, CUstream s) {
  return FakeGpu::Get().Queue(s, {FakeGpu::Item::kKernel, bytes});
}
CUresult MemsetNow(CUdeviceptr, unsigned char, size_t bytes) {
  return FakeGpu::Get().Queue(nullptr, {FakeGpu::Item::kKernel, bytes});
}
CUresult CopyOnDevice(CUdeviceptr, CUdeviceptr, size_t bytes, CUstream s) {
  return FakeGpu::Get().Queue(s, {FakeGpu::Item::kKernel, bytes});
}
CUresult CopyIn(CUdeviceptr, const void*, size_t bytes, CUstream s) {
  return FakeGpu::Get().Queue(s, {FakeGpu::Item::kCopy, bytes});
}
CUresult CopyInNow(CUdeviceptr, const void*, size_t bytes) {
  FakeGpu::Get().Queue(nullptr, {FakeGpu::Item::kCopy, bytes});
  FakeGpu::Get().Sync(nullptr);
  return CUDA_SUCCESS;
}

CUresult Register(void* p, size_t, unsigned) {
  FakeGpu::Get().CountRegistered();
  return p != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
// Devices may see host memory elsewhere.
constexpr uint64_t kElsewhere = 0x10000000;
CUresult DevicePointer(CUdeviceptr* out, void* p, unsigned) {
  *out = reinterpret_cast<uint64_t>(p) + kElsewhere;
  return CUDA_SUCCESS;
}
CUresult Write(CUstream s, CUdeviceptr address, cuuint64_t value, unsigned flags) {
  if (flags != CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER) abort();
  if (const CUresult r = FakeGpu::Get().WriteFailure(); r != CUDA_SUCCESS) return r;
  return FakeGpu::Get().Queue(s, {FakeGpu::Item::kWrite, 0, address - kElsewhere, value});
}
CUresult NoWrite(CUstream, CUdeviceptr, cuuint64_t, unsigned) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult EventCreate(CUevent* out, unsigned) {
  *out = reinterpret_cast<CUevent>(next_event += 64);
  return CUDA_SUCCESS;
}
CUresult EventRecord(CUevent e, CUstream s) {
  return FakeGpu::Get().Queue(s, {FakeGpu::Item::kEvent, 0, 0, 0, e});
}
CUresult EventQuery(CUevent e) { return FakeGpu::Get().QueryEvent(e); }
CUresult EventElapsed(float* ms, CUevent a, CUevent b) {
  const uint64_t from = FakeGpu::Get().TimeOf(a), to = FakeGpu::Get().TimeOf(b);
  if (from == 0 || to == 0) return CUDA_ERROR_NOT_READY;
  *ms = static_cast<float>(static_cast<double>(to - from) / 1e6);
  return CUDA_SUCCESS;
}
CUresult StreamGetCtx(CUstream, CUcontext* out) {
  *out = Fake().current;
  return CUDA_SUCCESS;
}
CUresult IsCapturing(CUstream s, CUstreamCaptureStatus* status) {
  *status =
      FakeGpu::Get().Capturing(s) ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}
CUresult BeginCapture(CUstream s, CUstreamCaptureMode) {
  FakeGpu::Get().Capture(s, true);
  return CUDA_SUCCESS;
}
CUresult EndCapture(CUstream s, CUgraph*) {
  FakeGpu::Get().Capture(s, false);
  return CUDA_SUCCESS;
}
CUresult Synchronize(CUstream s) {
  FakeGpu::Get().Sync(s);
  return CUDA_SUCCESS;
}
CUresult CtxSynchronize() {
  FakeGpu::Get().RunAll();
  return CUDA_SUCCESS;
}
CUresult Destroy(CUstream) { return CUDA_SUCCESS; }
CUresult WaitEvent(CUstream s, CUevent, unsigned) {
  return FakeGpu::Get().Queue(s, {FakeGpu::Item::kHold});
}
CUresult WaitValue(CUstream s, CUdeviceptr, cuuint32_t, unsigned) {
  return FakeGpu::Get().Queue(s, {FakeGpu::Item::kHold});
}
CUresult BatchMemOp(CUstream s, unsigned, CUstreamBatchMemOpParams*, unsigned) {
  return FakeGpu::Get().Queue(s, {FakeGpu::Item::kHold});
}

}  // namespace

FakeGpu& FakeGpu::Get() { return *the_gpu; }

FakeGpu::FakeGpu(unsigned devices, bool memory_operations) {
  the_gpu = this;
  InstallFakeDriver(devices);
  abi::DriverFns f = g_driver;
  f.cuLaunchKernel = Launch;
  f.cuLaunchKernel_ptsz = LaunchPtsz;
  f.cuLaunchKernelEx = LaunchEx;
  f.cuLaunchKernelEx_ptsz = LaunchExPtsz;
  f.cuLaunchCooperativeKernel = Cooperative;
  f.cuLaunchCooperativeKernel_ptsz = CooperativePtsz;
  f.cuLaunchCooperativeKernelMultiDevice = MultiDevice;
  f.cuLaunch = OldLaunch;
  f.cuLaunchGrid = OldGrid;
  f.cuLaunchGridAsync = OldGridAsync;
  f.cuGraphLaunch = Graph;
  f.cuGraphLaunch_ptsz = GraphPtsz;
  f.cuMemsetD8Async = Memset;
  f.cuMemsetD8_v2 = MemsetNow;
  f.cuMemcpyDtoDAsync_v2 = CopyOnDevice;
  f.cuMemcpyHtoDAsync_v2 = CopyIn;
  f.cuMemcpyHtoD_v2 = CopyInNow;
  f.cuMemHostRegister_v2 = Register;
  f.cuMemHostGetDevicePointer_v2 = DevicePointer;
  f.cuStreamWriteValue64_v2 = memory_operations ? Write : NoWrite;
  f.cuEventCreate = EventCreate;
  f.cuEventRecord = EventRecord;
  f.cuEventQuery = EventQuery;
  f.cuEventElapsedTime = EventElapsed;
  f.cuStreamGetCtx = StreamGetCtx;
  f.cuStreamIsCapturing = IsCapturing;
  f.cuStreamBeginCapture_v2 = BeginCapture;
  f.cuStreamEndCapture = EndCapture;
  f.cuStreamSynchronize = Synchronize;
  f.cuCtxSynchronize = CtxSynchronize;
  f.cuStreamDestroy_v2 = Destroy;
  f.cuStreamWaitEvent = WaitEvent;
  f.cuStreamWaitValue32 = f.cuStreamWaitValue32_v2 = WaitValue;
  f.cuStreamBatchMemOp_v2 = f.cuStreamBatchMemOp_v2_ptsz = BatchMemOp;
  BindDriverForTest(f);
}

FakeGpu::~FakeGpu() { the_gpu = nullptr; }

void FakeGpu::Do(const Item& item) {
  clock_ns_ += item.kind == Item::kKernel || item.kind == Item::kCopy ? item.ns : 0;
  if (item.kind == Item::kWrite)
    reinterpret_cast<std::atomic<uint64_t>*>(item.address)
        ->store(item.value, std::memory_order_release);
  if (item.kind == Item::kEvent) event_time_[item.event] = clock_ns_;
}

void FakeGpu::DrainLocked(std::deque<Item>& queue) {
  while (!queue.empty()) {
    Do(queue.front());
    queue.pop_front();
  }
}

CUresult FakeGpu::Queue(CUstream stream, Item item) {
  std::lock_guard lock(mu_);
  if (item.kind == Item::kWrite) ++writes_;
  if (item.kind == Item::kKernel) ++launched_;
  if (capturing_.count(stream) != 0) {
    if (item.kind == Item::kWrite || item.kind == Item::kEvent) ++misplaced_;
    return CUDA_SUCCESS;  // recorded
  }
  if (item.kind == Item::kEvent) event_time_[item.event] = 0;
  std::deque<Item>& queue = stream_[NameOf(stream)];
  queue.push_back(item);
  if (free_) DrainLocked(queue);
  return CUDA_SUCCESS;
}

void FakeGpu::RunAll() {
  std::lock_guard lock(mu_);
  for (auto& [name, queue] : stream_) DrainLocked(queue);
}
void FakeGpu::Sync(CUstream stream) {
  std::lock_guard lock(mu_);
  DrainLocked(stream_[NameOf(stream)]);
}
void FakeGpu::Run(CUstream stream, unsigned kernels) {
  std::lock_guard lock(mu_);
  std::deque<Item>& queue = stream_[NameOf(stream)];
  while (!queue.empty()) {
    const bool kernel = queue.front().kind == Item::kKernel;
    if (kernel && kernels == 0) return;
    if (kernel) --kernels;
    Do(queue.front());
    queue.pop_front();
  }
}
void FakeGpu::Step(CUstream stream) {
  std::lock_guard lock(mu_);
  std::deque<Item>& queue = stream_[NameOf(stream)];
  if (queue.empty()) return;
  Do(queue.front());
  queue.pop_front();
}
unsigned FakeGpu::Kernels(CUstream stream) {
  std::lock_guard lock(mu_);
  unsigned n = 0;
  for (const Item& item : stream_[NameOf(stream)]) n += item.kind == Item::kKernel;
  return n;
}
std::vector<uint64_t> FakeGpu::Words(CUstream stream) {
  std::lock_guard lock(mu_);
  std::vector<uint64_t> words;
  for (const Item& item : stream_[NameOf(stream)])
    if (item.kind == Item::kWrite) words.push_back(item.value);
  return words;
}
CUresult FakeGpu::QueryEvent(CUevent event) {
  std::lock_guard lock(mu_);
  return event_time_[event] != 0 ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
uint64_t FakeGpu::TimeOf(CUevent event) {
  std::lock_guard lock(mu_);
  return event_time_[event];
}
void FakeGpu::Capture(CUstream stream, bool yes) {
  std::lock_guard lock(mu_);
  if (yes)
    capturing_.insert(stream);
  else
    capturing_.erase(stream);
}
bool FakeGpu::Capturing(CUstream stream) {
  std::lock_guard lock(mu_);
  return capturing_.count(stream) != 0;
}

}  // namespace divvy::shim::testing
