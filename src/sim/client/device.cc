// One simulated GPU as this process has it: memory blocks. See device.h.
#include "src/sim/client/device.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "src/sim/wire/arena.h"

namespace divvy::sim {

Device::Device(Process* process, uint32_t index, CUdevice ordinal)
    : process_(process), index_(index), ordinal_(ordinal) {}

std::string Device::PciBusId() const {
  char text[24];
  snprintf(text, sizeof text, "0000:%02X:00.0", head().pci_bus);
  return text;
}

uint64_t Device::free_bytes() const {
  uint64_t used = head().used_bytes.load(std::memory_order_relaxed);
  return used < total_bytes() ? total_bytes() - used : 0;
}

bool Device::MapArena() {
  if (base_ != 0) return true;
  Request ask;
  ask.ask = Ask::kArena;
  ask.arg[0] = index_;
  Reply reply;
  WireFds fds;
  if (!process_->AskBroker(ask, &reply, &fds).ok()) return false;
  uint64_t bytes = ArenaBytes(*process_->page());
  // Aligned to a block, as device pointers of the real driver are: map more, cut the ends off.
  char* at = static_cast<char*>(mmap(nullptr, bytes + kBlockBytes, PROT_NONE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (at == MAP_FAILED) return false;
  uint64_t start = (uint64_t(at) + kBlockBytes - 1) & ~(kBlockBytes - 1);
  if (start > uint64_t(at)) munmap(at, start - uint64_t(at));
  munmap(reinterpret_cast<void*>(start + bytes), uint64_t(at) + kBlockBytes - start);
  void* mapped = mmap(reinterpret_cast<void*>(start), bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fds.fd[0].get(), 0);
  if (mapped == MAP_FAILED) return false;
  madvise(mapped, bytes, MADV_DONTDUMP);
  madvise(mapped, bytes, MADV_DONTFORK);
  arena_ = std::move(fds.fd[0]);
  blocks_.Add(0, bytes);
  base_ = start;
  return true;
}

CUresult Device::TakePlace(uint64_t bytes, uint64_t* offset) {
  bytes = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  std::lock_guard lock(heap_mu_);
  auto at = MapArena() ? blocks_.Take(bytes, kBlockBytes) : std::nullopt;
  if (!at) return CUDA_ERROR_OUT_OF_MEMORY;
  *offset = *at;
  return CUDA_SUCCESS;
}

void Device::ReturnPlace(uint64_t offset, uint64_t bytes) {
  bytes = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  fallocate(arena_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(offset), off_t(bytes));
  std::lock_guard lock(heap_mu_);
  blocks_.Add(offset, bytes);
}

CUresult Device::TakeBlocks(uint64_t bytes, uint64_t* offset) {
  if (bytes > total_bytes()) return CUDA_ERROR_OUT_OF_MEMORY;
  bytes = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  if (!Book(process_->page(), process_->row(), index_, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  CUresult r = TakePlace(bytes, offset);
  if (r != CUDA_SUCCESS) Unbook(process_->page(), process_->row(), index_, bytes);
  return r;
}

void Device::FreeBlocks(uint64_t offset, uint64_t bytes) {
  bytes = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  uint64_t name = 0;
  {
    std::lock_guard lock(heap_mu_);
    auto it = exported_.find(offset);
    if (it != exported_.end()) {
      name = it->second;
      exported_.erase(it);
    }
  }
  if (name != 0) {
    Request ask;
    ask.ask = Ask::kUnexport;
    ask.arg[0] = name;
    Reply reply;
    (void)process_->AskBroker(ask, &reply);
    return;
  }
  ReturnPlace(offset, bytes);
  Unbook(process_->page(), process_->row(), index_, bytes);
}

uint64_t Device::ExportBlocks(uint64_t offset, uint64_t bytes) {
  std::lock_guard lock(heap_mu_);
  auto it = exported_.find(offset);
  if (it != exported_.end()) return it->second;
  Request ask;
  ask.ask = Ask::kExport;
  ask.arg[0] = index_;
  ask.arg[1] = offset;
  ask.arg[2] = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  Reply reply;
  if (!process_->AskBroker(ask, &reply).ok()) return 0;
  return exported_[offset] = reply.value[0];
}

}  // namespace divvy::sim
