/*
 * PCI configuration space of the process host's virtio-net functions, as words. Read by device.c,
 * which knows the BAR.
 * virtio 1.4 §4.1.2, §4.1.4
 *
 *   0x40 common | 0x50 ISR | 0x60 device | 0x70 notification | 0x84 MSI-X
 *
 * A virtio capability: id 9 | next | length | type, then BAR 0, offset, length.
 */
#include "device.h"
#include "registers.h"

#define VENDOR_CAPABILITY(type, next, bytes) \
    (0x09 | (next) << 8 | (bytes) << 16 | (uint32_t)(type) << 24)

const uint32_t config_space[CONFIG_WORDS] = {
    [0x00 / 4] = 0x10411af4,
    [0x04 / 4] = 0x00100000, /* status: there is a capability list */
    [0x08 / 4] = 0x02000001, /* Ethernet controller, revision 1 */
    [0x34 / 4] = 0x40,
    [0x40 / 4] = VENDOR_CAPABILITY(1, 0x50, 16),
    [0x48 / 4] = COMMON_OFFSET,
    [0x4c / 4] = COMMON_BYTES,
    [0x50 / 4] = VENDOR_CAPABILITY(3, 0x60, 16),
    [0x58 / 4] = ISR_OFFSET,
    [0x5c / 4] = 1,
    [0x60 / 4] = VENDOR_CAPABILITY(4, 0x70, 16),
    [0x68 / 4] = DEVICE_OFFSET,
    [0x6c / 4] = DEVICE_BYTES,
    [0x70 / 4] = VENDOR_CAPABILITY(2, 0x84, 20),
    [0x78 / 4] = NOTIFY_OFFSET,
    [0x7c / 4] = QUEUES * NOTIFY_MULTIPLIER,
    [0x80 / 4] = NOTIFY_MULTIPLIER,
    [0x84 / 4] = 0x11 | (MSIX_ENTRIES - 1) << 16,
    [0x88 / 4] = MSIX_OFFSET,
    [0x8c / 4] = MSIX_PENDING_OFFSET,
};
