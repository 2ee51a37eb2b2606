/* Finds the driver in the way that its first argument names and asks for more memory than the
 * share has, then for less. Prints "refused" if the shim was met, "granted" if it was bypassed,
 * and what else went wrong. Knows nothing of Divvy: plain C against the driver's ABI. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int (*Init)(unsigned);
typedef int (*CtxCreate)(void**, unsigned, int);
typedef int (*Alloc)(unsigned long long*, size_t);
typedef int (*Free)(unsigned long long);
typedef int (*GetProc)(const char*, void**, int, unsigned long long, int*);
typedef int (*GetProc1)(const char*, void**, int, unsigned long long);
typedef void* (*Sym)(void*, const char*);

static struct {
  Init init;
  CtxCreate create;
  Alloc alloc;
  Free free;
} cu;

static void* need(void* p, const char* what) {
  if (p == NULL) {
    printf("missing %s: %s\n", what, dlerror());
    exit(3);
  }
  return p;
}

static void by(Sym sym, void* handle) {
  cu.init = (Init)need(sym(handle, "cuInit"), "cuInit");
  cu.create = (CtxCreate)need(sym(handle, "cuCtxCreate_v2"), "cuCtxCreate_v2");
  cu.alloc = (Alloc)need(sym(handle, "cuMemAlloc_v2"), "cuMemAlloc_v2");
  cu.free = (Free)need(sym(handle, "cuMemFree_v2"), "cuMemFree_v2");
}

static void* by_version(void* handle, const char* name) {
  void* p = dlvsym(handle, name, "ANY_VERSION");
  return p != NULL ? p : dlsym(handle, name);
}

static void by_proc_address(void* handle, int old) {
  GetProc get = (GetProc)need(dlsym(handle, "cuGetProcAddress_v2"), "cuGetProcAddress_v2");
  GetProc1 get1 = (GetProc1)need(dlsym(handle, "cuGetProcAddress"), "cuGetProcAddress");
  const char* name[4] = {"cuInit", "cuCtxCreate", "cuMemAlloc", "cuMemFree"};
  void* p[4] = {0};
  for (int i = 0; i < 4; ++i)
    if (old ? get1(name[i], &p[i], 3020, 0) : get(name[i], &p[i], 3020, 0, NULL)) exit(3);
  cu.init = (Init)need(p[0], name[0]);
  cu.create = (CtxCreate)need(p[1], name[1]);
  cu.alloc = (Alloc)need(p[2], name[2]);
  cu.free = (Free)need(p[3], name[3]);
}

static const char* attempt(void) {
  static int started;
  if (!started) {
    void* ctx;
    int r = cu.init(0);
    if (r) return printf("cuInit %d\n", r), "failed";
    if ((r = cu.create(&ctx, 0, 0))) return printf("cuCtxCreate %d\n", r), "failed";
    started = 1;
  }
  unsigned long long p = 77;
  int r = cu.alloc(&p, 3ull << 30);
  if (r == 0) return "granted";
  if (r != 2 || p != 77) return printf("cuMemAlloc %d %llx\n", r, p), "failed";
  if ((r = cu.alloc(&p, 1ull << 20))) return printf("cuMemAlloc %d\n", r), "failed";
  if ((r = cu.free(p))) return printf("cuMemFree %d\n", r), "failed";
  return "refused";
}

enum { kThreads = 16, kNames = 4 };
static const char* const names[kNames] = {"cuInit", "cuCtxCreate_v2", "cuMemAlloc_v2",
                                          "cuMemFree_v2"};
static pthread_barrier_t together;
static const char* driver;
static void* answers[kThreads][kNames];

/* Each begins with another name, so that the first look-ups of all are in flight at once. */
static void* ask(void* at) {
  const size_t me = (size_t)((void*(*)[kNames])at - answers);
  pthread_barrier_wait(&together);
  void* handle = need(dlopen(driver, RTLD_NOW), driver);
  for (size_t i = 0; i < kNames; ++i) {
    const size_t n = (me + i) % kNames;
    answers[me][n] = need(dlsym(handle, names[n]), names[n]);
  }
  return NULL;
}

/* The first look-ups of the process come from all threads at once: all get the same answers. */
static void by_threads(void) {
  pthread_t thread[kThreads];
  pthread_barrier_init(&together, NULL, kThreads);
  for (int i = 0; i < kThreads; ++i)
    if (pthread_create(&thread[i], NULL, ask, &answers[i])) exit(3);
  for (int i = 0; i < kThreads; ++i) pthread_join(thread[i], NULL);
  for (int i = 1; i < kThreads; ++i)
    if (memcmp(answers[i], answers[0], sizeof(answers[0]))) {
      puts("the threads got different answers");
      exit(3);
    }
  cu.init = (Init)answers[0][0];
  cu.create = (CtxCreate)answers[0][1];
  cu.alloc = (Alloc)answers[0][2];
  cu.free = (Free)answers[0][3];
}

