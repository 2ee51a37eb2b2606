// The timeline thread. See timeline.h.
#include "src/sim/broker/timeline.h"

#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>

namespace divvy::sim {

struct Timeline::Impl {
  struct Client {
    UniqueFd fd;
    Channel* channel = nullptr;
  };
  MachinePage* page = nullptr;
  std::mutex mu;
  std::map<uint32_t, Client> clients;  // by row
};

Timeline::Timeline(MachinePage* page) : impl_(std::make_unique<Impl>()) { impl_->page = page; }

Timeline::~Timeline() = default;

int Timeline::AddClient(uint32_t row) {
  UniqueFd fd(memfd_create("divvy-sim-channel", MFD_CLOEXEC));
  if (!fd.valid() || ftruncate(fd.get(), sizeof(Channel)) != 0) return -1;
  void* at = mmap(nullptr, sizeof(Channel), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return -1;
  std::lock_guard lock(impl_->mu);
  int number = fd.get();
  impl_->clients[row] = {std::move(fd), static_cast<Channel*>(at)};
  return number;
}

void Timeline::RemoveClient(uint32_t row) {
  std::lock_guard lock(impl_->mu);
  auto it = impl_->clients.find(row);
  if (it == impl_->clients.end()) return;
  munmap(it->second.channel, sizeof(Channel));
  impl_->clients.erase(it);
}

}  // namespace divvy::sim
