// Takes its share, then forks a worker that outlives it and holds every descriptor that the parent
// had, the connection to the daemon included. The worker waits for the end of its input. `worker`.
#include <unistd.h>

#include <csignal>

#include "tests/attacks/attack.h"

int main() {
  attack::Holding holding = attack::EnterAndTake(attack::Driver(attack::ByName()));
  const pid_t worker = ::fork();
  if (worker == 0) {
    attack::WaitForEnd();
    ::_exit(0);
  }
  holding.note = std::to_string(::getpid()) + " " + std::to_string(worker);
  attack::Report(holding);
  return 0;
}