static void at_end(void) { puts(attempt()); }
static int call_in_destructor;
__attribute__((destructor)) static void destructor(void) {
  if (call_in_destructor) {
    puts(attempt());
    fflush(stdout);
  }
}

int main(int argc, char** argv) {
  const char* way = argc > 1 ? argv[1] : "";
  const char* file = argc > 2 ? argv[2] : "libcuda.so.1";
  if (!strcmp(way, "dlsym")) {
    by(dlsym, need(dlopen(file, RTLD_NOW), file));
  } else if (!strcmp(way, "dlvsym")) {
    by(by_version, need(dlopen(file, RTLD_NOW), file));
  } else if (!strcmp(way, "default")) {
    need(dlopen(file, RTLD_NOW | RTLD_GLOBAL), file);
    by(dlsym, RTLD_DEFAULT);
  } else if (!strcmp(way, "next")) {
    need(dlopen(file, RTLD_NOW | RTLD_GLOBAL), file);
    by(dlsym, RTLD_NEXT);
  } else if (!strcmp(way, "dlmopen")) {
    by(dlsym, need(dlmopen(LM_ID_NEWLM, file, RTLD_NOW), file));
  } else if (!strcmp(way, "proc")) {
    by_proc_address(need(dlopen(file, RTLD_NOW), file), 0);
  } else if (!strcmp(way, "proc1")) {
    by_proc_address(need(dlopen(file, RTLD_NOW), file), 1);
  } else if (!strcmp(way, "dlsym-of-dlsym")) {
    /* Another interposer's way to the C library's dlsym. */
    void* libc = need(dlopen("libc.so.6", RTLD_NOW), "libc");
    by((Sym)need(dlsym(libc, "dlsym"), "dlsym"), need(dlopen(file, RTLD_NOW), file));
  } else if (!strcmp(way, "two-copies")) {
    /* The first copy is used, then its functions are asked of the second. */
    by(dlsym, need(dlopen("libcuda.so.1", RTLD_NOW), "libcuda.so.1"));
    attempt();
    cu.alloc = (Alloc)need(dlsym(need(dlopen(file, RTLD_NOW), file), "cuMemAlloc_v2"), "alloc");
  } else if (!strcmp(way, "reopened")) {
    void* h = need(dlopen(file, RTLD_NOW), file);
    by(dlsym, h);
    dlclose(h);
    by(dlsym, need(dlopen(file, RTLD_NOW), file));
  } else if (!strcmp(way, "plugin")) {
    /* A library with RTLD_DEEPBIND and a driver of its own among its dependencies. */
    void* h = need(dlopen(file, RTLD_NOW | RTLD_DEEPBIND), file);
    void (*fill)(void*) = (void (*)(void*))need(dlsym(h, "probe_plugin"), "probe_plugin");
    fill(&cu);
  } else if (!strcmp(way, "atexit")) {
    by(dlsym, need(dlopen(file, RTLD_NOW), file));
    attempt();
    atexit(at_end);
    return 0;
  } else if (!strcmp(way, "destructor")) {
    by(dlsym, need(dlopen(file, RTLD_NOW), file));
    attempt();
    call_in_destructor = 1;
    return 0;
  } else if (!strcmp(way, "threads")) {
    driver = file;
    by_threads();
  } else if (!strcmp(way, "fork")) {
    /* The child starts for itself: the parent has opened the driver, not initialised it. */
    by(dlsym, need(dlopen(file, RTLD_NOW), file));
    fflush(stdout);
    if (fork() == 0) {
      puts(attempt());
      fflush(stdout);
      _exit(0);
    }
    int status;
    wait(&status);
    return WEXITSTATUS(status);
  } else if (!strcmp(way, "uuid")) {
    void* h = need(dlopen(file, RTLD_NOW), file);
    unsigned char uuid[16];
    Init init = (Init)need(dlsym(h, "cuInit"), "cuInit");
    int (*get)(void*, int) = (int (*)(void*, int))need(dlsym(h, "cuDeviceGetUuid"), "uuid");
    if (init(0) || get(uuid, 0)) return 3;
    for (int i = 0; i < 16; ++i) printf("%02x", uuid[i]);
    puts("");
    return 0;
  } else if (!strcmp(way, "missing")) {
    /* What nobody defines stays unfound, with the loader's own message. */
    void* h = need(dlopen(file, RTLD_NOW), file);
    if (dlsym(h, "cuNoSuchFunction") != NULL) return 4;
    const char* why = dlerror();
    puts(why != NULL && strstr(why, "cuNoSuchFunction") != NULL ? "unfound" : "silent");
    return 0;
  } else {
    return 2;
  }
  puts(attempt());
  return 0;
}
