// Joining a tenant, forks, dead daemons and their successors.
#include "src/shim/attach.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "src/shim/books.h"
#include "src/shim/generated/hooks.h"
#include "src/shim/tenancy.h"
#include "src/shim/testing/fake_daemon.h"
#include "src/shim/testing/fake_driver.h"

namespace divvy::shim {
namespace {

using testing::Fake;
using testing::FakeDaemon;
using testing::FakeShare;
using testing::FreshProcess;

constexpr uint64_t kMiB = 1 << 20;

struct AttachTest : ::testing::Test {
  AttachTest() { testing::InstallFakeDriver(); }
  ~AttachTest() override { FreshProcess(""); }
};

TEST_F(AttachTest, WithoutASocketEverythingIsTheDrivers) {
  FreshProcess("");
  EXPECT_EQ(Now(), Standing::kNotTenant);
  EXPECT_EQ(hook_cuInit(0), CUDA_SUCCESS);
  CUcontext context;
  ASSERT_EQ(hook_cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 40ull << 30), CUDA_SUCCESS);
  EXPECT_EQ(hook_cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
            CUDA_SUCCESS);
  EXPECT_EQ(g_process.live.Count(), 0u);
}

TEST_F(AttachTest, SaysWhoItIsAndMarksItsSlot) {
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  ASSERT_EQ(Now(), Standing::kActive);
  EXPECT_EQ(daemon.hellos(), 1u);
  EXPECT_EQ(daemon.last_hello().ns_pid, static_cast<uint32_t>(getpid()));
  EXPECT_EQ(daemon.last_hello().last_generation, 0u);
  EXPECT_EQ(daemon.usage().slot[1].ns_pid, static_cast<uint32_t>(getpid()));
  EXPECT_EQ(daemon.usage().slot[1].state_flags, region::kShimActive);
  EXPECT_NE(daemon.usage().slot[1].owner_tag, 0u);
  EXPECT_EQ(Now(), Standing::kActive);
  EXPECT_EQ(daemon.hellos(), 1u);
}

TEST_F(AttachTest, ATenantWithoutItsDaemonGetsNoGpu) {
  FreshProcess("/tmp/divvy-no-such-folder/tenant.sock");
  EXPECT_EQ(hook_cuInit(0), CUDA_ERROR_SYSTEM_NOT_READY);
  EXPECT_FALSE(Fake().initialised);
  CUdeviceptr p = 77;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, kMiB), CUDA_ERROR_SYSTEM_NOT_READY);
  EXPECT_EQ(p, 77u);
  EXPECT_EQ(hook_cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
            CUDA_ERROR_SYSTEM_NOT_READY);
}

TEST_F(AttachTest, ARefusedTenantGetsNoGpuUntilItIsLetIn) {
  FakeDaemon daemon({FakeShare{}});
  daemon.Refuse(EPERM);
  FreshProcess(daemon.socket());
  EXPECT_EQ(hook_cuInit(0), CUDA_ERROR_SYSTEM_NOT_READY);
  EXPECT_EQ(daemon.hellos(), 1u);  // a living daemon's word is final
  daemon.Refuse(0);
  EXPECT_EQ(hook_cuInit(0), CUDA_SUCCESS);
}

TEST_F(AttachTest, ANewProcessWhoseDaemonDiesOverItsHelloWaitsForTheNext) {
  FakeDaemon daemon({FakeShare{}});
  daemon.HangUp(3);
  FreshProcess(daemon.socket());
  EXPECT_EQ(hook_cuInit(0), CUDA_SUCCESS);
  EXPECT_EQ(daemon.hellos(), 4u);
  EXPECT_EQ(Now(), Standing::kActive);
}

TEST_F(AttachTest, AProcessThatWasLetInDoesNotWaitForTheNextDaemon) {
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  testing::MakeCurrentContext();
  daemon.Restart(2);
  daemon.HangUp(3);
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, kMiB), CUDA_SUCCESS);
  EXPECT_EQ(daemon.hellos(), 2u);  // said once, not waited for
  EXPECT_EQ(CurrentSession()->generation, 1u);
}

