// The exported dlsym, dlvsym, dlopen, dlmopen and dlclose. Each looks at its arguments and either
// jumps to the C library's function, with the caller's stack and return address untouched, or asks
// resolve.cc first. Written in assembler because the C library finds out who is asking by its
// return address, which no compiler promises to leave in place.
//
// System V x86-64: rdi, rsi, rdx, rcx are the arguments. All others that are kept across a call to
// C++ are saved around it; the stack is 16-byte aligned at each call.
        .text

        // Makes sure that the real function's pointer is filled; keeps the arguments.
        .macro BIND pointer
        cmpq    $0, \pointer(%rip)
        jne     1f
        push    %rdi
        push    %rsi
        push    %rdx
        call    divvy_bind_loader
        pop     %rdx
        pop     %rsi
        pop     %rdi
        cmpq    $0, \pointer(%rip)
        jne     1f
        xor     %eax, %eax              // no such function on this system
        ret
1:
        .endm

        // Jumps to the real function unless the name in rsi starts with "cu", "nv" or "dl".
        .macro FILTER pointer
        test    %rsi, %rsi
        jz      2f
        movzbl  (%rsi), %eax
        test    %al, %al
        jz      2f
        movb    1(%rsi), %ah
        cmpw    $0x7563, %ax            // "cu"
        je      3f
        cmpw    $0x766e, %ax            // "nv"
        je      3f
        cmpw    $0x6c64, %ax            // "dl"
        je      3f
2:      jmp     *\pointer(%rip)
3:
        .endm

        .macro ENTRY name
        .globl  \name
        .type   \name, @function
        .p2align 4
\name:
        .cfi_startproc
        endbr64
        .endm
        .macro END name
        .cfi_endproc
        .size   \name, . - \name
        .endm

        ENTRY dlsym
        BIND    divvy_real_dlsym
        FILTER  divvy_real_dlsym
        mov     (%rsp), %rcx            // caller
        push    %rdi
        push    %rsi
        sub     $8, %rsp
        .cfi_adjust_cfa_offset 24
        xor     %edx, %edx
        call    divvy_resolve
        add     $8, %rsp
        pop     %rsi
        pop     %rdi
        .cfi_adjust_cfa_offset -24
        test    %rdx, %rdx
        jz      4f
        ret
4:      jmp     *divvy_real_dlsym(%rip)
        END     dlsym

        ENTRY dlvsym
        BIND    divvy_real_dlvsym
        FILTER  divvy_real_dlvsym
        mov     (%rsp), %rcx
        push    %rdi
        push    %rsi
        push    %rdx
        .cfi_adjust_cfa_offset 24
        call    divvy_resolve
        mov     %rdx, %rcx
        pop     %rdx
        pop     %rsi
        pop     %rdi
        .cfi_adjust_cfa_offset -24
        test    %rcx, %rcx
        jz      4f
        ret
4:      jmp     *divvy_real_dlvsym(%rip)
        END     dlvsym

        ENTRY dlopen
        BIND    divvy_real_dlopen
        test    $8, %esi                // RTLD_DEEPBIND
        jz      2f
        push    %rdi
        push    %rsi
        sub     $8, %rsp
        .cfi_adjust_cfa_offset 24
        mov     %esi, %edi
        call    divvy_dlopen_mode
        add     $8, %rsp
        pop     %rsi
        pop     %rdi
        .cfi_adjust_cfa_offset -24
        mov     %eax, %esi
2:      jmp     *divvy_real_dlopen(%rip)
        END     dlopen

        ENTRY dlmopen
        BIND    divvy_real_dlmopen
        test    %rdi, %rdi              // LM_ID_BASE
        jnz     3f
        test    $8, %edx                // RTLD_DEEPBIND
        jz      2f
3:      push    %rsi
        call    divvy_dlmopen_arguments // (name space, file, mode) -> rax, rdx
        pop     %rsi
        mov     %rax, %rdi
2:      jmp     *divvy_real_dlmopen(%rip)
        END     dlmopen

        ENTRY dlclose
        BIND    divvy_real_dlclose
        jmp     *divvy_real_dlclose(%rip)
        END     dlclose

        .section .note.gnu.property, "a"
        .p2align 3
        .long   4, 16, 5
        .asciz  "GNU"
        .long   0xc0000002, 4, 3, 0     // x86 feature: IBT, SHSTK
        .section .note.GNU-stack, "", @progbits
