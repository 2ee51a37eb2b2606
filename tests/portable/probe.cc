// The test library of cmake/portable.cmake: uses what our interposer libraries use, the same way.
//
// Loaded by LD_PRELOAD or dlopen into processes of systems old and new. It replaces `getpriority`
// (an interposed function that every system has) and checks the rest in divvy_probe_run.
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <new>

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Newer than every limit; null where a system lacks it.
extern "C" __attribute__((weak)) void* dlvsym(void*, const char*, const char*) noexcept;

namespace {

thread_local uint64_t depth = 7;
std::atomic<uint64_t> calls{0};
std::atomic<uint64_t> sum_of_threads{0};

struct Shape {
  virtual ~Shape() = default;
  virtual int Sides() const = 0;
};
struct Square final : Shape {
  explicit Square(int sides) : sides(sides) {}
  int Sides() const override { return sides; }
  int sides;
};
alignas(Square) unsigned char storage[sizeof(Square)];

int Virtual() {
  Shape* s = new (storage) Square(4);
  asm volatile("" : "+r"(s));  // keeps the call virtual
  return s->Sides() == 4;
}

int Memory() {
  constexpr size_t kBytes = 1 << 16;
  const int fd = memfd_create("probe", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, kBytes) != 0) return 0;
  struct stat st;
  memset(&st, 0xff, sizeof st);
  if (fstat(fd, &st) != 0 || st.st_size != static_cast<off_t>(kBytes)) return 0;
  auto* a = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  auto* b = static_cast<char*>(mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fd, 0));
  close(fd);
  if (a == MAP_FAILED || b == MAP_FAILED) return 0;
  memset(a, 0x5a, kBytes);
  const bool same = memcmp(a, b, kBytes) == 0;
  return munmap(a, kBytes) == 0 && munmap(b, kBytes) == 0 && same;
}

// A descriptor over a socket, as the region's memfds come.
int Sockets() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return 0;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  char byte = 'x';
  iovec data{&byte, 1};
  msghdr m{};
  m.msg_iov = &data;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(c), &pair[0], sizeof(int));
  if (sendmsg(pair[0], &m, MSG_NOSIGNAL) != 1) return 0;
  memset(control, 0, sizeof control);
  if (recvmsg(pair[1], &m, MSG_CMSG_CLOEXEC) != 1) return 0;
  int received = -1;
  memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
  struct stat mine, theirs;
  const bool same =
      fstat(pair[0], &mine) == 0 && fstat(received, &theirs) == 0 && mine.st_ino == theirs.st_ino;
  close(received);
  close(pair[0]);
  close(pair[1]);
  return same;
}

void* Body(void* semaphore) {
  depth += 1;  // each thread's own
  sum_of_threads.fetch_add(depth, std::memory_order_relaxed);
  sem_post(static_cast<sem_t*>(semaphore));
  return &depth;
}

int Threads() {
  sem_t done;
  pthread_t threads[2];
  sum_of_threads = 0;
  if (sem_init(&done, 0, 0) != 0) return 0;
  for (auto& t : threads) {
    if (pthread_create(&t, nullptr, Body, &done) != 0) return 0;
  }
  bool apart = true;
  for (auto& t : threads) {
    void* its_depth = &depth;
    while (sem_wait(&done) != 0 && errno == EINTR) {
    }
    apart = pthread_join(t, &its_depth) == 0 && its_depth != &depth && apart;
  }
  sem_destroy(&done);
  return apart && sum_of_threads == 16 && depth == 7;
}

int Lookup() {
  void* process = dlopen(nullptr, RTLD_NOW);
  if (!process || !dlsym(process, "malloc")) return 0;
  if (dlsym(process, "divvy_no_such_function") || !dlerror()) return 0;
#ifdef __x86_64__
  if (dlvsym && !dlvsym(RTLD_DEFAULT, "malloc", "GLIBC_2.2.5")) return 0;
#endif
  return 1;
}

int System() {
  uint64_t a = 0, b = 0;
  struct stat st;
  return getrandom(&a, sizeof a, 0) == sizeof a && getrandom(&b, sizeof b, 0) == sizeof b &&
         a != b && gettid() == syscall(SYS_gettid) && stat("/", &st) == 0 && S_ISDIR(st.st_mode) &&
         lstat("/divvy/no/such/file", &st) == -1 && errno == ENOENT;
}

}  // namespace

// Counts, then asks the real one; 40 more than its -20 to 19, so that a caller sees the difference.
EXPORTED int getpriority(int which, unsigned who) {
  using Function = int (*)(int, unsigned);
  static std::atomic<Function> real{nullptr};
  Function f = real.load(std::memory_order_relaxed);
  if (!f) {
    f = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "getpriority"));
    if (!f) return -1;
    real.store(f, std::memory_order_relaxed);
  }
  calls.fetch_add(1, std::memory_order_relaxed);
  return f(which, who) + 40;
}

// The name of the first check that fails, or null. *interposed: calls of getpriority so far.
EXPORTED const char* divvy_probe_run(uint64_t* interposed) {
  *interposed = calls.load(std::memory_order_relaxed);
  constexpr struct {
    const char* name;
    int (*check)();
  } kChecks[] = {{"virtual", Virtual}, {"memory", Memory}, {"sockets", Sockets},
                 {"threads", Threads}, {"lookup", Lookup}, {"system", System}};
  for (const auto& c : kChecks) {
    if (!c.check()) return c.name;
  }
  return nullptr;
}
