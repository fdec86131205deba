/*
 * Entry points: CPU 0 from the PVH boot protocol, every other CPU from its start-up IPI.
 *
 * Both arrive without paging, switch to long mode on the boot tables below (identity map of the
 * first GiB, which is at DIRECT_BASE as well) and call C in ring0.c, which builds the CPU's real
 * tables and leaves for ring 3 through enter_user.
 */
#include "layout.h"

#define CR0_LONG 0x80050033 /* PG, AM, WP, NE, ET, MP, PE */
#define CR4_LONG 0x620      /* OSXMMEXCPT, OSFXSR, PAE */
#define MSR_EFER 0xc0000080
#define EFER_LONG 0x900     /* NXE, LME */

/* The note that makes `qemu -kernel` enter at pvh_entry (XEN_ELFNOTE_PHYS32_ENTRY, owner Xen). */
.section .note.pvh, "a", @note
.balign 4
.long 4, 4, 18
.asciz "Xen"
.long pvh_entry

.section .ring0.text, "ax"

/* 32-bit protected mode, flat segments, paging off, interrupts off, ebx = hvm_start_info. */
.code32
.global pvh_entry
pvh_entry:
    cld
    mov $boot_stack_top, %esp
    mov %ebx, %ebp
    mov $boot_pd, %edi             /* identity map: 512 entries of 2 MiB, present and writable */
    mov $0x83, %eax
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    cmp $boot_pd + 4096, %edi
    jb 1b
    movl $boot_pd + 3, boot_pdpt   /* present and writable; the upper halves are 0 */
    movl $boot_pdpt + 3, boot_pml4
    movl $boot_pdpt + 3, boot_pml4 + 8
    call enter_long
    ljmp $SELECTOR_CODE, $2f
.code64
2:  xor %eax, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov %eax, %es
    mov $boot_stack_top, %esp
    mov %ebp, %edi
    call boot_cpu_zero
    ud2

/* Paging on with the boot tables, long mode active, boot GDT loaded. Returns in 32-bit mode. */
.code32
enter_long:
    mov $CR4_LONG, %eax
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LONG, %eax
    wrmsr
    mov $CR0_LONG, %eax
    mov %eax, %cr0
    lgdt boot_gdt_pointer
    ret

/* enter_user(rip, rsp, argument): the first way into ring 3. Interrupts on from here on. */
.code64
.global enter_user
enter_user:
    mov $SELECTOR_USER_DATA, %eax
    push %rax
    push %rsi
    push $0x202
    mov $SELECTOR_USER_CODE, %eax
    push %rax
    push %rdi
    mov %rdx, %rdi
    iretq

/* load_tables(gdt_pointer, idt_pointer, cr3, stack, entry): this CPU's own tables and stack. */
.global load_tables
load_tables:
    mov %rdx, %cr3
    mov %rcx, %rsp
    lgdt (%rdi)
    lidt (%rsi)
    mov $SELECTOR_TSS, %eax
    ltr %ax
    push $SELECTOR_CODE
    push %r8
    lretq

/*
 * The trampoline, copied to AP_TRAMPOLINE: a CPU starts here in real mode with cs:ip = 0800:0000.
 * Position matters only for the two pointers, which are computed for the place it runs at.
 */
.code16
.global ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl ap_gdt_pointer - ap_trampoline + AP_TRAMPOLINE
    mov $1, %eax
    mov %eax, %cr0
    ljmpl $0x18, $ap_protected
ap_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
ap_trampoline_end:

.code32
ap_protected:
    mov $SELECTOR_DATA, %eax
    mov %eax, %ds
    mov %eax, %ss
    mov %eax, %es
    mov $boot_stack_top, %esp      /* CPU 0 left this stack; CPUs start one at a time */
    call enter_long
    ljmp $SELECTOR_CODE, $1f
.code64
1:  mov $boot_stack_top, %esp
    call boot_cpu_other
    ud2

.section .ring0.data, "aw"
.balign 16
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff       /* 0x08 code, 64 bit */
    .quad 0x00cf93000000ffff       /* 0x10 data */
    .quad 0x00cf9b000000ffff       /* 0x18 code, 32 bit, for the trampoline */
boot_gdt_end:
.balign 4
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

.section .ring0.bss, "aw", @nobits
.balign 4096
/* The boot tables. PML4 entry 0 is the identity map, entry 1 (DIRECT_BASE) the same again. */
.global boot_pdpt
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
boot_pd:
    .skip 4096
boot_stack:
    .skip 4096
boot_stack_top:

.section .note.GNU-stack, "", @progbits
