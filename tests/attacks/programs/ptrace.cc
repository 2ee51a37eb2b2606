// Attaches to a process of another tenant as a debugger and reads its memory. `ptrace PID`.
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/attacks/attack.h"

int main(int, char** argv) {
  const pid_t victim = std::atoi(argv[1]);
  if (::ptrace(PTRACE_SEIZE, victim, nullptr, nullptr) != 0)
    return attack::Report({.note = std::strerror(errno)});
  ::ptrace(PTRACE_DETACH, victim, nullptr, nullptr);
  return attack::Report({.breached = true, .note = "attached"});
}