TEST_F(AttachTest, TheEnvironmentAtTheStartCounts) {
  // A program that clears its environment before its first call has not left its share. Its own
  // first environment is the kernel's record: only a new program shows it.
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  if (getenv("DIVVY_TEST_CLEARED") != nullptr) GTEST_SKIP();
  const pid_t child = fork();
  if (child == 0) {
    setenv("DIVVY_TEST_CLEARED", "1", 1);
    execl("/proc/self/exe", "attach_test", "--gtest_filter=*HelperClearsItsEnvironment", nullptr);
    _exit(99);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(AttachHelper, HelperClearsItsEnvironment) {
  if (getenv("DIVVY_TEST_CLEARED") == nullptr) GTEST_SKIP() << "runs in a program of its own";
  clearenv();
  ForgetTenancy();
  ASSERT_TRUE(IsTenant());
}

TEST_F(AttachTest, AForkedChildHasItsOwnSlotAndNoCharges) {
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  testing::MakeCurrentContext();
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 10 * kMiB), CUDA_SUCCESS);
  const pid_t child = fork();
  if (child == 0) {
    if (g_process.standing.load() != Standing::kUnknown) _exit(1);
    if (g_process.live.Count() != 0) _exit(2);
    if (Now() != Standing::kActive) _exit(3);
    if (CurrentSession()->slot != 2) _exit(4);
    CUdeviceptr q;
    if (hook_cuMemAlloc_v2(&q, kMiB) != CUDA_SUCCESS) _exit(5);
    // The parent's pointer is not the child's to give back.
    hook_cuMemFree_v2(p);
    _exit(daemon.BookBytes() == 11 * kMiB ? 0 : 6);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ASSERT_EQ(daemon.hellos(), 2u);
  EXPECT_EQ(daemon.last_hello().flags & wire::kHelloForked, wire::kHelloForked);
  EXPECT_EQ(CurrentSession()->slot, 1u);
}

TEST_F(AttachTest, ARawCloneIsAChild) {
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  ASSERT_EQ(Now(), Standing::kActive);
  const long child = syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (child == 0) {
    const bool wiped = g_process.standing.load() == Standing::kUnknown;
    syscall(SYS_exit_group, wiped ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(static_cast<pid_t>(child), &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(AttachTest, ASuccessorGetsTheChargesInHand) {
  FakeDaemon daemon({FakeShare{1}, FakeShare{2}});
  testing::InstallFakeDriver(2);
  FreshProcess(daemon.socket());
  testing::MakeCurrentContext();
  CUdeviceptr p, q;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 10 * kMiB), CUDA_SUCCESS);
  daemon.Restart(2);
  // The old policy's heart has stopped: the next allocation says hello again.
  ASSERT_EQ(hook_cuMemAlloc_v2(&q, kMiB), CUDA_SUCCESS);
  EXPECT_EQ(daemon.hellos(), 2u);
  EXPECT_EQ(daemon.last_hello().last_generation, 1u);
  EXPECT_EQ(daemon.last_hello().held_count, 1u);
  EXPECT_EQ(daemon.BookBytes(), 11 * kMiB);
  EXPECT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
  EXPECT_EQ(hook_cuMemFree_v2(q), CUDA_SUCCESS);
  EXPECT_EQ(daemon.BookBytes(), 0u);
}

TEST_F(AttachTest, WhatIsUnderWayEndsInTheNextDaemonsBooks) {
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  testing::MakeCurrentContext();
  const auto under_way = [&] {
    const region::ProcessSlot& slot = daemon.usage().slot[1];
    return region::UnderWay(slot.answered, slot.charges);
  };
  uint32_t middle = 0;
  Fake().during = [&](const std::string& name) {
    if (name != "cuMemAlloc_v2" || daemon.policy().generation != 1) return;
    daemon.Restart(2);
    CUdeviceptr p;  // another thread's, in effect: it says hello to the new daemon
    EXPECT_EQ(hook_cuMemAllocManaged(&p, kMiB, 1), CUDA_SUCCESS);
    middle = under_way();
  };
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 10 * kMiB), CUDA_SUCCESS);
  Fake().during = nullptr;
  EXPECT_EQ(daemon.policy().generation, 2u);
  EXPECT_EQ(middle, 1u);
  EXPECT_EQ(under_way(), 0u);
  EXPECT_EQ(daemon.BookBytes(), 11 * kMiB);
}

TEST_F(AttachTest, ALaunchDoesNotWaitForAStoppedDaemon) {
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  testing::MakeCurrentContext();
  CUdeviceptr p, q;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 10 * kMiB), CUDA_SUCCESS);
  const auto launch = [] {
    g_process.meter_at = 0;  // looks closer
    return hook_cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
  };
  ASSERT_EQ(launch(), CUDA_SUCCESS);
  daemon.Restart(2);
  daemon.Stop();
  const Session* const first = CurrentSession();
  // It would never come back from a wait for an answer: there is none.
  for (int i = 0; i < 100; ++i) ASSERT_EQ(launch(), CUDA_SUCCESS);
  EXPECT_EQ(CurrentSession(), first);
  EXPECT_TRUE(g_process.pending.connection.sent);
  EXPECT_EQ(g_process.pending.said.held[0].units, 10 * kMiB / region::kUnitBytes);
  // Under the earlier grant, after the hello was sent.
  ASSERT_EQ(hook_cuMemAllocManaged(&q, 4 * kMiB, 1), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
  daemon.GoOn();
  while (CurrentSession() == first) {
    g_process.next_attach_ns = 0;
    ASSERT_EQ(launch(), CUDA_SUCCESS);
  }
  EXPECT_EQ(daemon.hellos(), 2u);
  EXPECT_EQ(CurrentSession()->generation, 2u);
  EXPECT_FALSE(g_process.pending.connection.sent);
  EXPECT_EQ(daemon.BookBytes(), 4 * kMiB);
  const region::SlotDevice& account = daemon.usage().slot[1].device[0];
  EXPECT_EQ(account.charged_units, 4 * kMiB / region::kUnitBytes);
  EXPECT_EQ(account.kind_units[static_cast<unsigned>(Kind::kLinear)], 0u);
  EXPECT_EQ(account.kind_units[static_cast<unsigned>(Kind::kManaged)], account.charged_units);
  EXPECT_EQ(hook_cuMemFree_v2(q), CUDA_SUCCESS);
  EXPECT_EQ(daemon.BookBytes(), 0u);
}

