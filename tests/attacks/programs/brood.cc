// Processes that allocate and free without end, for the suite to kill at random moments, beside one
// that holds still. The parent uses no GPU. `brood`: prints "holder PID BYTES", then for each line
// of input forks one and prints "child PID" once it has begun.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <random>

#include "tests/attacks/attack.h"

namespace {

// Takes and gives back by several paths until it is killed.
[[noreturn]] void Churn(const divvy::abi::DriverFns& cu) {
  std::mt19937 random(static_cast<unsigned>(::getpid()));
  std::vector<CUdeviceptr> linear, pooled;
  for (;;) {
    CUdeviceptr p = 0;
    const size_t bytes = (random() % (8 * attack::kMiB)) + 1;
    const bool grow = random() % 2 == 0, pool = random() % 4 == 0;
    std::vector<CUdeviceptr>& list = pool ? pooled : linear;
    if (grow && list.size() < 40) {
      const CUresult r =
          pool ? cu.cuMemAllocAsync(&p, bytes, nullptr) : cu.cuMemAlloc_v2(&p, bytes);
      if (r == CUDA_SUCCESS) list.push_back(p);
    } else if (!list.empty()) {
      pool ? cu.cuMemFreeAsync(list.back(), nullptr) : cu.cuMemFree_v2(list.back());
      list.pop_back();
    }
  }
}

// Forks `body`; returns when it has written one byte, or has died.
template <typename Body>
pid_t Start(const Body& body) {
  int begun[2];
  if (::pipe(begun) != 0) return -1;
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGCHLD, SIG_DFL);
    body(begun[1]);
    ::_exit(1);
  }
  ::close(begun[1]);
  char c;
  const bool began = ::read(begun[0], &c, 1) == 1;
  ::close(begun[0]);
  return began ? child : -1;
}

}  // namespace

int main() {
  ::setpgid(0, 0);
  ::signal(SIGCHLD, SIG_IGN);
  constexpr size_t kHeld = 64 * attack::kMiB;
  const pid_t holder = Start([](int begun) {
    const auto cu = attack::Driver(attack::ByName());
    CUdeviceptr p = 0;
    if (attack::Enter(cu) != CUDA_SUCCESS || cu.cuMemAlloc_v2(&p, kHeld) != CUDA_SUCCESS) return;
    if (::write(begun, "", 1) != 1) return;
    for (;;) ::pause();
  });
  std::printf("holder %d %zu\n", holder, kHeld);
  std::fflush(stdout);
  for (char line[64]; std::fgets(line, sizeof(line), stdin) != nullptr;) {
    const pid_t child = Start([](int begun) {
      const auto cu = attack::Driver(attack::ByName());
      if (attack::Enter(cu) == CUDA_SUCCESS && ::write(begun, "", 1) == 1) Churn(cu);
    });
    std::printf("child %d\n", child);
    std::fflush(stdout);
  }
  ::kill(0, SIGKILL);  // the whole group, this process too
}
