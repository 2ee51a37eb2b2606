// Several processes on one simulated machine: what each sees of the others, what is left of a
// killed one and for how long, memory and events that cross (CUDA Driver API, cuIpc*, "Virtual
// Memory Management"; NVML API Reference, nvmlDeviceGetComputeRunningProcesses). The test itself
// uses only NVML; every driver call is made in a child, which says what happened over a pipe.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "src/abi/generated/driver_fns.h"
#include "src/abi/nvml.h"

extern char** environ;

namespace divvy::sim {
namespace {

constexpr uint64_t kMiB = 1 << 20;

std::string BuildDir() {
  const char* build = getenv("DIVVY_BUILD_DIR");
  return build != nullptr ? build : "build";
}

// A broker for one test, ended with it.
class Machine {
 public:
  explicit Machine(std::vector<std::string> options = {}, const std::string& below = "") {
    char dir[] = "/tmp/divvy-sim-test.XXXXXX";
    root_ = dir_ = mkdtemp(dir);
    if (!below.empty()) EXPECT_EQ(mkdir((dir_ += "/" + below).c_str(), 0755), 0);
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    std::string program = BuildDir() + "/bin/divvy-sim-broker", fd = std::to_string(ready[1]);
    std::vector<std::string> args = {program, "--dir", dir_, "--ready-fd", fd, "--remove-dir"};
    args.insert(args.end(), options.begin(), options.end());
    std::vector<char*> argv;
    for (auto& a : args) argv.push_back(a.data());
    argv.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), nullptr, nullptr, argv.data(), environ), 0);
    close(ready[1]);
    char byte;
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    setenv("DIVVY_SIM_DIR", dir_.c_str(), 1);
  }
  ~Machine() {
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
    rmdir(root_.c_str());  // the broker has removed what it served
  }
  const std::string& dir() const { return dir_; }

 private:
  std::string root_, dir_;
  pid_t pid_ = -1;
};

// In a child: the driver.
const abi::DriverFns& Cu() {
  static abi::DriverFns fns;
  static const bool loaded = [] {
    void* lib = dlopen((BuildDir() + "/lib/sim/libcuda.so.1").c_str(), RTLD_NOW);
    if (lib == nullptr) _exit(99);
    auto* slot = reinterpret_cast<void**>(&fns);
    for (unsigned i = 0; i < abi::kDriverSymbolCount; ++i) {
      slot[i] = dlsym(lib, abi::kDriverNameText + abi::kDriverNameAt[i]);
    }
    return true;
  }();
  (void)loaded;
  return fns;
}

// A child that runs `body` and talks over a socket of numbers and descriptors.
class Child {
 public:
  class Line {
   public:
    explicit Line(int fd) : fd_(fd) {}
    void Say(uint64_t n) const { (void)!write(fd_, &n, sizeof n); }
    uint64_t Hear() const {
      uint64_t n = ~0ull;
      pollfd p{fd_, POLLIN, 0};
      if (poll(&p, 1, 20000) != 1 || read(fd_, &n, sizeof n) != sizeof n) return ~0ull;
      return n;
    }
    template <typename T>
    void Send(const T& v) const {
      (void)!write(fd_, &v, sizeof v);
    }
    template <typename T>
    T Receive() const {
      T v{};
      (void)!read(fd_, &v, sizeof v);
      return v;
    }
    void SendFd(int fd) const {
      char byte = 0;
      iovec iov{&byte, 1};
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
      msghdr m{};
      m.msg_iov = &iov;
      m.msg_iovlen = 1;
      m.msg_control = control;
      m.msg_controllen = sizeof control;
      cmsghdr* c = CMSG_FIRSTHDR(&m);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int));
      memcpy(CMSG_DATA(c), &fd, sizeof fd);
      sendmsg(fd_, &m, 0);
    }
    int ReceiveFd() const {
      char byte;
      iovec iov{&byte, 1};
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
      msghdr m{};
      m.msg_iov = &iov;
      m.msg_iovlen = 1;
      m.msg_control = control;
      m.msg_controllen = sizeof control;
      if (recvmsg(fd_, &m, 0) != 1) return -1;
      int fd = -1;
      memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
      return fd;
    }

   private:
    int fd_;
  };

  explicit Child(std::function<void(const Line&)> body) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    pid_ = fork();
    if (pid_ == 0) {
      close(fds[0]);
      body(Line(fds[1]));
      exit(0);  // with atexit handlers: an orderly end
    }
    close(fds[1]);
    fd_ = fds[0];
  }
  ~Child() {
    if (pid_ > 0) Kill();
    close(fd_);
  }
  Line line() const { return Line(fd_); }
  pid_t pid() const { return pid_; }
  void Kill() {
    kill(pid_, SIGKILL);
    Join();
  }
  int Join() {
    int status = -1;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_;
  int fd_;
};

