#!/usr/bin/env bash
# The probe on this machine: by LD_PRELOAD and by dlopen, in our own program and in strangers.
set -eu
cd "$DIVVY_BUILD_DIR/test"
probe=$PWD/libdivvy_probe.so
LD_PRELOAD=$probe ./portable_host
./portable_host "$probe"
./portable_host "$PWD/libdivvy_forward.so.1"
for stranger in "true" "bash -c :" "python3 -c pass"; do
  said=$(LD_PRELOAD=$probe $stranger 2>&1) && [ -z "$said" ] ||
    { echo "'$stranger' with the probe: $said"; exit 1; }
done
# Without the probe the program must notice, or it would prove nothing.
if ./portable_host >/dev/null; then echo "portable_host passes without a probe"; exit 1; fi

# The stubs: what glibc 2.17 has links, what it lacks does not.
link() {
  echo "void $1(void); void f(void) { $1(); }" |
    ${CC:-cc} -w -shared -fPIC -fno-builtin -nodefaultlibs -Wl,-z,defs -o /dev/null -x c - \
      -x none "$DIVVY_BUILD_DIR"/portable/lib{c.so.6,m.so.6,dl.so.2,pthread.so.0,rt.so.1} 2>/dev/null
}
for old in memcpy dlsym pthread_create pthread_mutex_lock sem_wait shm_open clock_gettime pow \
           secure_getenv __tls_get_addr; do
  link $old || { echo "$old does not link"; exit 1; }
done
for new in getentropy stat pthread_cond_clockwait __cxa_thread_atexit_impl arc4random; do
  if link $new; then echo "$new links, although it is newer than 2.17"; exit 1; fi
done
