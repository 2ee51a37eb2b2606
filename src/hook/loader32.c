// libdivvy32.so: an empty library for 32-bit programs of a container whose ld.so.preload names ours
// by $PLATFORM, so that their loader has nothing to complain of. CUDA has no 32-bit driver.
__attribute__((visibility("hidden"))) const int divvy_nothing = 0;