// NVML of the machine at DIVVY_SIM_DIR.
class Nvml {
 public:
  Nvml() {
    lib_ = dlopen((BuildDir() + "/lib/sim/libnvidia-ml.so.1").c_str(), RTLD_NOW);
    EXPECT_NE(lib_, nullptr);
    EXPECT_EQ(Fn<nvmlReturn_t()>("nvmlInit_v2")(), NVML_SUCCESS);
    EXPECT_EQ(Fn<nvmlReturn_t(unsigned, nvmlDevice_t*)>("nvmlDeviceGetHandleByIndex_v2")(0, &gpu_),
              NVML_SUCCESS);
  }
  ~Nvml() { Fn<nvmlReturn_t()>("nvmlShutdown")(); }

  uint64_t Used() {
    nvmlMemory_v2_t m{};
    m.version = nvmlMemory_v2;
    EXPECT_EQ(
        (Fn<nvmlReturn_t(nvmlDevice_t, nvmlMemory_v2_t*)>("nvmlDeviceGetMemoryInfo_v2")(gpu_, &m)),
        NVML_SUCCESS);
    return m.used;
  }
  // ~0: not listed.
  uint64_t UsedBy(pid_t pid) {
    std::vector<nvmlProcessInfo_t> list(256);
    unsigned count = unsigned(list.size());
    auto f = Fn<nvmlReturn_t(nvmlDevice_t, unsigned*, nvmlProcessInfo_t*)>(
        "nvmlDeviceGetComputeRunningProcesses_v3");
    EXPECT_EQ(f(gpu_, &count, list.data()), NVML_SUCCESS);
    for (unsigned i = 0; i < count; ++i) {
      if (list[i].pid == unsigned(pid)) return list[i].usedGpuMemory;
    }
    return ~0ull;
  }
  unsigned Busy() {
    nvmlUtilization_t u{};
    EXPECT_EQ((Fn<nvmlReturn_t(nvmlDevice_t, nvmlUtilization_t*)>("nvmlDeviceGetUtilizationRates")(
                  gpu_, &u)),
              NVML_SUCCESS);
    return u.gpu;
  }
  unsigned BusyOf(pid_t pid) {
    nvmlProcessUtilizationSample_t list[64];
    unsigned count = 64;
    auto f = Fn<nvmlReturn_t(nvmlDevice_t, nvmlProcessUtilizationSample_t*, unsigned*,
                             unsigned long long)>("nvmlDeviceGetProcessUtilization");
    if (f(gpu_, list, &count, 0) != NVML_SUCCESS) return 0;
    for (unsigned i = 0; i < count; ++i) {
      if (list[i].pid == unsigned(pid)) return list[i].smUtil;
    }
    return 0;
  }
  std::string Uuid() {
    char text[96] = {};
    EXPECT_EQ((Fn<nvmlReturn_t(nvmlDevice_t, char*, unsigned)>("nvmlDeviceGetUUID")(gpu_, text,
                                                                                    sizeof text)),
              NVML_SUCCESS);
    return text;
  }
  // Waits, by looking, for something that must come.
  bool Until(const std::function<bool()>& holds) {
    for (int i = 0; i < 10000; ++i) {
      if (holds()) return true;
      poll(nullptr, 0, 1);
    }
    return false;
  }

