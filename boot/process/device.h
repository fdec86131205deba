/*
 * The machine that the process host shows to the driver: ACPI tables, an I/O APIC, and a virtio-net
 * function on PCI bus 0 for each backend, whose registers are translated to vhost-user messages.
 * The addresses that the driver reads and writes are physical ones:
 *
 *   0x000e0000  ACPI: root pointer, RSDT, MADT (read only)
 *   0xfe000000  BAR 0 of NIC 0, and BAR_SPACING further that of NIC 1
 *       + 0x0000  common configuration     + 0x1000  ISR     + 0x2000  device configuration
 *       + 0x3000  notification, 4 bytes a queue              + 0x4000  MSI-X table and pending bits
 *   0xfec00000  I/O APIC: select and window
 *
 * Called by the machine interface (host.h), which treats all of it as slow but the doorbell.
 */
#ifndef VIREO_PROCESS_DEVICE_H
#define VIREO_PROCESS_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "memory.h"
#include "vhost-user.h"

#define ACPI_BASE 0xe0000
#define BAR_BASE 0xfe000000
#define BAR_SPACING 0x10000
#define NICS_MAX 2 /* app=forward wants two, and nothing else more than one */
#define NOTIFY_OFFSET 0x3000
#define NOTIFY_MULTIPLIER 4
/* Of a NIC: receive and transmit. The control queue is the front end's, and there is none. */
#define QUEUES 2

typedef struct {
    uint8_t mac[6]; /* of NIC 0; that of NIC 1 is the next one */
    uint32_t queue_size;
} DeviceOptions;

/* How often each vector's interrupt arrived; read by the driver through interruptCount. */
extern uint32_t interrupt_counts[256];

/* Puts the next NIC into the machine. Its backend is connected already; memory is mapped. */
void device_open(VhostUser *backend, const LinearMemory *memory, const DeviceOptions *options);

/* Takes the rings back if the driver has not; before the process ends. */
void device_close(void);

/* Whether `bytes` at a physical address are part of the machine; else nothing can be mapped. */
bool device_has(uint64_t physical, uint32_t bytes);

uint32_t device_read(uint32_t physical, uint32_t bytes);
void device_write(uint32_t physical, uint32_t bytes, uint32_t value);

/* Configuration mechanism 1: ports 0xcf8 and 0xcfc. */
uint32_t pci_port_read(uint32_t port);
void pci_port_write(uint32_t port, uint32_t value);

/* The eventfd that the backend of a NIC interrupts queue `index` with; -1 while there is none. */
int device_call_fd(uint32_t nic, uint32_t index);

/* The backend of a NIC has interrupted queue `index`, or a console line has come. */
void device_interrupt(uint32_t nic, uint32_t index);
void device_console_interrupt(void);

#endif
