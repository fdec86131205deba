/*
 * The machine interface of kernel/machine.ts in the guest, as inline functions in the translation
 * unit of the generated code: an MMIO write, a barrier or a pause is one instruction there.
 * Included by host.c before the generated code. Runs in ring 3.
 */
#ifndef VIREO_MACHINE_H
#define VIREO_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "machine-facts.h"

struct w2c_machine;
typedef struct w2c_machine Machine;

/* Names that wasm2c gives to the imports of module "machine". */
#define IMPORT(name) w2c_machine_##name
#define MAILBOX_WORDS (CPUS_MAX * 1024)

#define OWN_CPU ((const InterruptPage *)CPU_INTERRUPTS)

extern volatile uint32_t mailbox[MAILBOX_WORDS];
/* Calls a service of ring 0 (layout.h). In host.c, in assembly. */
uint64_t call_ring0(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t service);
void console_write(const char *text, uint32_t bytes);
int32_t console_read(void);
_Noreturn void machine_exit(uint32_t status, const char *last_line, uint32_t bytes);
_Noreturn void machine_panic(const uint16_t *message, uint32_t characters);

/* Device memory. The window is 4 GiB wide and only what was mapped in it is there. */

#define MMIO(type, address) (*(volatile type *)(MMIO_BASE + (uint64_t)(address)))

static inline uint32_t IMPORT(mapDevice)(Machine *m, uint64_t physical, uint32_t bytes) {
    return (uint32_t)call_ring0(physical, bytes, 0, 0, 0, SERVICE_MAP);
}
static inline uint32_t IMPORT(mmioRead8)(Machine *m, uint32_t address) {
    return MMIO(uint8_t, address);
}
static inline uint32_t IMPORT(mmioRead16)(Machine *m, uint32_t address) {
    return MMIO(uint16_t, address);
}
static inline uint32_t IMPORT(mmioRead32)(Machine *m, uint32_t address) {
    return MMIO(uint32_t, address);
}
static inline void IMPORT(mmioWrite8)(Machine *m, uint32_t address, uint32_t value) {
    MMIO(uint8_t, address) = (uint8_t)value;
}
static inline void IMPORT(mmioWrite16)(Machine *m, uint32_t address, uint32_t value) {
    MMIO(uint16_t, address) = (uint16_t)value;
}
static inline void IMPORT(mmioWrite32)(Machine *m, uint32_t address, uint32_t value) {
    MMIO(uint32_t, address) = value;
}

/* Ports. One that the I/O bitmap forbids faults, and that is a panic. */

static inline uint32_t port_read8(uint32_t port) {
    uint8_t value;
    __asm__ volatile("inb %w1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline void port_write8(uint32_t port, uint32_t value) {
    __asm__ volatile("outb %b0, %w1" ::"a"(value), "Nd"(port));
}
static inline uint32_t IMPORT(portRead32)(Machine *m, uint32_t port) {
    uint32_t value;
    __asm__ volatile("inl %w1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline void IMPORT(portWrite32)(Machine *m, uint32_t port, uint32_t value) {
    __asm__ volatile("outl %0, %w1" ::"a"(value), "Nd"(port));
}

/* Memory shared with a device. */

#include "shared-memory.h"

static inline uint64_t IMPORT(dmaBase)(Machine *m) {
    return OWN_CPU->arena_physical;
}
static inline void IMPORT(fullBarrier)(Machine *m) {
    /* A locked instruction would be faster, but TCG with one CPU turns it into a plain one. */
    __asm__ volatile("mfence" ::: "memory");
}

/* CPUs, interrupts, time. */

static inline uint32_t IMPORT(cpuIndex)(Machine *m) {
    return OWN_CPU->cpu;
}
static inline uint64_t IMPORT(memoryEnd)(Machine *m) {
    return machine_facts.memory_end;
}
static inline uint32_t IMPORT(cpuStart)(Machine *m, uint32_t index, uint32_t apic_id,
                                        uint64_t block, uint64_t arena, uint64_t arena_bytes) {
    return (uint32_t)call_ring0(index, apic_id, block, arena, arena_bytes, SERVICE_CPU_START);
}
static inline uint32_t IMPORT(mailboxRead)(Machine *m, uint32_t word) {
    return mailbox[word % MAILBOX_WORDS];
}
static inline void IMPORT(mailboxWrite)(Machine *m, uint32_t word, uint32_t value) {
    mailbox[word % MAILBOX_WORDS] = value;
}
static inline void IMPORT(wake)(Machine *m, uint32_t apic_id) {
    call_ring0(apic_id, 0, 0, 0, 0, SERVICE_WAKE);
}
static inline uint32_t IMPORT(interruptCount)(Machine *m, uint32_t vector) {
    return ((volatile InterruptPage *)OWN_CPU)->count[vector & 255];
}
static inline uint32_t interrupt_total(void) {
    return ((volatile InterruptPage *)OWN_CPU)->total;
}
static inline uint64_t IMPORT(tsc)(Machine *m) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}
static inline uint32_t IMPORT(tscKhz)(Machine *m) {
    return machine_facts.tsc_khz;
}
static inline uint64_t IMPORT(bootTsc)(Machine *m) {
    return machine_facts.boot_tsc;
}
static inline void IMPORT(pause)(Machine *m) {
    __builtin_ia32_pause();
}

/* Firmware, console, end. */

static inline uint64_t IMPORT(acpiRoot)(Machine *m) {
    return machine_facts.acpi_root;
}
static inline uint32_t IMPORT(commandLine)(Machine *m, uint32_t pointer, uint32_t capacity) {
    uint32_t bytes = machine_facts.command_line_bytes;
    char *to = (char *)linear(pointer);
    for (uint32_t i = 0; i < bytes && i < capacity && i < COMMAND_LINE_BYTES; i++)
        to[i] = machine_facts.command_line[i];
    return bytes;
}
static inline void IMPORT(consoleWrite)(Machine *m, uint32_t pointer, uint32_t bytes) {
    console_write(linear(pointer), bytes);
}
static inline uint32_t IMPORT(consoleRead)(Machine *m) {
    return (uint32_t)console_read();
}
static inline uint64_t IMPORT(entropy)(Machine *m) {
    uint64_t x = IMPORT(tsc)(m) ^ IMPORT(dmaBase)(m) << 32 ^ 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}
static inline void IMPORT(exit)(Machine *m, uint32_t status, uint32_t pointer, uint32_t bytes) {
    machine_exit(status, linear(pointer), bytes);
}
static inline void IMPORT(panic)(Machine *m, uint32_t message, uint32_t characters) {
    machine_panic((const uint16_t *)linear(message), characters);
}

#endif
