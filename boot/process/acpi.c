/*
 * The few ACPI tables that kernel/acpi.ts reads: root pointer, RSDT, and a MADT with one CPU and
 * one I/O APIC. Called by device.c, once.
 *
 *   0 root pointer 36 | 64 RSDT 40 | 128 MADT 64
 */
#include <string.h>

#include "device.h"
#include "registers.h"

#define RSDT_AT 64
#define RSDT_BYTES 40
#define MADT_AT 128
#define MADT_BYTES 64
#define ROOT_SUM_BYTES 20 /* revision 0 */
#define SUM_AT 9
#define ROOT_SUM_AT 8
#define IO_APIC_BASE 0xfec00000
#define LOCAL_APIC_BASE 0xfee00000

static void put32(uint8_t *at, uint32_t value) {
    memcpy(at, &value, sizeof value);
}

static void balance(uint8_t *table, uint32_t bytes, uint32_t sum_at) {
    uint8_t sum = 0;
    for (uint32_t i = 0; i < bytes; i++) sum = (uint8_t)(sum + table[i]);
    table[sum_at] = (uint8_t)-sum;
}

static void build_table(uint8_t *table, const char *signature, uint32_t bytes) {
    memcpy(table, signature, 4);
    put32(table + 4, bytes);
    table[8] = 1;
}

void acpi_build(uint8_t tables[ACPI_BYTES]) {
    memset(tables, 0, ACPI_BYTES);
    memcpy(tables, "RSD PTR ", 8);
    put32(tables + 16, ACPI_BASE + RSDT_AT);
    balance(tables, ROOT_SUM_BYTES, ROOT_SUM_AT);
    uint8_t *rsdt = tables + RSDT_AT, *madt = tables + MADT_AT;
    build_table(rsdt, "RSDT", RSDT_BYTES);
    put32(rsdt + 36, ACPI_BASE + MADT_AT);
    balance(rsdt, RSDT_BYTES, SUM_AT);
    build_table(madt, "APIC", MADT_BYTES);
    put32(madt + 36, LOCAL_APIC_BASE);
    madt[44] = 0; /* a local APIC: length, processor, id, flags (enabled) */
    madt[45] = 8;
    madt[48] = 1;
    madt[52] = 1; /* an I/O APIC: length, id, address, first input */
    madt[53] = 12;
    put32(madt + 56, IO_APIC_BASE);
    balance(madt, MADT_BYTES, SUM_AT);
}
