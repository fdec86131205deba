/*
 * Trap stubs. An interrupt never runs Wasm: it adds one to its vector's counter and to the sum,
 * acknowledges at the local APIC and returns, without touching a register. The counters are read
 * by ring 3 (machine.h). Exceptions become a panic in ring 3 (ring0.c), `int VECTOR_SERVICE` is
 * the call from ring 3 into services.c.
 */
#include "layout.h"

#define LAPIC_EOI (CPU_LAPIC + 0xb0)

.section .ring0.text, "ax"
.code64

/* 256 stubs, STUB_BYTES apart, in vector order: the IDT is computed from trap_stubs. */
.global trap_stubs
.balign 64
trap_stubs:
vector = 0
.rept 32
    .balign 64
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push $0                        /* this exception has no error code of its own */
    .endif
    push $vector
    jmp exception
    vector = vector + 1
.endr
.rept 224
    .balign 64
    .if vector == VECTOR_SERVICE
    jmp service
    .elseif vector == VECTOR_SPURIOUS
    iretq
    .else
    incl CPU_ALIAS + 4 * vector
    incl CPU_ALIAS + INTERRUPT_TOTAL
    movl $0, LAPIC_EOI
    iretq
    .endif
    vector = vector + 1
.endr

/* Stack: vector, error code, rip, cs, rflags, rsp, ss. Never returns to where it came from. */
exception:
    mov %rsp, %rdi
    mov %cr2, %rsi
    call handle_exception
    add $16, %rsp
    iretq

/* rax = service, rdi, rsi, rdx, r10, r8 = arguments; answer in rax. C keeps rbx, rbp, r12-r15. */
service:
    mov %r10, %rcx
    mov %rax, %r9
    call handle_service
    iretq

.section .note.GNU-stack, "", @progbits
