// The forwarding libcuda.so.1's functions: each jumps through a slot that is filled on its first call. Arguments, stack and caller are left as they are, so that any signature passes. A call
// from several threads at once may fill a slot twice, with the same address.
//
// Needs from C: void* divvy_forward_resolve(unsigned index), which returns the real function of
// abi::DriverSymbol `index`, or one that answers with an error; it never returns null.
// Owns: void* divvy_forward_slots[], zero at start, by the same index.

#if defined(__x86_64__)

#define DIVVY_FORWARD(index, symbol)                    \
  .globl symbol;                                        \
  .type symbol, @function;                              \
  .p2align 4;                                           \
  symbol:                                               \
  .cfi_startproc;                                       \
  endbr64;                                              \
  movq divvy_forward_slots + 8 * index(%rip), %r11;     \
  testq %r11, %r11;                                     \
  je 1f;                                                \
  jmp *%r11;                                            \
  1: movl $index, %r11d;                                \
  jmp divvy_forward_first_call;                         \
  .cfi_endproc;                                         \
  .size symbol, . - symbol

#elif defined(__aarch64__)

#define DIVVY_FORWARD(index, symbol)                    \
  .globl symbol;                                        \
  .type symbol, %function;                              \
  .p2align 4;                                           \
  symbol:                                               \
  .cfi_startproc;                                       \
  hint 34;                                              \
  adrp x16, divvy_forward_slots + 8 * index;            \
  ldr x16, [x16, :lo12:divvy_forward_slots + 8 * index]; \
  cbz x16, 1f;                                          \
  br x16;                                               \
  1: mov w17, index;                                    \
  b divvy_forward_first_call;                           \
  .cfi_endproc;                                         \
  .size symbol, . - symbol

#else
#error "no forwarding thunks for this processor"
#endif

  .text
  .hidden divvy_forward_resolve
  .type divvy_forward_first_call, %function

#if defined(__x86_64__)
// Keeps the six integer and eight vector argument registers across the look-up, then goes on. At entry the
// stack is 8 bytes off its alignment, as after any call; seven pushes and 128 bytes put it right.
divvy_forward_first_call:
  .cfi_startproc
  pushq %rdi
  .cfi_adjust_cfa_offset 8
  pushq %rsi
  .cfi_adjust_cfa_offset 8
  pushq %rdx
  .cfi_adjust_cfa_offset 8
  pushq %rcx
  .cfi_adjust_cfa_offset 8
  pushq %r8
  .cfi_adjust_cfa_offset 8
  pushq %r9
  .cfi_adjust_cfa_offset 8
  pushq %r11
  .cfi_adjust_cfa_offset 8
  subq $128, %rsp
  .cfi_adjust_cfa_offset 128
  movups %xmm0, 0(%rsp)
  movups %xmm1, 16(%rsp)
  movups %xmm2, 32(%rsp)
  movups %xmm3, 48(%rsp)
  movups %xmm4, 64(%rsp)
  movups %xmm5, 80(%rsp)
  movups %xmm6, 96(%rsp)
  movups %xmm7, 112(%rsp)
  movl %r11d, %edi
  call divvy_forward_resolve
  movups 0(%rsp), %xmm0
  movups 16(%rsp), %xmm1
  movups 32(%rsp), %xmm2
  movups 48(%rsp), %xmm3
  movups 64(%rsp), %xmm4
  movups 80(%rsp), %xmm5
  movups 96(%rsp), %xmm6
  movups 112(%rsp), %xmm7
  addq $128, %rsp
  .cfi_adjust_cfa_offset -128
  popq %rdi
  .cfi_adjust_cfa_offset -8
  leaq divvy_forward_slots(%rip), %r11
  movq %rax, (%r11, %rdi, 8)
  movq %rax, %r11
  popq %r9
  .cfi_adjust_cfa_offset -8
  popq %r8
  .cfi_adjust_cfa_offset -8
  popq %rcx
  .cfi_adjust_cfa_offset -8
  popq %rdx
  .cfi_adjust_cfa_offset -8
  popq %rsi
  .cfi_adjust_cfa_offset -8
  popq %rdi
  .cfi_adjust_cfa_offset -8
  jmp *%r11
  .cfi_endproc

#elif defined(__aarch64__)
// Keeps the eight integer and eight vector argument registers, and the link register, across the look-up.
divvy_forward_first_call:
  .cfi_startproc
  stp x29, x30, [sp, #-224]!
  .cfi_adjust_cfa_offset 224
  .cfi_rel_offset x29, 0
  .cfi_rel_offset x30, 8
  stp x0, x1, [sp, #16]
  stp x2, x3, [sp, #32]
  stp x4, x5, [sp, #48]
  stp x6, x7, [sp, #64]
  stp x17, x8, [sp, #80]
  stp q0, q1, [sp, #96]
  stp q2, q3, [sp, #128]
  stp q4, q5, [sp, #160]
  stp q6, q7, [sp, #192]
  mov w0, w17
  bl divvy_forward_resolve
  mov x16, x0
  ldp q0, q1, [sp, #96]
  ldp q2, q3, [sp, #128]
  ldp q4, q5, [sp, #160]
  ldp q6, q7, [sp, #192]
  ldp x17, x8, [sp, #80]
  adrp x0, divvy_forward_slots
  add x0, x0, :lo12:divvy_forward_slots
  str x16, [x0, x17, lsl #3]
  ldp x0, x1, [sp, #16]
  ldp x2, x3, [sp, #32]
  ldp x4, x5, [sp, #48]
  ldp x6, x7, [sp, #64]
  ldp x29, x30, [sp], #224
  .cfi_adjust_cfa_offset -224
  br x16
  .cfi_endproc
#endif
  .size divvy_forward_first_call, . - divvy_forward_first_call

#include "src/shim/generated/forward.inc"

  .data
  .p2align 4
  .globl divvy_forward_slots
  .hidden divvy_forward_slots
  .type divvy_forward_slots, %object
divvy_forward_slots:
  .zero 8 * DIVVY_FORWARD_SLOTS
  .size divvy_forward_slots, . - divvy_forward_slots

  .section .note.GNU-stack, "", %progbits
