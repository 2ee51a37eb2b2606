// Chooses among the machine's devices by CUDA_VISIBLE_DEVICES and takes from the first it gets.
//   visible VALUE   starts anew with that value
#include "tests/attacks/attack.h"

extern char** environ;

int main(int, char** argv) {
  std::vector<std::string> kept{"CUDA_VISIBLE_DEVICES=" + std::string(argv[1])};
  for (char** e = environ; *e != nullptr; ++e)
    if (std::string(*e).rfind("CUDA_VISIBLE_DEVICES=", 0) != 0) kept.push_back(*e);
  attack::Exec("grab", {}, kept);
}
