/* A program built with a sanitizer: its run time asks the preloaded dlsym for what it wraps before
   anything else has run, and wraps what the shim calls. Prints what plain look-ups answer. */
#include <dlfcn.h>
#include <stdio.h>

int main(void) {
  int (*print)(const char*) = (int (*)(const char*))dlsym(RTLD_DEFAULT, "puts");
  void* self = dlopen(NULL, RTLD_NOW);
  if (print == NULL || self == NULL || dlsym(self, "main") != (void*)main) return 1;
  if (dlsym(self, "cuInit") == NULL) return 2; /* the shim is there */
  print("started");
  return 0;
}
