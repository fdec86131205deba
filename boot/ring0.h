/*
 * What the ring-0 files share: the CPU's block, page table bits, register access, and the record
 * through which ring 0 tells ring 3 about the machine. Included by ring0.c and services.c.
 */
#ifndef VIREO_RING0_H
#define VIREO_RING0_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "machine-facts.h"

#define PAGE 4096
#define LARGE_PAGE 0x200000

#define PTE_PRESENT 1ULL
#define PTE_WRITE 2ULL
#define PTE_USER 4ULL
#define PTE_UNCACHED 0x18ULL /* PCD, PWT */
#define PTE_LARGE 0x80ULL
#define PTE_NX (1ULL << 63)

/*
 * A CPU's block, CPU_BLOCK_BYTES long, page-aligned, each member a whole number of pages:
 *
 *   pml4, pdpt, low    page tables of this CPU; `low` maps 0..1 GiB, so the arena as well
 *   region             maps CPU_REGION: the pages below, the local APIC
 *   interrupts         counters, CPU index, arena's physical address (ring 3 reads them)
 *   tables             GDT and TSS with I/O bitmap
 *   stack, ist         ring-0 stacks
 *   instance           the Wasm instance (ring 3)
 *   user, panic        ring-3 stacks
 */
typedef struct {
    uint64_t pml4[512];
    uint64_t pdpt[512];
    uint64_t low[512];
    uint64_t region[512];
    InterruptPage interrupts;
    uint8_t tables[CPU_TABLES_BYTES];
    uint8_t stack[PAGE];
    uint8_t ist[PAGE];
    uint8_t instance[PAGE];
    uint8_t user[CPU_USER_STACK_BYTES];
    uint8_t panic[CPU_PANIC_STACK_BYTES];
} CpuBlock;

_Static_assert(sizeof(InterruptPage) == PAGE && offsetof(InterruptPage, total) == INTERRUPT_TOTAL,
               "traps.S and InterruptPage disagree");
_Static_assert(sizeof(CpuBlock) <= CPU_BLOCK_BYTES, "a CPU's block has outgrown its place");

/* Where a CPU's memory is. `next` holds the CPU that is being started. */
typedef struct {
    CpuBlock *block; /* in the direct map, or the image */
    uint64_t block_physical;
    uint64_t arena_physical;
    uint64_t arena_bytes;
    uint32_t index;
} CpuMemory;

extern CpuMemory next_cpu;
extern volatile uint32_t cpus_started;
extern uint64_t mmio_tables[MMIO_BYTES / LARGE_PAGE][512];

void build_cpu(const CpuMemory *cpu);
uint64_t seal_image(void);
void lapic_enable(void);
uint32_t measure_tsc_khz(void);
uint64_t handle_service(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                        uint64_t number);

static inline uint64_t read_tsc(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static inline uint32_t lapic_read(uint32_t offset) {
    return *(volatile uint32_t *)(uintptr_t)(CPU_LAPIC + offset);
}

static inline void lapic_write(uint32_t offset, uint32_t value) {
    *(volatile uint32_t *)(uintptr_t)(CPU_LAPIC + offset) = value;
}

/* The physical address of something in the image, which is mapped where it was loaded. */
static inline uint64_t image_physical(const void *pointer) {
    return (uint64_t)(uintptr_t)pointer;
}

#endif
