// Counts what a process does from its exec to its exit: system calls, and on request the
// instructions after it said "now" (a close of descriptor -1000). Only its first thread.
//   count_calls [--steps] PROGRAM ARGUMENTS…   prints "total N", then "NAME N" for each call
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <string>

namespace {

std::string NameOf(long number) {
  static const std::map<long, const char*> kNames{
      {SYS_access, "access"},
      {SYS_arch_prctl, "arch_prctl"},
      {SYS_brk, "brk"},
      {SYS_clone3, "clone3"},
      {SYS_close, "close"},
      {SYS_connect, "connect"},
      {SYS_execve, "execve"},
      {SYS_exit_group, "exit_group"},
      {SYS_fcntl, "fcntl"},
      {SYS_futex, "futex"},
      {SYS_getpid, "getpid"},
      {SYS_getrandom, "getrandom"},
      {SYS_madvise, "madvise"},
      {SYS_mmap, "mmap"},
      {SYS_mprotect, "mprotect"},
      {SYS_munmap, "munmap"},
      {SYS_newfstatat, "newfstatat"},
      {SYS_openat, "openat"},
      {SYS_poll, "poll"},
      {SYS_prctl, "prctl"},
      {SYS_pread64, "pread64"},
      {SYS_prlimit64, "prlimit64"},
      {SYS_read, "read"},
      {SYS_readlink, "readlink"},
      {SYS_recvmsg, "recvmsg"},
      {SYS_rseq, "rseq"},
      {SYS_sendmsg, "sendmsg"},
      {SYS_sendto, "sendto"},
      {SYS_socket, "socket"},
      {SYS_statfs, "statfs"},
  };
  const auto it = kNames.find(number);
  return it == kNames.end() ? "call-" + std::to_string(number) : it->second;
}

bool Next(pid_t child, __ptrace_request how) {
  int status = 0;
  do {  // signals are none of ours to keep
    if (::ptrace(how, child, nullptr, nullptr) != 0) return false;
    if (::waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status)) return false;
  } while (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != (SIGTRAP | 0x80));
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const bool steps = argc > 1 && std::strcmp(argv[1], "--steps") == 0;
  char** command = argv + (steps ? 2 : 1);
  if (command[0] == nullptr) return 2;
  const pid_t child = ::fork();
  if (child == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::execv(command[0], command);
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);  // at its exec
  if (!WIFSTOPPED(status)) return 1;
  ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  std::map<std::string, long> calls;
  long total = 0;
  bool now = false;
  // Each call stops twice; entry is where rax is still -ENOSYS.
  while (!(steps && now) && Next(child, PTRACE_SYSCALL)) {
    user_regs_struct regs{};
    ::ptrace(PTRACE_GETREGS, child, nullptr, &regs);
    if (static_cast<long>(regs.rax) != -38) continue;
    now = regs.orig_rax == SYS_close && static_cast<int>(regs.rdi) == -1000;
    if (now) continue;
    ++total;
    ++calls[NameOf(static_cast<long>(regs.orig_rax))];
    if (regs.orig_rax == SYS_exit_group) break;
  }
  if (steps) {
    for (total = 0; Next(child, PTRACE_SINGLESTEP);) ++total;
    calls.clear();
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  std::printf("total %ld\n", total);
  for (const auto& [name, n] : calls) std::printf("%s %ld\n", name.c_str(), n);
  return 0;
}
