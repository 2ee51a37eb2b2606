#include "src/daemon/segments.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

namespace divvy::daemon {
namespace {

Status Make(const char* name, size_t bytes, UniqueFd& fd, void*& at) {
  fd = UniqueFd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return IoError("cannot create shared memory", errno);
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
    return IoError("cannot size shared memory", errno);
  at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (at == MAP_FAILED) {
    at = nullptr;
    return IoError("cannot map shared memory", errno);
  }
  return {};
}

Status Seal(const UniqueFd& fd, int seals) {
  if (::fcntl(fd.get(), F_ADD_SEALS, seals | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return IoError("cannot seal shared memory (Linux 5.1 or newer is needed)", errno);
  return {};
}

void Wake(region::U32& word) {
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr,
            0);
}

}  // namespace

Result<std::unique_ptr<Segments>> Segments::Create(const std::string& tenant, uint64_t generation) {
  std::unique_ptr<Segments> s(new Segments);
  void* policy = nullptr;
  void* usage = nullptr;
  Status made = Make("divvy-policy", region::kPolicyBytes, s->policy_fd_, policy);
  s->policy_ = static_cast<region::Policy*>(policy);
  if (!made.ok()) return made.error();
  made = Make("divvy-usage", region::kUsageBytes, s->usage_fd_, usage);
  s->usage_ = static_cast<region::Usage*>(usage);
  if (!made.ok()) return made.error();
  region::Policy& p = *s->policy_;
  p.magic = region::kPolicyMagic;
  p.version = region::kLayoutVersion;
  p.size_bytes = region::kPolicyBytes;
  p.generation = generation;
  std::strncpy(p.tenant, tenant.c_str(), region::kNameBytes - 1);
  region::Usage& u = *s->usage_;
  u.magic = region::kUsageMagic;
  u.version = region::kLayoutVersion;
  u.size_bytes = region::kUsageBytes;
  u.generation = generation;
  s->generation_ = generation;
  if (Status st = Seal(s->policy_fd_, F_SEAL_FUTURE_WRITE); !st.ok()) return st.error();
  if (Status st = Seal(s->usage_fd_, 0); !st.ok()) return st.error();
  return s;
}

Segments::~Segments() {
  if (policy_ != nullptr) ::munmap(policy_, region::kPolicyBytes);
  if (usage_ != nullptr) ::munmap(usage_, region::kUsageBytes);
}

bool Segments::UsageHeadIntact() const {
  const volatile region::Usage& u = *usage_;
  return u.magic == region::kUsageMagic && u.version == region::kLayoutVersion &&
         u.size_bytes == region::kUsageBytes && u.generation == generation_;
}

void Segments::WakePolicyWaiters() {
  policy_->heartbeat_word.fetch_add(1, std::memory_order_release);
  Wake(policy_->heartbeat_word);
}

void Segments::WakeRoomWaiters() {
  usage_->freed_word.fetch_add(1, std::memory_order_release);
  usage_->freed_futex.fetch_add(1, std::memory_order_release);
  if (usage_->freed_waiters.load(std::memory_order_acquire) != 0) Wake(usage_->freed_futex);
}

}  // namespace divvy::daemon
