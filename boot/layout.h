/*
 * The memory map, physical and virtual, in one place. Included by the assembly, the ring-0 C, the
 * ring-3 C and (through the preprocessor) the linker script.
 *
 * Physical
 *
 *   0x00008000  AP_TRAMPOLINE   real-mode entry of the other CPUs, one page
 *   0x00100000  IMAGE_BASE      this ELF: ring-0 part, ring-3 part, CPU 0's block in .bss;
 *                               behind it, until it is unpacked, what ring 3's part is made of
 *   0x00200000  ARENA_BASE      linear memory of CPU 0, then those of CPU 1, 2, ... (2 MiB pages)
 *        ...                    blocks of CPU 1, 2, ... (tables and stacks, CPU_BLOCK_BYTES each)
 *   end of the first usable RAM range, at most DIRECT_BYTES
 *
 * Virtual, the same on every CPU; lines marked * lead to that CPU's own memory
 *
 *   0x00_00100000  image          ring-0 part: supervisor; ring-3 part: user, W^X
 *   0x00_00200000  CPU_INTERRUPTS * interrupt counters, read-only to ring 3
 *   0x00_00201000  CPU_ALIAS      * the same page, writable by ring 0 only
 *   0x00_00204000  CPU_STACK      * ring-0 stack, one page (ring 0)
 *   0x00_00206000  CPU_IST        * stack of NMI, double fault, machine check (ring 0)
 *   0x00_00208000  CPU_LAPIC        local APIC registers, uncached (ring 0)
 *   0x00_0020a000  CPU_INSTANCE   * the Wasm instance: globals, memory size; panic record (user)
 *   0x00_0020c000  CPU_TABLES     * GDT, TSS with the I/O bitmap, 8 KiB (ring 0)
 *   0x00_00210000  CPU_USER_STACK * Wasm stack, 32 KiB, unmapped pages around it (user)
 *   0x00_00220000  CPU_PANIC_STACK* stack of the panic report, 8 KiB (user)
 *   0x00_10000000  LINEAR_BASE    * linear memory; 8 GiB from here on is arena or unmapped guard
 *   0x40_00000000  MMIO_BASE        4 GiB window: pages of BARs and tables that map() added (user)
 *   0x80_00000000  DIRECT_BASE      the first GiB of physical memory (ring 0)
 */
#ifndef VIREO_LAYOUT_H
#define VIREO_LAYOUT_H

#define AP_TRAMPOLINE 0x8000
#define IMAGE_BASE 0x100000
#define ARENA_BASE 0x200000

#define CPU_REGION 0x200000
#define CPU_INTERRUPTS 0x200000
#define CPU_ALIAS 0x201000
#define CPU_STACK 0x204000
#define CPU_IST 0x206000
#define CPU_LAPIC 0x208000
#define CPU_INSTANCE 0x20a000
#define CPU_TABLES 0x20c000
#define CPU_TABLES_BYTES 0x2000
#define CPU_USER_STACK 0x210000
#define CPU_USER_STACK_BYTES 0x8000
#define CPU_PANIC_STACK 0x220000
#define CPU_PANIC_STACK_BYTES 0x2000

#define LINEAR_BASE 0x10000000
#define MMIO_BASE 0x4000000000
#define MMIO_BYTES 0x1000000
#define DIRECT_BASE 0x8000000000
#define DIRECT_BYTES 0x40000000

/* Offset of the sum of all counters in the page at CPU_INTERRUPTS (InterruptPage, for traps.S). */
#define INTERRUPT_TOTAL 0x400

/* A CPU's block: what a CPU needs besides its arena. The struct is in ring0.c. */
#define CPU_BLOCK_BYTES 0x20000
#define CPUS_MAX 64

/* Segment selectors. The two user ones carry RPL 3. */
#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_USER_DATA 0x1b
#define SELECTOR_USER_CODE 0x23
#define SELECTOR_TSS 0x28

/* Interrupt vectors. Devices get the ones from VECTOR_DEVICE on, given out by kernel/. */
#define VECTOR_INVALID_OPCODE 6
#define VECTOR_TIMER 0x20
#define VECTOR_WAKE 0x21
#define VECTOR_DEVICE 0x30
#define VECTOR_SPURIOUS 0xff
#define STUB_BYTES 32 /* from one trap stub to the next */

/* Services of ring 0, number in rax. Ring 3's side is in machine.h, ring 0's in services.c. */
#define SERVICE_WAIT 0
#define SERVICE_GROW 1
#define SERVICE_MAP 2
#define SERVICE_CPU_START 3
#define SERVICE_HALT 4
#define SERVICE_WAKE 5
#define SERVICE_UNPACKED 6

/* Ports that ring 3 may use; every other one faults. */
#define PORT_EXIT 0xf4
#define PORT_COM1 0x3f8
#define PORT_PCI 0xcf8
#define PORT_HOTPLUG_Q35 0xcc0
#define PORT_HOTPLUG_PC 0xae00
#define PORTS_HOTPLUG 20
#define IO_BITMAP_PORTS 0xae18

#endif
