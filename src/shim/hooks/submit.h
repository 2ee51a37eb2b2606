// The shape of a submission of GPU work: twelve instructions while the gate is open, with no
// prologue, no stack and no copy of the arguments that lie on it (compilers make all three for a
// function of eleven parameters that only jumps on). What is not the common case is a function of
// its own with the same parameters; only it looks at `operation`. Any thread; no system call, lock
// or allocation unless the gate is shut or the first marker of all is put.
#pragma once

#include "src/shim/hooks/hook.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define DIVVY_SLOW_SUBMISSION(symbol, parameters, arguments, operation)                          \
  __attribute__((noinline, cold, used, visibility("hidden")))                                    \
  CUresult Slow_##symbol parameters noexcept asm("divvy_slow_" #symbol);                         \
  CUresult Slow_##symbol parameters noexcept {                                                   \
    Submission submission;                                                                       \
    if (const CUresult r = BeginSubmission(operation, &submission); r != CUDA_SUCCESS) return r; \
    return EndSubmission(&submission, g_driver.symbol arguments);                                \
  }

#if defined(__x86_64__)
namespace divvy::shim {
static_assert(offsetof(Process, gate_word) == 16 && offsetof(Process, launches) == 24 &&
              offsetof(Process, meter_at) == 32);
}
// PassedGate and the driver's function, as in C++ below. %rax, %r10 and %r11 carry no argument.
#define DIVVY_SUBMITTED(symbol, parameters, arguments, operation)     \
  DIVVY_SLOW_SUBMISSION(symbol, parameters, arguments, operation)     \
  __attribute__((naked)) CUresult hook_##symbol parameters noexcept { \
    asm volatile(                                                     \
        "movq divvy_process+16(%%rip), %%rax\n\t"                     \
        "testq %%rax, %%rax\n\t"                                      \
        "je divvy_slow_" #symbol                                      \
        "\n\t"                                                        \
        "cmpl $0, (%%rax)\n\t"                                        \
        "jne divvy_slow_" #symbol                                     \
        "\n\t"                                                        \
        "movq divvy_process+24(%%rip), %%rax\n\t"                     \
        "movq (%%rax), %%r11\n\t"                                     \
        "incq %%r11\n\t"                                              \
        "cmpq divvy_process+32(%%rip), %%r11\n\t"                     \
        "jae divvy_slow_" #symbol                                     \
        "\n\t"                                                        \
        "movq %%r11, (%%rax)\n\t"                                     \
        "jmp *divvy_driver+%c0(%%rip)"                                \
        :                                                             \
        : "i"(offsetof(abi::DriverFns, symbol)));                     \
  }
#else
#define DIVVY_SUBMITTED(symbol, parameters, arguments, operation) \
  DIVVY_SLOW_SUBMISSION(symbol, parameters, arguments, operation) \
  CUresult hook_##symbol parameters noexcept {                    \
    if (!PassedGate()) return Slow_##symbol arguments;            \
    return g_driver.symbol arguments;                             \
  }
#endif
