/*
 * The machine interface of kernel/machine.ts in a Linux process, as inline functions in the
 * translation unit of the generated code. Included by main.c before the generated code; the guest's
 * is boot/machine.h. What a device shares is the same in both, but for the full barrier.
 */
#ifndef VIREO_PROCESS_HOST_H
#define VIREO_PROCESS_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <x86intrin.h>

#include "device.h"
#include "events.h"
#include "memory.h"
#include "report.h"

struct w2c_machine;
typedef struct w2c_machine Machine;

/* Names that wasm2c gives to the imports of module "machine". */
#define IMPORT(name) w2c_machine_##name

/* What RAM begins with is the image's in the guest; the driver counts its arena from here on. */
#define ARENA_BASE 0x200000
#define MAILBOX_WORDS 1024

extern const char *command_line;
extern uint64_t arena_bytes;
extern uint32_t mailbox[MAILBOX_WORDS];
_Noreturn void machine_exit(uint32_t status, const char *last_line, uint32_t bytes);
_Noreturn void machine_panic(const uint16_t *message, uint32_t characters);

/* Device memory: the window's addresses are the physical ones. */

static inline uint32_t IMPORT(mapDevice)(Machine *m, uint64_t physical, uint32_t bytes) {
    return device_has(physical, bytes) ? (uint32_t)physical + 1 : 0;
}
static inline uint32_t IMPORT(mmioRead8)(Machine *m, uint32_t address) {
    return device_read(address, 1);
}
static inline uint32_t IMPORT(mmioRead16)(Machine *m, uint32_t address) {
    return device_read(address, 2);
}
static inline uint32_t IMPORT(mmioRead32)(Machine *m, uint32_t address) {
    return device_read(address, 4);
}
static inline void IMPORT(mmioWrite8)(Machine *m, uint32_t address, uint32_t value) {
    device_write(address, 1, (uint8_t)value);
}
static inline void IMPORT(mmioWrite16)(Machine *m, uint32_t address, uint32_t value) {
    device_write(address, 2, (uint16_t)value);
}
static inline void IMPORT(mmioWrite32)(Machine *m, uint32_t address, uint32_t value) {
    device_write(address, 4, value);
}
static inline uint32_t IMPORT(portRead32)(Machine *m, uint32_t port) {
    return pci_port_read(port);
}
static inline void IMPORT(portWrite32)(Machine *m, uint32_t port, uint32_t value) {
    pci_port_write(port, value);
}

/* Memory shared with a device. */

#include "shared-memory.h"

static inline uint64_t IMPORT(dmaBase)(Machine *m) {
    return LINEAR_BASE;
}
static inline void IMPORT(fullBarrier)(Machine *m) {
    /* Nothing emulates us here, so the cheaper of the two instructions will do. */
    __asm__ volatile("lock orl $0, -64(%%rsp)" ::: "memory", "cc");
}

/* CPUs, interrupts, time. There is one CPU. */

static inline uint32_t IMPORT(cpuIndex)(Machine *m) {
    return 0;
}
static inline uint64_t IMPORT(memoryEnd)(Machine *m) {
    return ARENA_BASE + arena_bytes;
}
static inline uint32_t IMPORT(cpuStart)(Machine *m, uint32_t index, uint32_t apic_id,
                                        uint64_t block, uint64_t arena, uint64_t bytes) {
    return 0;
}
static inline void IMPORT(wake)(Machine *m, uint32_t apic_id) {
    (void)apic_id;
}
static inline uint32_t IMPORT(mailboxRead)(Machine *m, uint32_t word) {
    return mailbox[word % MAILBOX_WORDS];
}
static inline void IMPORT(mailboxWrite)(Machine *m, uint32_t word, uint32_t value) {
    mailbox[word % MAILBOX_WORDS] = value;
}
static inline uint32_t IMPORT(interruptCount)(Machine *m, uint32_t vector) {
    return interrupt_counts[vector & 255];
}
static inline uint64_t IMPORT(tsc)(Machine *m) {
    return __rdtsc();
}
static inline uint32_t IMPORT(tscKhz)(Machine *m) {
    return tsc_khz;
}
static inline uint64_t IMPORT(bootTsc)(Machine *m) {
    return boot_tsc;
}
static inline void IMPORT(pause)(Machine *m) {
    __builtin_ia32_pause();
}

/* Firmware, console, end. */

static inline uint64_t IMPORT(acpiRoot)(Machine *m) {
    return ACPI_BASE;
}
static inline uint32_t IMPORT(commandLine)(Machine *m, uint32_t pointer, uint32_t capacity) {
    uint32_t bytes = (uint32_t)strlen(command_line);
    memcpy((char *)linear(pointer), command_line, bytes < capacity ? bytes : capacity);
    return bytes;
}
static inline void IMPORT(consoleWrite)(Machine *m, uint32_t pointer, uint32_t bytes) {
    write_console(linear(pointer), bytes);
}
static inline uint32_t IMPORT(consoleRead)(Machine *m) {
    return (uint32_t)console_read();
}
static inline uint64_t IMPORT(entropy)(Machine *m) {
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof bits, 0) != sizeof bits)
        fail_run("the kernel gives no random bits");
    return bits;
}
static inline void IMPORT(exit)(Machine *m, uint32_t status, uint32_t pointer, uint32_t bytes) {
    machine_exit(status, linear(pointer), bytes);
}
static inline void IMPORT(panic)(Machine *m, uint32_t message, uint32_t characters) {
    machine_panic((const uint16_t *)linear(message), characters);
}

#endif
