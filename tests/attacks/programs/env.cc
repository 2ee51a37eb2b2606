// Gets rid of the environment that brought the shim, and starts anew.
//   env unset   without LD_PRELOAD, LD_AUDIT and every DIVVY_ variable
//   env empty   with nothing but what names the simulated driver
//   env socket  keeps the shim, but tells it a socket that is not there
#include <cstring>

#include "tests/attacks/attack.h"

extern char** environ;

int main(int, char** argv) {
  std::vector<std::string> kept = attack::MachineEnvironment();
  if (std::strcmp(argv[1], "empty") != 0) {
    for (char** e = environ; *e != nullptr; ++e) {
      const bool shim = std::strncmp(*e, "LD_", 3) == 0 || std::strncmp(*e, "DIVVY_", 6) == 0;
      if (!shim) kept.push_back(*e);
    }
  }
  if (std::strcmp(argv[1], "socket") == 0) {
    for (char** e = environ; *e != nullptr; ++e)
      if (std::strncmp(*e, "LD_PRELOAD=", 11) == 0) kept.push_back(*e);
    kept.push_back("DIVVY_SOCKET=/nonexistent/tenant.sock");
  }
  attack::Exec("grab", {}, kept);
}
