// A library with one function of its own; the rest comes from its NEEDED entry (CMakeLists.txt).
extern "C" __attribute__((visibility("default"))) int divvy_forward_own() { return 1; }
