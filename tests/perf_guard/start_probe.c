// A CUDA program that starts and ends: the driver by the path given, cuInit, exit. Says "now"
// (count_calls.cc) between the two.
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char** argv) {
  void* driver = argc > 1 ? dlopen(argv[1], RTLD_NOW) : 0;
  int (*init)(unsigned) = driver ? (int (*)(unsigned))dlsym(driver, "cuInit") : 0;
  if (!init) _exit(100);
  syscall(SYS_close, -1000);
  _exit(init(0) == 0 ? 0 : 101);
}
