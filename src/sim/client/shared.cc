// Memory that crosses processes: tokens in descriptors, export and import at the broker. See vmm.h.
#include <sys/mman.h>
#include <unistd.h>

#include "src/sim/client/vmm.h"

namespace divvy::sim {

int MakeTokenFd(const ShareToken& token) {
  int fd = memfd_create("divvy-sim-share", MFD_CLOEXEC);
  if (fd < 0) return -1;
  if (write(fd, &token, sizeof token) != ssize_t(sizeof token)) {
    close(fd);
    return -1;
  }
  return fd;
}

bool ReadTokenFd(int fd, ShareToken* token) {
  return pread(fd, token, sizeof *token, 0) == ssize_t(sizeof *token) &&
         token->magic == ShareToken::kMagic;
}

CUresult ImportBlocks(uint64_t export_id, Imported* out) {
  Request q;
  q.ask = Ask::kImport;
  q.arg[0] = export_id;
  Reply reply;
  WireFds fds;
  Process& p = Process::Get();
  if (!p.AskBroker(q, &reply, &fds).ok()) return CUDA_ERROR_INVALID_HANDLE;
  out->id = export_id;
  out->device = p.physical(uint32_t(reply.value[0]));
  out->offset = reply.value[1];
  out->bytes = reply.value[2];
  out->contents = std::move(fds.fd[0]);
  if (out->device == nullptr) {  // not visible here
    UnimportBlocks(export_id);
    return CUDA_ERROR_INVALID_DEVICE;
  }
  return CUDA_SUCCESS;
}

uint64_t MapImported(const Imported& in, uint64_t from, uint64_t bytes) {
  uint64_t first = (in.offset + from) & ~4095ull;
  uint64_t skipped = in.offset + from - first;
  void* at = mmap(nullptr, bytes + skipped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                  in.contents.get(), off_t(first));
  return at == MAP_FAILED ? 0 : reinterpret_cast<uint64_t>(at) + skipped;
}

void UnimportBlocks(uint64_t import_id) {
  Request q;
  q.ask = Ask::kUnimport;
  q.arg[0] = import_id;
  Reply reply;
  (void)Process::Get().AskBroker(q, &reply);
}

}  // namespace divvy::sim