TEST_F(AttachTest, AnAnswerOnAReusedDescriptorIsNotTaken) {
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  testing::MakeCurrentContext();
  daemon.Restart(2);
  daemon.Stop();
  CUdeviceptr p;
  g_process.meter_at = 0;
  ASSERT_EQ(hook_cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
            CUDA_SUCCESS);
  ASSERT_TRUE(g_process.pending.connection.sent);
  // The program closes all that it did not open and has a socket of its own there.
  int own[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, own), 0);
  ASSERT_EQ(dup2(own[0], g_process.pending.connection.fd), g_process.pending.connection.fd);
  ASSERT_EQ(send(own[1], "mine", 4, 0), 4);
  daemon.GoOn();
  while (CurrentSession()->generation == 1) {
    g_process.next_attach_ns = 0;
    ASSERT_EQ(hook_cuMemAlloc_v2(&p, kMiB), CUDA_SUCCESS);
    ASSERT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
  }
  char text[8];
  EXPECT_EQ(recv(own[0], text, sizeof text, MSG_DONTWAIT), 4);
  close(own[0]);
  close(own[1]);
}

TEST_F(AttachTest, ACancelledThreadFinishesItsHello) {
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  static std::atomic<int> answer;
  answer = -1;
  pthread_t thread;
  ASSERT_EQ(pthread_create(
                &thread, nullptr,
                [](void*) -> void* {
                  pthread_cancel(pthread_self());  // acts at the next cancellation point
                  answer = hook_cuInit(0);
                  pthread_testcancel();
                  return nullptr;
                },
                nullptr),
            0);
  void* end = nullptr;
  ASSERT_EQ(pthread_join(thread, &end), 0);
  EXPECT_EQ(end, PTHREAD_CANCELED);
  EXPECT_EQ(answer, CUDA_SUCCESS);
  EXPECT_TRUE(g_process.attach_lock.TryLock());
  g_process.attach_lock.Unlock();
  EXPECT_EQ(Now(), Standing::kActive);
}

TEST_F(AttachTest, ADeadDaemonsLimitStillHolds) {
  FakeDaemon daemon({FakeShare{1, 100 * kMiB}});
  FreshProcess(daemon.socket());
  testing::MakeCurrentContext();
  daemon.Die();
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 90 * kMiB), CUDA_SUCCESS);
  CUdeviceptr q;
  EXPECT_EQ(hook_cuMemAlloc_v2(&q, 20 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  // Asked for once, then after a pause only.
  EXPECT_GT(g_process.next_attach_ns.load(), 0u);
}

TEST_F(AttachTest, ASlowDaemonIsTheSameDaemon) {
  FakeDaemon daemon({FakeShare{}});
  FreshProcess(daemon.socket());
  testing::MakeCurrentContext();
  CUdeviceptr p, q;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, kMiB), CUDA_SUCCESS);
  daemon.policy().heartbeat_ns = 1;
  ASSERT_EQ(hook_cuMemAlloc_v2(&q, kMiB), CUDA_SUCCESS);
  EXPECT_EQ(daemon.last_hello().last_generation, 1u);
  EXPECT_EQ(CurrentSession()->slot, 1u);
  EXPECT_EQ(daemon.BookBytes(), 2 * kMiB);
}

TEST_F(AttachTest, ALongSocketPathWorks) {
  FakeDaemon daemon({FakeShare{}});
  // The same socket by a path that does not fit into an address.
  std::string folder = daemon.socket().substr(0, daemon.socket().rfind('/'));
  std::string path = folder;
  for (int i = 0; i < 40; ++i) path += "/.";
  path += "/tenant.sock";
  ASSERT_GT(path.size(), 108u);
  FreshProcess(path);
  EXPECT_EQ(Now(), Standing::kActive);
}

}  // namespace
}  // namespace divvy::shim
