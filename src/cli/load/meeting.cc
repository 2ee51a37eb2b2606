#include "src/cli/load/meeting.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>

#include "src/base/unique_fd.h"

namespace divvy::cli {
namespace {
// More than the other can begin between a look at its number and the word that it is to stop.
constexpr uint32_t kSlack = 64;
}  // namespace

struct Meeting::Page {
  uint32_t word[2][2];  // by side and half; the GPU's
  std::atomic<uint32_t> begun[2];
  std::atomic<uint32_t> last;  // both stop after this operation; 0 = not yet decided
};

Result<std::unique_ptr<Meeting>> Meeting::Open(const Driver& driver, const std::string& where) {
  const size_t comma = where.rfind(',');
  const std::string side = comma == std::string::npos ? "" : where.substr(comma + 1);
  if (side != "0" && side != "1") return Invalid("--meet: give FILE,0 and FILE,1");
  const std::string path = where.substr(0, comma);
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd.valid() || ::ftruncate(fd.get(), 4096) != 0) return IoError(path, errno);
  void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return IoError(path, errno);
  CUdeviceptr device = 0;
  std::unique_ptr<Meeting> made(new Meeting(static_cast<Page*>(at), 0, side == "1"));
  DIVVY_CU(driver, cuMemHostRegister_v2, at, 4096,
           CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_PORTABLE);
  DIVVY_CU(driver, cuMemHostGetDevicePointer_v2, &device, at, 0);
  made->device_ = device;
  return made;
}

Meeting::~Meeting() { ::munmap(page_, 4096); }

bool Meeting::More(bool stop) {
  const uint32_t next = operation_ + 1;
  page_->begun[side_].store(next);
  if (stop) {
    uint32_t undecided = 0;
    const uint32_t last = std::max(page_->begun[0].load(), page_->begun[1].load()) + kSlack;
    page_->last.compare_exchange_strong(undecided, last);
  }
  const uint32_t last = page_->last.load();
  if (last != 0 && next > last) return false;
  operation_ = next;
  return true;
}

Meeting::Words Meeting::At(unsigned half) const {
  const auto at = [&](unsigned side) {
    return device_ + offsetof(Page, word) + (side * 2 + half) * sizeof(uint32_t);
  };
  return {at(side_), at(1 - side_), operation_};
}

}  // namespace divvy::cli
