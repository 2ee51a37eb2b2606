// A library linked to the driver, for RTLD_DEEPBIND: its own lookups start at its dependencies.
#include <stddef.h>
#include <stdio.h>

int cuInit(unsigned), cuDevicePrimaryCtxRetain(void**, int), cuCtxSetCurrent(void*);
int cuMemAlloc_v2(unsigned long long*, size_t);

int TryLinked(void) {
  void* context = NULL;
  unsigned long long at = 0;
  int r = cuInit(0);
  if (r == 0) r = cuDevicePrimaryCtxRetain(&context, 0);
  if (r == 0) r = cuCtxSetCurrent(context);
  if (r != 0) return printf("start:%d\n", r), 1;
  const int one = cuMemAlloc_v2(&at, (size_t)1 << 30), three = cuMemAlloc_v2(&at, (size_t)3 << 30);
  printf("1GiB:%d 3GiB:%d\n", one, three);
  return 0;
}