 private:
  template <typename F>
  F* Fn(const char* name) {
    return reinterpret_cast<F*>(dlsym(lib_, name));
  }
  void* lib_;
  nvmlDevice_t gpu_ = nullptr;
};

// Init, primary context of device 0, current. What a child begins with.
CUresult Begin() {
  CUcontext c;
  if (CUresult r = Cu().cuInit(0)) return r;
  if (CUresult r = Cu().cuDevicePrimaryCtxRetain(&c, 0)) return r;
  return Cu().cuCtxSetCurrent(c);
}

TEST(Processes, EachIsListedWithItsMemory) {
  Machine machine;
  Nvml nvml;
  auto take = [](uint64_t bytes) {
    return [bytes](const Child::Line& line) {
      CUdeviceptr p;
      line.Say(Begin());
      line.Say(Cu().cuMemAlloc_v2(&p, bytes));
      line.Hear();
    };
  };
  Child a(take(1000 * kMiB)), b(take(2000 * kMiB));
  for (Child* c : {&a, &b}) {
    EXPECT_EQ(c->line().Hear(), 0u);
    EXPECT_EQ(c->line().Hear(), 0u);
  }
  EXPECT_EQ(nvml.UsedBy(b.pid()) - nvml.UsedBy(a.pid()), 1000 * kMiB);
  EXPECT_EQ(nvml.Used(), nvml.UsedBy(a.pid()) + nvml.UsedBy(b.pid()));
  a.line().Say(0);
  EXPECT_EQ(a.Join(), 0);
  // An orderly end gives back at once: when the broker has seen it.
  EXPECT_TRUE(nvml.Until([&] { return nvml.Used() == nvml.UsedBy(b.pid()); }));
}

TEST(Processes, OneRunsOutOfWhatOthersHold) {
  Machine machine({"--profile", "t4"});
  auto body = [](const Child::Line& line) {
    CUdeviceptr p;
    line.Say(Begin());
    line.Say(Cu().cuMemAlloc_v2(&p, 10ull << 30));
    line.Hear();
  };
  Child a(body);
  EXPECT_EQ(a.line().Hear(), 0u);
  EXPECT_EQ(a.line().Hear(), 0u);
  Child b(body);
  EXPECT_EQ(b.line().Hear(), 0u);
  EXPECT_EQ(b.line().Hear(), uint64_t(CUDA_ERROR_OUT_OF_MEMORY));
}

TEST(Processes, AKilledProcessKeepsItsMemoryForTheTeardownDelay) {
  Machine machine({"--teardown-delay", "60000"});
  Nvml nvml;
  Child a([](const Child::Line& line) {
    CUdeviceptr p;
    line.Say(Begin());
    line.Say(Cu().cuMemAlloc_v2(&p, 100 * kMiB));
    pause();
  });
  EXPECT_EQ(a.line().Hear(), 0u);
  EXPECT_EQ(a.line().Hear(), 0u);
  pid_t pid = a.pid();
  uint64_t held = nvml.UsedBy(pid);
  a.Kill();
  EXPECT_EQ(nvml.UsedBy(pid), held);  // far from over
  EXPECT_EQ(nvml.Used(), held);
}

