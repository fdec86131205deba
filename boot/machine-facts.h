/*
 * What ring 0 found out about the machine, and what it knows of a crash. Written by ring0.c,
 * read by ring 3 (host.c, machine.h), which cannot change it.
 */
#ifndef VIREO_MACHINE_FACTS_H
#define VIREO_MACHINE_FACTS_H

#include <stdint.h>

#define COMMAND_LINE_BYTES 2048

typedef struct {
    uint64_t boot_tsc;           /* time stamp counter at entry */
    uint64_t acpi_root;          /* physical address of the RSDP, 0 if the loader gave none */
    uint64_t memory_end;         /* end of the usable RAM range that starts at 1 MiB */
    uint32_t tsc_khz;            /* rate of the time stamp counter */
    uint32_t command_line_bytes; /* length without the final 0, even if it was cut */
    char command_line[COMMAND_LINE_BYTES];
} MachineFacts;

/* Why a CPU is about to panic; at the start of its CPU_INSTANCE page. */
typedef struct {
    uint32_t active; /* set once: a second exception while reporting only exits */
    uint32_t vector;
    uint64_t error;
    uint64_t rip;
    uint64_t address; /* cr2 */
} ExceptionRecord;

#define INSTANCE_OFFSET 64

/* The page at CPU_INTERRUPTS: counted by traps.S, read by ring 3; facts about this CPU behind it.
 */
typedef struct {
    uint32_t count[256]; /* interrupts of each vector since boot, modulo 2^32 */
    uint32_t total;      /* their sum: what a CPU that wants to sleep compares */
    uint32_t cpu;
    uint64_t arena_physical, arena_bytes;
    uint8_t unused[4096 - 0x418];
} InterruptPage;

extern MachineFacts machine_facts;

#endif
