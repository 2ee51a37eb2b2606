// A CUDA program that finds its driver in the way that its first argument names, takes 1 GiB, asks
// for 3 GiB more, and prints what it got: "1GiB:0 3GiB:2" inside a share of 2 GiB.
//   finder linked|dlopen|hold|path FILE|dlmopen|getproc|deepbind FILE|fork MODE...|exec MODE...|
//   bare MODE...
// hold is dlopen, and ends only when something comes on stdin.
// exec runs itself again with the environment as it is, bare with an empty one. Plain C, so that it
// is as unaware as any program.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int (*Fn)();
typedef Fn (*Lookup)(const char* name);

static void* library;

static Fn ByDlsym(const char* name) { return (Fn)dlsym(library, name); }

static Fn ByGetProc(const char* name) {
  int (*get)(const char*, void**, int, unsigned long long, void*) = (int (*)(
      const char*, void**, int, unsigned long long, void*))dlsym(library, "cuGetProcAddress_v2");
  void* fn = NULL;
  char base[64];
  snprintf(base, sizeof(base), "%s", name);
  char* version = strstr(base, "_v2");
  if (version) *version = 0;
  if (!get || get(base, &fn, 12000, 0, NULL) != 0) return NULL;
  return (Fn)fn;
}

static int Try(Lookup find) {
  Fn init = find("cuInit"), retain = find("cuDevicePrimaryCtxRetain");
  Fn current = find("cuCtxSetCurrent"), alloc = find("cuMemAlloc_v2");
  if (!init || !retain || !current || !alloc) return printf("no driver functions\n"), 1;
  void* context = NULL;
  unsigned long long at = 0;
  int r = init(0);
  if (r == 0) r = retain(&context, 0);
  if (r == 0) r = current(context);
  if (r != 0) return printf("start:%d\n", r), 1;
  const int one = alloc(&at, (size_t)1 << 30), three = alloc(&at, (size_t)3 << 30);
  printf("1GiB:%d 3GiB:%d\n", one, three);
  return 0;
}

#ifdef LINKED
int cuInit(), cuDevicePrimaryCtxRetain(), cuCtxSetCurrent(), cuMemAlloc_v2();
static Fn ByLink(const char* name) {
  if (!strcmp(name, "cuInit")) return (Fn)cuInit;
  if (!strcmp(name, "cuDevicePrimaryCtxRetain")) return (Fn)cuDevicePrimaryCtxRetain;
  return !strcmp(name, "cuCtxSetCurrent") ? (Fn)cuCtxSetCurrent : (Fn)cuMemAlloc_v2;
}
#endif

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "";
  setvbuf(stdout, NULL, _IONBF, 0);
#ifdef LINKED
  if (!strcmp(mode, "linked")) return Try(ByLink);
#endif
  if (!strcmp(mode, "fork")) {
    const pid_t child = fork();
    if (child == 0) return main(argc - 1, argv + 1);
    int status = 1;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  }
  if (!strcmp(mode, "exec") || !strcmp(mode, "bare")) {
    char* nothing[] = {NULL};
    extern char** environ;
    char self[4096];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = 0;
    argv[1] = self;
    execve(self, argv + 1, !strcmp(mode, "bare") ? nothing : environ);
    return 1;
  }
  if (!strcmp(mode, "deepbind")) {
    void* plugin = dlopen(argv[2], RTLD_NOW | RTLD_DEEPBIND);
    if (!plugin) return printf("%s\n", dlerror()), 1;
    return ((int (*)(void))dlsym(plugin, "TryLinked"))();
  }
  if (!strcmp(mode, "path"))
    library = dlopen(argv[2], RTLD_NOW);
  else if (!strcmp(mode, "dlmopen"))
    library = dlmopen(LM_ID_NEWLM, "libcuda.so.1", RTLD_NOW);
  else
    library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) return printf("%s\n", dlerror()), 1;
  const int failed = Try(!strcmp(mode, "getproc") ? ByGetProc : ByDlsym);
  if (!strcmp(mode, "hold")) getchar();
  return failed;
}
