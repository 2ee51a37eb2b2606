// Processes that are begotten in ways a shim may not notice.
//   forks after     fork after cuInit: parent and child both take all they can
//   forks clone     the same by a raw clone system call, past the C library's fork handlers
//   forks storm     64 children that take at once      forks threads  64 threads that do
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/attacks/attack.h"

namespace {

// The child reports by a pipe; the parent adds its own.
attack::Holding BothSides(bool raw) {
  const auto cu = attack::Driver(attack::ByName());
  attack::Holding mine = attack::EnterAndTake(cu);
  int results[2];
  if (::pipe(results) != 0) return mine;
  const pid_t child =
      raw ? static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) : ::fork();
  if (child == 0) {
    attack::Holding its = attack::TakeLinear(cu);  // the inherited context
    if (its.held == 0) its = attack::EnterAndTake(cu);
    if (::write(results[1], &its.held, sizeof(its.held)) < 0) ::_exit(1);
    attack::WaitForEnd();
    ::_exit(0);
  }
  ::close(results[1]);
  size_t its = 0;
  if (::read(results[0], &its, sizeof(its)) != sizeof(its)) its = 0;
  mine.held += its;
  mine.note = "child took " + std::to_string(its >> 20) + " MiB";
  return mine;
}

attack::Holding Threads() {
  const auto cu = attack::Driver(attack::ByName());
  const CUresult r = attack::Enter(cu);
  if (r != CUDA_SUCCESS) return {.last = r};
  CUcontext context = nullptr;
  cu.cuCtxGetCurrent(&context);
  std::atomic<size_t> held{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 64; ++i)
    threads.emplace_back([&] {
      cu.cuCtxSetCurrent(context);
      held += attack::TakeAll(
                  [&](size_t bytes) {
                    CUdeviceptr p = 0;
                    return cu.cuMemAlloc_v2(&p, bytes);
                  },
                  32 * attack::kMiB)
                  .held;
    });
  for (std::thread& t : threads) t.join();
  return {.held = held, .note = "64 threads"};
}

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1];
  if (way == "threads") return attack::Report(Threads());
  if (way == "storm") {
    int start[2];
    if (::pipe(start) != 0) return 1;
    return attack::Report(attack::InChildren(64, [&](unsigned index) {
      char go[63] = {};  // the last one born lets all of them go
      if (index == 63 ? ::write(start[1], go, 63) != 63 : ::read(start[0], go, 1) != 1)
        return attack::Holding{.last = -1};
      return attack::EnterAndTake(attack::Driver(attack::ByName()));
    }));
  }
  return attack::Report(BothSides(way == "clone"));
}
