/*
 * Trap stubs. An interrupt never runs Wasm: it adds one to its vector's counter and to the sum,
 * acknowledges at the local APIC and returns, without touching a register. The counters are read
 * by ring 3 (machine.h). Exceptions become a panic in ring 3 (ring0.c), but for one: the invalid
 * opcode at call_ring0 in host.c is the call from ring 3 into services.c. Neither `int` nor
 * `syscall` would do, because software-virtualised KVM carries out neither of them rightly.
 */
#include "layout.h"

/* Exceptions for which the CPU pushes an error code: 8, 10 to 14, 17, 21, 29, 30. */
#define VECTORS_WITH_ERROR 0x60227d00

#define LAPIC_EOI (CPU_LAPIC + 0xb0)

.section .ring0.text, "ax"
.code64

/* 256 stubs, STUB_BYTES apart, in vector order: ring0.c computes the IDT from that. */
.global trap_stubs
.balign STUB_BYTES
trap_stubs:
vector = 0
.rept 32
    .balign STUB_BYTES
    .if !((1 << vector) & VECTORS_WITH_ERROR)
    push $0                        /* this exception has no error code of its own */
    .endif
    push $vector
    .if vector == VECTOR_INVALID_OPCODE
    jmp invalid_opcode
    .else
    jmp exception
    .endif
    vector = vector + 1
.endr
.rept 224
    .balign STUB_BYTES
    .if vector == VECTOR_SPURIOUS
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

/*
 * From call_ring0, arguments and answer where C has them, the service's number the last one. It
 * returns behind the invalid opcode, which is two bytes long. From anywhere else it is an
 * exception.
 */
invalid_opcode:
    cmpq $call_ring0, 16(%rsp)
    jne exception
    addq $2, 16(%rsp)
    add $16, %rsp
    call handle_service
    iretq

.section .note.GNU-stack, "", @progbits
