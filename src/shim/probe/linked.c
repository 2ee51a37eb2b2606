/* A program, or with -DPLUGIN a library, that is linked to the driver: no name is looked up. */
#include <stddef.h>
#include <stdio.h>

int cuInit(unsigned);
int cuCtxCreate_v2(void**, unsigned, int);
int cuMemAlloc_v2(unsigned long long*, size_t);
int cuMemFree_v2(unsigned long long);

#ifdef PLUGIN
void probe_plugin(void** table) {
  table[0] = (void*)cuInit;
  table[1] = (void*)cuCtxCreate_v2;
  table[2] = (void*)cuMemAlloc_v2;
  table[3] = (void*)cuMemFree_v2;
}
#else
int main(void) {
  void* ctx;
  unsigned long long p = 77;
  if (cuInit(0) != 0 || cuCtxCreate_v2(&ctx, 0, 0) != 0) return 3;
  const int r = cuMemAlloc_v2(&p, 3ull << 30);
  if (r == 2 && p == 77 && cuMemAlloc_v2(&p, 1 << 20) == 0 && cuMemFree_v2(p) == 0)
    puts("refused");
  else
    puts(r == 0 ? "granted" : "failed");
  return 0;
}
#endif
