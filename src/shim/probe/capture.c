/* One thread records a stream in the capture mode that the first argument gives; meanwhile this
 * and another thread do what makes a shim call the driver for itself: first use of a pool, pool
 * allocations, a refusal (which trims), linear memory with the thread's mode relaxed. The capture
 * has to end well, and a pool allocation inside it has to become a node. Prints "recorded". */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

typedef unsigned long long Ptr;
typedef struct stream* Stream;
typedef struct graph* Graph;
int cuInit(unsigned);
int cuCtxCreate_v2(void**, unsigned, int);
int cuCtxSetCurrent(void*);
int cuStreamCreate(Stream*, unsigned);
int cuStreamBeginCapture_v2(Stream, int);
int cuStreamEndCapture(Stream, Graph*);
int cuStreamIsCapturing(Stream, int*);
int cuStreamSynchronize(Stream);
int cuThreadExchangeStreamCaptureMode(int*);
int cuMemAlloc_v2(Ptr*, size_t);
int cuMemFree_v2(Ptr);
int cuMemAllocAsync(Ptr*, size_t, Stream);
int cuMemFreeAsync(Ptr, Stream);
int cuMemsetD8Async(Ptr, unsigned char, size_t, Stream);
int cuMemGetInfo_v2(size_t*, size_t*);
int cuGraphGetNodes(Graph, void**, size_t*);
int cuGraphInstantiateWithFlags(void**, Graph, unsigned long long);
int cuGraphLaunch(void*, Stream);

#define DO(call)                                         \
  do {                                                   \
    int r_ = (call);                                     \
    if (r_ != 0) {                                       \
      printf("line %d: %s = %d\n", __LINE__, #call, r_); \
      exit(1);                                           \
    }                                                    \
  } while (0)
#define EXPECT(code, call)                                               \
  do {                                                                   \
    int r_ = (call);                                                     \
    if (r_ != (code)) {                                                  \
      printf("line %d: %s = %d, not %d\n", __LINE__, #call, r_, (code)); \
      exit(1);                                                           \
    }                                                                    \
  } while (0)

static void* ctx;

static void pools(Stream s) {
  Ptr p, q = 77;
  DO(cuMemAllocAsync(&p, 1 << 20, s));
  EXPECT(2, cuMemAllocAsync(&q, 3ull << 30, s));
  DO(cuMemFreeAsync(p, s));
}

static void* other(void* unused) {
  (void)unused;
  Stream s;
  int mode = 2;
  DO(cuCtxSetCurrent(ctx));
  DO(cuThreadExchangeStreamCaptureMode(&mode));
  DO(cuStreamCreate(&s, 1));
  pools(s);
  Ptr p = 77;
  EXPECT(2, cuMemAlloc_v2(&p, 3ull << 30));
  DO(cuMemAlloc_v2(&p, 1 << 20));
  DO(cuMemFree_v2(p));
  size_t f, t;
  DO(cuMemGetInfo_v2(&f, &t));
  DO(cuStreamSynchronize(s));
  DO(cuThreadExchangeStreamCaptureMode(&mode));
  if (mode != 2) {
    printf("the thread's mode was not left as it was: %d\n", mode);
    exit(1);
  }
  return NULL;
}

int main(int argc, char** argv) {
  const int mode = argc > 1 ? atoi(argv[1]) : 0;
  Stream recorded, beside;
  DO(cuInit(0));
  DO(cuCtxCreate_v2(&ctx, 0, 0));
  DO(cuStreamCreate(&recorded, 1));
  DO(cuStreamCreate(&beside, 1));
  DO(cuStreamBeginCapture_v2(recorded, mode));

  pthread_t thread;
  pthread_create(&thread, NULL, other, NULL);
  pthread_join(thread, NULL);
  /* In the recording thread itself, on another stream: ordered by stream, so allowed in any mode.
   */
  pools(beside);
  /* In the recorded stream: a node. */
  Ptr p;
  DO(cuMemAllocAsync(&p, 1 << 20, recorded));
  DO(cuMemsetD8Async(p, 1, 1 << 20, recorded));
  DO(cuMemFreeAsync(p, recorded));

  int status = 0;
  DO(cuStreamIsCapturing(recorded, &status));
  if (status != 1) return printf("the capture is no longer active: %d\n", status), 1;
  Graph graph = NULL;
  DO(cuStreamEndCapture(recorded, &graph));
  size_t nodes = 0;
  DO(cuGraphGetNodes(graph, NULL, &nodes));
  if (nodes != 3) return printf("%zu nodes\n", nodes), 1;
  void* exec;
  DO(cuGraphInstantiateWithFlags(&exec, graph, 0));
  DO(cuGraphLaunch(exec, beside));
  DO(cuStreamSynchronize(beside));
  puts("recorded");
  return 0;
}
