/*
 * The numbers that device.c and acpi.c answer with: PCI configuration space and virtio's common
 * configuration, by the names of virtio 1.4 §4.1.4.
 */
#ifndef VIREO_PROCESS_REGISTERS_H
#define VIREO_PROCESS_REGISTERS_H

#include <stdint.h>

#define CONFIG_WORDS 64
#define BAR_BYTES 0x8000
#define COMMON_OFFSET 0x0000
#define COMMON_BYTES 56
#define ISR_OFFSET 0x1000
#define DEVICE_OFFSET 0x2000
#define DEVICE_BYTES 12
#define MSIX_OFFSET 0x4000
#define MSIX_PENDING_OFFSET 0x4800
#define MSIX_ENTRIES 3

/* Offsets in the common configuration structure. */
enum {
    DEVICE_FEATURE_SELECT = 0,
    DEVICE_FEATURE = 4,
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    CONFIG_MSIX_VECTOR = 16,
    NUM_QUEUES = 18,
    DEVICE_STATUS = 20,
    CONFIG_GENERATION = 21,
    QUEUE_SELECT = 22,
    QUEUE_SIZE = 24,
    QUEUE_MSIX_VECTOR = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30,
    QUEUE_DESC = 32,
    QUEUE_DRIVER = 40,
    QUEUE_DEVICE = 48,
};

#define STATUS_FEATURES_OK 8
#define STATUS_DRIVER_OK 4
#define NO_VECTOR 0xffff

/* The whole of configuration space at reset: identity, BAR, capability list. In config-space.c. */
extern const uint32_t config_space[CONFIG_WORDS];

/* ACPI tables for one CPU and one I/O APIC. In acpi.c. */
#define ACPI_BYTES 256
void acpi_build(uint8_t tables[ACPI_BYTES]);

#endif