TEST(Processes, AKilledProcessIsGoneAfterTheTeardownDelay) {
  Machine machine({"--teardown-delay", "50"});
  Nvml nvml;
  for (int i = 0; i < 3; ++i) {
    Child a([](const Child::Line& line) {
      line.Say(Begin());
      CUdeviceptr p;
      for (;;) {  // killed anywhere in the middle of booking
        (void)Cu().cuMemAlloc_v2(&p, 3 * kMiB);
        (void)Cu().cuMemFree_v2(p);
      }
    });
    EXPECT_EQ(a.line().Hear(), 0u);
    pid_t pid = a.pid();
    a.Kill();
    EXPECT_TRUE(nvml.Until([&] { return nvml.UsedBy(pid) == ~0ull; }));
    EXPECT_EQ(nvml.Used(), 0u);
  }
}

// CUDA does not survive fork: the child's calls say 3, and change nothing of the parent's.
TEST(Processes, AForkedChildIsNotInitialised) {
  Machine machine;
  Nvml nvml;
  Child a([](const Child::Line& line) {
    line.Say(Begin());
    pid_t child = fork();
    if (child == 0) {
      CUdeviceptr p;
      int n;
      bool right = Cu().cuMemAlloc_v2(&p, 4096) == CUDA_ERROR_NOT_INITIALIZED &&
                   Cu().cuDeviceGetCount(&n) == CUDA_ERROR_NOT_INITIALIZED &&
                   Cu().cuInit(0) == CUDA_ERROR_NOT_INITIALIZED;
      exit(right ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    line.Say(uint64_t(status));
    CUdeviceptr p;
    line.Say(Cu().cuMemAlloc_v2(&p, 4096));
    line.Hear();
  });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(a.line().Hear(), 0u);
  EXPECT_NE(nvml.UsedBy(a.pid()), ~0ull);
}

// cuIpcOpenMemHandle: the same memory in two processes, booked once, to its maker; it outlives a
// maker that is killed, and is then booked to who still maps it.
TEST(Processes, IpcMemoryIsSharedAndOutlivesItsMaker) {
  Machine machine({"--teardown-delay", "20"});
  Nvml nvml;
  Child maker([](const Child::Line& line) {
    CUdeviceptr p;
    CUipcMemHandle handle;
    line.Say(Begin());
    line.Say(Cu().cuMemAlloc_v2(&p, 64 * kMiB));
    (void)Cu().cuMemsetD32_v2(p, 1234, 16);
    (void)Cu().cuCtxSynchronize();
    line.Say(Cu().cuIpcGetMemHandle(&handle, p));
    line.Send(handle);
    pause();
  });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(maker.line().Hear(), 0u);
  auto handle = maker.line().Receive<CUipcMemHandle>();
  uint64_t makers = nvml.UsedBy(maker.pid());
  Child user([handle](const Child::Line& line) {
    CUdeviceptr p;
    uint32_t word = 0;
    line.Say(Begin());
    line.Say(Cu().cuIpcOpenMemHandle_v2(&p, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    (void)Cu().cuMemcpyDtoH_v2(&word, p, 4);
    line.Say(word);
    line.Hear();
    (void)Cu().cuMemcpyDtoH_v2(&word, p + 4, 4);
    line.Say(word);
    line.Say(Cu().cuIpcCloseMemHandle(p));
    line.Hear();
  });
  EXPECT_EQ(user.line().Hear(), 0u);
  EXPECT_EQ(user.line().Hear(), 0u);
  EXPECT_EQ(user.line().Hear(), 1234u);
  uint64_t context = nvml.UsedBy(user.pid());
  EXPECT_EQ(nvml.UsedBy(maker.pid()), makers);
  EXPECT_EQ(nvml.Used(), makers + context);
  pid_t gone = maker.pid();
  maker.Kill();
  EXPECT_TRUE(nvml.Until([&] { return nvml.UsedBy(gone) == ~0ull; }));
  EXPECT_EQ(nvml.UsedBy(user.pid()), context + 64 * kMiB);
  user.line().Say(0);
  EXPECT_EQ(user.line().Hear(), 1234u);
  EXPECT_EQ(user.line().Hear(), 0u);
  EXPECT_EQ(nvml.UsedBy(user.pid()), context);
}

// cuMemExportToShareableHandle: a descriptor carries physical memory to another process.
TEST(Processes, PhysicalMemoryTravelsByDescriptor) {
  Machine machine({"--teardown-delay", "20"});
  Nvml nvml;
  auto prop = [] {
    CUmemAllocationProp p{};
    p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
    p.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return p;
  };
  auto map = [](CUmemGenericAllocationHandle h, CUdeviceptr* at) {
    CUmemAccessDesc access{{CU_MEM_LOCATION_TYPE_DEVICE, 0}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    if (CUresult r = Cu().cuMemAddressReserve(at, 2 * kMiB, 0, 0, 0)) return r;
    if (CUresult r = Cu().cuMemMap(*at, 2 * kMiB, 0, h, 0)) return r;
    return Cu().cuMemSetAccess(*at, 2 * kMiB, &access, 1);
  };
  Child maker([&](const Child::Line& line) {
    CUmemGenericAllocationHandle h;
    CUdeviceptr at;
    CUmemAllocationProp p = prop();
    int fd = -1;
    line.Say(Begin());
    line.Say(Cu().cuMemCreate(&h, 2 * kMiB, &p, 0));
    line.Say(map(h, &at));
    (void)Cu().cuMemsetD32_v2(at, 77, 1);
    (void)Cu().cuCtxSynchronize();
    line.Say(
        Cu().cuMemExportToShareableHandle(&fd, h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    line.SendFd(fd);
    line.Hear();
    // Lets go of it entirely: the other one keeps it.
    line.Say(Cu().cuMemUnmap(at, 2 * kMiB));
    line.Say(Cu().cuMemRelease(h));
    line.Hear();
  });
  for (int i = 0; i < 4; ++i) EXPECT_EQ(maker.line().Hear(), 0u);
  int fd = maker.line().ReceiveFd();
  uint64_t before = nvml.UsedBy(maker.pid());
  Child user([&](const Child::Line& line) {
    CUmemGenericAllocationHandle h;
    CUdeviceptr at;
    uint32_t word = 0;
    line.Say(Begin());
    line.Say(Cu().cuMemImportFromShareableHandle(&h, reinterpret_cast<void*>(intptr_t(fd)),
                                                 CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    line.Say(map(h, &at));
    line.Say(Cu().cuMemRelease(h));
    line.Hear();
    (void)Cu().cuMemcpyDtoH_v2(&word, at, 4);
    line.Say(word);
    line.Say(Cu().cuMemUnmap(at, 2 * kMiB));
    line.Hear();
  });
  for (int i = 0; i < 4; ++i) EXPECT_EQ(user.line().Hear(), 0u);
  close(fd);
  uint64_t context = nvml.UsedBy(user.pid());
  maker.line().Say(0);
  EXPECT_EQ(maker.line().Hear(), 0u);
  EXPECT_EQ(maker.line().Hear(), 0u);
  EXPECT_EQ(nvml.UsedBy(maker.pid()), before - 2 * kMiB);
  EXPECT_EQ(nvml.UsedBy(user.pid()), context + 2 * kMiB);
  user.line().Say(0);
  EXPECT_EQ(user.line().Hear(), 77u);
  EXPECT_EQ(user.line().Hear(), 0u);
  EXPECT_EQ(nvml.UsedBy(user.pid()), context);
}

// CU_EVENT_INTERPROCESS: one process waits for the other's work.
TEST(Processes, EventsCrossProcesses) {
  Machine machine;
  Child recorder([](const Child::Line& line) {
    CUevent e;
    CUipcEventHandle handle;
    CUdeviceptr word;
    line.Say(Begin());
    (void)Cu().cuMemAlloc_v2(&word, 4);
    (void)Cu().cuMemsetD32_v2(word, 0, 1);
    line.Say(Cu().cuEventCreate(&e, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
    line.Say(Cu().cuIpcGetEventHandle(&handle, e));
    CUstream stream, other;
    (void)Cu().cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
    (void)Cu().cuStreamCreate(&other, CU_STREAM_NON_BLOCKING);
    (void)Cu().cuCtxSynchronize();
    line.Say(Cu().cuStreamWaitValue32_v2(stream, word, 1, CU_STREAM_WAIT_VALUE_EQ));
    line.Say(Cu().cuEventRecord(e, stream));
    line.Send(handle);
    line.Hear();
    line.Say(Cu().cuStreamWriteValue32_v2(other, word, 1, 0));
    line.Hear();
  });
  for (int i = 0; i < 5; ++i) EXPECT_EQ(recorder.line().Hear(), 0u);
  auto handle = recorder.line().Receive<CUipcEventHandle>();
  Child waiter([handle](const Child::Line& line) {
    CUevent e;
    line.Say(Begin());
    line.Say(Cu().cuIpcOpenEventHandle(&e, handle));
    line.Say(Cu().cuEventQuery(e));
    line.Say(Cu().cuStreamWaitEvent(CU_STREAM_PER_THREAD, e, 0));
    line.Say(Cu().cuStreamQuery(CU_STREAM_PER_THREAD));
    line.Hear();
    line.Say(Cu().cuStreamSynchronize(CU_STREAM_PER_THREAD));
    line.Say(Cu().cuEventSynchronize(e));
  });
  EXPECT_EQ(waiter.line().Hear(), 0u);
  EXPECT_EQ(waiter.line().Hear(), 0u);
  EXPECT_EQ(waiter.line().Hear(), uint64_t(CUDA_ERROR_NOT_READY));
  EXPECT_EQ(waiter.line().Hear(), 0u);
  EXPECT_EQ(waiter.line().Hear(), uint64_t(CUDA_ERROR_NOT_READY));
  recorder.line().Say(0);
  EXPECT_EQ(recorder.line().Hear(), 0u);
  waiter.line().Say(0);
  EXPECT_EQ(waiter.line().Hear(), 0u);
  EXPECT_EQ(waiter.line().Hear(), 0u);
}

// A process that is killed amid work leaves the device to the others; utilisation shows both.
TEST(Processes, AKilledProcessesWorkIsGone) {
  Machine machine;
  Nvml nvml;
  auto spin = [](const Child::Line& line, uint64_t ns) {
    CUmodule m;
    CUfunction f;
    line.Say(Begin());
    (void)Cu().cuModuleLoadData(&m, ".version 8.0\n.visible .entry spin(.param .u64 n) { ret; }\n");
    (void)Cu().cuModuleGetFunction(&f, m, "spin");
    void* args[] = {&ns};
    line.Say(Cu().cuLaunchKernel(f, 10000, 1, 1, 1024, 1, 1, 0, nullptr, args, nullptr));
    line.Say(Cu().cuCtxSynchronize());
    line.Hear();
  };
  Child hog([&](const Child::Line& line) { spin(line, 3'600'000'000'000); });
  EXPECT_EQ(hog.line().Hear(), 0u);
  EXPECT_EQ(hog.line().Hear(), 0u);
  EXPECT_TRUE(nvml.Until([&] { return nvml.Busy() == 100 && nvml.BusyOf(hog.pid()) == 100; }));
  Child other([&](const Child::Line& line) { spin(line, 3'000'000); });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(other.line().Hear(), 0u);  // they take turns
  hog.Kill();
  EXPECT_TRUE(nvml.Until([&] { return nvml.Busy() == 0; }));
  Child third([&](const Child::Line& line) { spin(line, 3'000'000); });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(third.line().Hear(), 0u);
}

TEST(Processes, NvmlCanLagAndSayNothing) {
  auto body = [](const Child::Line& line) {
    CUdeviceptr p;
    line.Say(Begin());
    line.Say(Cu().cuMemAlloc_v2(&p, 500 * kMiB));
    line.Hear();
  };
  {
    Machine machine({"--nvml-lag", "10000"});
    Nvml nvml;
    Child a(body);
    EXPECT_EQ(a.line().Hear(), 0u);
    EXPECT_EQ(a.line().Hear(), 0u);
    EXPECT_EQ(nvml.Used(), 0u);  // as it was ten seconds ago
  }
  {
    Machine machine({"--nvml", "na"});
    Nvml nvml;
    Child a(body);
    EXPECT_EQ(a.line().Hear(), 0u);
    EXPECT_EQ(a.line().Hear(), 0u);
    // Listed, its memory NVML_VALUE_NOT_AVAILABLE.
    EXPECT_TRUE(nvml.Until([&] { return nvml.Used() > 500 * kMiB; }));
    EXPECT_EQ(nvml.UsedBy(a.pid()), ~0ull);
  }
}

TEST(Processes, UuidsAreAFunctionOfTheSeed) {
  std::string uuid[3];
  const char* seeds[] = {"one", "one", "two"};
  for (int i = 0; i < 3; ++i) {
    Machine machine({"--seed", seeds[i]});
    Nvml nvml;
    uuid[i] = nvml.Uuid();
  }
  EXPECT_EQ(uuid[0], uuid[1]);
  EXPECT_NE(uuid[0], uuid[2]);
}

TEST(Processes, VisibleDevicesFollowTheEnvironment) {
  Machine machine({"--profile", "h100x4"});
  auto count = [](const std::string& visible) {
    Child c([visible](const Child::Line& line) {
      setenv("CUDA_VISIBLE_DEVICES", visible.c_str(), 1);
      int n = -1;
      line.Say(Cu().cuInit(0));
      (void)Cu().cuDeviceGetCount(&n);
      line.Say(uint64_t(n));
    });
    uint64_t r = c.line().Hear(), n = c.line().Hear();
    return r == 0 ? int(n) : -int(r);
  };
  EXPECT_EQ(count("0,2"), 2);
  EXPECT_EQ(count("1,7,2"), 1);  // the first that is none ends the list
  EXPECT_EQ(count(""), -CUDA_ERROR_NO_DEVICE);
  EXPECT_EQ(count("-1"), -CUDA_ERROR_NO_DEVICE);
  std::string uuid = Nvml().Uuid();
  EXPECT_EQ(count(uuid), 1);
  EXPECT_EQ(count(uuid.substr(0, 12) + ",3"), 2);
}

// A path that is too long for a socket's name is reached through its folder, which does not stay
// open in the program.
TEST(Processes, ALongPathLeavesNothingOpen) {
  Machine machine({}, std::string(120, 'd'));
  Child c([&machine](const Child::Line& line) {
    line.Say(Cu().cuInit(0));
    uint64_t open = 0;
    for (int fd = 0; fd < 256; ++fd) {
      char to[512];
      const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), to, sizeof to);
      open += n > 0 && std::string(to, size_t(n)) == machine.dir() ? 1 : 0;
    }
    line.Say(open);
  });
  EXPECT_EQ(c.line().Hear(), 0u);
  EXPECT_EQ(c.line().Hear(), 0u);
}

// The broker ends with its starter and its last client.
TEST(Processes, TheMachineEndsByItself) {
  char dir[] = "/tmp/divvy-sim-test.XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  std::string command = BuildDir() + "/bin/divvy-sim-broker --dir " + dir +
                        " --daemonize --starter 0 --linger 1 --remove-dir";
  ASSERT_EQ(system(command.c_str()), 0);
  for (int i = 0; i < 10000 && access(dir, F_OK) == 0; ++i) poll(nullptr, 0, 1);
  EXPECT_NE(access(dir, F_OK), 0);
}

}  // namespace
}  // namespace divvy::sim
