// Memory of another process of the tenant: taken by one, opened by others, and given up by the one
// that took it while the others still hold it. `ipc`; `ipc measured`: the same after the daemon has
// had time to compare what both are charged with what the driver shows, and the importer then takes
// all that there is. `ipc churn`: taken, exported many times and freed by one, opened and closed
// by others, all without end, while another takes and gives back all that there is; whatever of
// what they share was counted at a wrong moment would be room for it. At last all keep what they
// have.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "tests/attacks/attack.h"

constexpr unsigned kMeasuredUs = 2'000'000;  // many readings
constexpr unsigned kRounds = 400;
constexpr size_t kChurned = 384 * attack::kMiB;

// What is exported now, for all children.
struct Board {
  std::atomic<unsigned> ready, round;  // a round's handle is there; the last round is kRounds
  CUipcMemHandle handle[2];
};

attack::Holding Export(const divvy::abi::DriverFns& cu, Board& board) {
  CUdeviceptr p = 0;
  for (unsigned round = 1; round <= kRounds; ++round) {
    p = 0;
    if (cu.cuMemAlloc_v2(&p, kChurned) != CUDA_SUCCESS) continue;
    CUipcMemHandle handle{};
    for (int again = 0; again < 8; ++again) cu.cuIpcGetMemHandle(&handle, p);
    board.handle[round % 2] = handle;
    board.round = round;
    if (round == kRounds) break;
    ::usleep(round % 8 * 100);
    cu.cuMemFree_v2(p);
  }
  board.ready = 1;
  ::usleep(200'000);  // the last round's is open somewhere, maybe
  if (p != 0) cu.cuMemFree_v2(p);
  return attack::TakeLinear(cu);
}

attack::Holding Open(const divvy::abi::DriverFns& cu, Board& board) {
  CUdeviceptr p = 0;
  CUresult r = CUDA_ERROR_INVALID_HANDLE;
  while (board.ready == 0) {
    if (r == CUDA_SUCCESS) cu.cuIpcCloseMemHandle(p);
    r = cu.cuIpcOpenMemHandle_v2(&p, board.handle[board.round % 2], 1);
  }
  attack::Holding mine = attack::TakeLinear(cu);
  if (r == CUDA_SUCCESS) mine.held += kChurned;
  return mine;
}

attack::Holding Take(const divvy::abi::DriverFns& cu, Board& board) {
  while (board.ready == 0) {
    CUdeviceptr p[8] = {};
    for (CUdeviceptr& at : p)
      if (cu.cuMemAlloc_v2(&at, kChurned) != CUDA_SUCCESS) at = 0;
    for (const CUdeviceptr at : p)
      if (at != 0) cu.cuMemFree_v2(at);
  }
  return attack::TakeLinear(cu);
}

int Churn() {
  void* page =
      ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return 1;
  auto& board = *static_cast<Board*>(page);
  return attack::Report(attack::InChildren(4, [&](unsigned index) -> attack::Holding {
    const auto cu = attack::Driver(attack::ByName());
    if (const CUresult r = attack::Enter(cu); r != CUDA_SUCCESS) {
      if (index == 0) board.ready = 1;
      return {.last = r};
    }
    return index == 0 ? Export(cu, board) : index == 3 ? Take(cu, board) : Open(cu, board);
  }));
}

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "churn") == 0) return Churn();
  const bool measured = argc > 1 && std::strcmp(argv[1], "measured") == 0;
  int up[2], down[2];
  if (::pipe(up) != 0 || ::pipe(down) != 0) return 1;
  const attack::Holding sum = attack::InChildren(2, [&](unsigned index) -> attack::Holding {
    const auto cu = attack::Driver(attack::ByName());
    const CUresult r = attack::Enter(cu);
    CUdeviceptr p = 0;
    CUipcMemHandle handle{};
    char go = 0;
    if (index == 0) {
      CUresult made = r;
      if (made == CUDA_SUCCESS) made = cu.cuMemAlloc_v2(&p, 512 * attack::kMiB);
      if (made == CUDA_SUCCESS) made = cu.cuIpcGetMemHandle(&handle, p);
      if (::write(up[1], &handle, sizeof(handle)) != sizeof(handle)) return {.last = -1};
      if (::read(down[0], &go, 1) != 1) return {.last = -1};
      if (measured) ::usleep(kMeasuredUs);
      if (made == CUDA_SUCCESS) cu.cuMemFree_v2(p);  // the importer keeps it alive
      if (measured && ::write(up[1], &go, 1) != 1) return {.last = -1};
      if (measured) return {.last = made};
      return made == CUDA_SUCCESS ? attack::TakeLinear(cu) : attack::Holding{.last = made};
    }
    if (::read(up[0], &handle, sizeof(handle)) != sizeof(handle)) return {.last = -1};
    const CUresult opened = r == CUDA_SUCCESS ? cu.cuIpcOpenMemHandle_v2(&p, handle, 1) : r;
    if (::write(down[1], &go, 1) != 1) return {.last = -1};
    attack::Holding mine{.last = opened};
    if (measured && ::read(up[0], &go, 1) != 1) return {.last = -1};
    if (r == CUDA_SUCCESS) mine = attack::TakeLinear(cu);
    if (opened == CUDA_SUCCESS) mine.held += 512 * attack::kMiB;
    return mine;
  });
  return attack::Report(sum);
}
