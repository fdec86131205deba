/*
 * Registers of the process host's machine (device.h): what the driver writes is kept, and becomes
 * vhost-user messages when it sets DRIVER_OK or resets the device.
 */
#include "device.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "registers.h"
#include "report.h"

/* Of mechanism 1's address: enabled, bus 0, function 0 of devices 1 and up, one a NIC. */
#define FUNCTION 0x80000800
#define FUNCTION_SPACING 0x800
#define PORT_ADDRESS 0xcf8
#define PORT_DATA 0xcfc
#define REGISTER_COMMAND 0x04
#define REGISTER_BAR 0x10
#define COMMAND_BITS 0x406

#define IO_APIC_BASE 0xfec00000
#define IO_APIC_BYTES 0x20
#define IO_APIC_WINDOW 0x10
#define IO_APIC_CONSOLE (0x10 + 2 * 4) /* input 4, low word */

/* Offloads, merged buffers, indirect descriptors, event index, version 1, packed ring, in order. */
#define FEATURES_PASSED_ON                                                              \
    (0x1ULL << 0 | 0x1ULL << 1 | 0xfULL << 7 | 0xfULL << 11 | 1ULL << 15 | 1ULL << 28 | \
     1ULL << 29 | 1ULL << 32 | 1ULL << 34 | 1ULL << 35 | 1ULL << 54 | 1ULL << 55 | 1ULL << 56)
#define F_MAC (1ULL << 5)
#define F_STATUS (1ULL << 16)
#define LINK_UP 1

typedef struct {
    uint32_t size, vector, enabled;
    uint32_t address[6]; /* desc, driver, device; low and high words */
} Queue;

/* Everything that a reset of the device sets back. */
typedef struct {
    uint32_t status, feature_select, accept_select, queue_select, config_vector;
    uint32_t accepted[2];
    Queue queues[QUEUES];
} Registers;

/* A NIC: its function in configuration space, its registers, its backend. */
typedef struct {
    VhostUser *backend;
    uint64_t offered;
    uint32_t queue_size;
    int kick_fds[QUEUES], call_fds[QUEUES]; /* eventfds; they wake the backend, and us */
    Registers registers;
    bool started;
    uint32_t command, bar;
    uint32_t msix_table[MSIX_ENTRIES * 4];
    uint8_t config[DEVICE_BYTES];
} Nic;

uint32_t interrupt_counts[256];

static Nic nics[NICS_MAX];
static uint32_t nic_count;
static const LinearMemory *memory;
static uint32_t pci_address;
static uint32_t io_apic_select, console_vector;
static uint8_t acpi_tables[ACPI_BYTES];

static void reset_registers(Nic *nic) {
    nic->registers = (Registers){.config_vector = NO_VECTOR};
    for (uint32_t i = 0; i < QUEUES; i++)
        nic->registers.queues[i] = (Queue){.size = nic->queue_size, .vector = NO_VECTOR};
}

static int make_eventfd(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) fail_setup("no eventfd can be made: %s", strerror(errno));
    return fd;
}

void device_open(VhostUser *peer, const LinearMemory *linear, const DeviceOptions *options) {
    Nic *nic = &nics[nic_count];
    memory = linear;
    nic->backend = peer;
    nic->queue_size = options->queue_size;
    nic->offered = (peer->features & FEATURES_PASSED_ON) | F_MAC | F_STATUS;
    nic->bar = BAR_BASE + nic_count * BAR_SPACING;
    memcpy(nic->config, options->mac, sizeof options->mac);
    nic->config[5] = (uint8_t)(nic->config[5] + nic_count);
    nic->config[6] = LINK_UP;
    nic->config[8] = QUEUES / 2;
    acpi_build(acpi_tables);
    for (uint32_t i = 0; i < QUEUES; i++) {
        nic->kick_fds[i] = make_eventfd();
        nic->call_fds[i] = make_eventfd();
    }
    reset_registers(nic);
    nic_count++;
}

/* ---- what becomes of the registers -----------------------------------------------------------
 */

static uint64_t wide(const uint32_t words[2]) {
    return (uint64_t)words[1] << 32 | words[0];
}

static void start_backend(Nic *nic) {
    const Registers *registers = &nic->registers;
    Vring rings[QUEUES];
    for (uint32_t i = 0; i < QUEUES; i++) {
        const Queue *queue = &registers->queues[i];
        if (!queue->enabled) fail_run("the driver has not set up queue %u", i);
        rings[i] = (Vring){.size = queue->size,
                           .desc = wide(queue->address),
                           .driver = wide(queue->address + 2),
                           .device = wide(queue->address + 4),
                           .kick = nic->kick_fds[i],
                           .call = queue->vector == NO_VECTOR ? -1 : nic->call_fds[i]};
    }
    /* The address and the link are ours to tell; the backend does not know of them. */
    uint64_t features = wide(registers->accepted) & ~(F_MAC | F_STATUS);
    vhost_user_start(nic->backend, features, memory, rings, QUEUES);
    nic->started = true;
}

static void stop_backend(Nic *nic) {
    if (nic->started) vhost_user_stop(nic->backend, QUEUES);
    nic->started = false;
}

void device_close(void) {
    for (uint32_t i = 0; i < nic_count; i++) stop_backend(&nics[i]);
}

static void write_status(Nic *nic, uint32_t value) {
    if (value == 0) {
        stop_backend(nic);
        reset_registers(nic);
        return;
    }
    bool refused = (wide(nic->registers.accepted) & ~nic->offered) != 0;
    if (refused) value &= ~(uint32_t)STATUS_FEATURES_OK;
    bool starts = (value & STATUS_DRIVER_OK) && !nic->started;
    nic->registers.status = value;
    if (starts) start_backend(nic);
}

/* ---- common configuration --------------------------------------------------------------------
 */

static uint32_t read_common(const Nic *nic, uint32_t offset) {
    const Registers *registers = &nic->registers;
    static const Queue none = {.vector = NO_VECTOR};
    uint32_t index = registers->queue_select;
    const Queue *queue = index < QUEUES ? &registers->queues[index] : &none;
    switch (offset) {
        case DEVICE_FEATURE:
            return registers->feature_select < 2
                       ? (uint32_t)(nic->offered >> 32 * registers->feature_select)
                       : 0;
        case CONFIG_MSIX_VECTOR: return registers->config_vector;
        case NUM_QUEUES: return QUEUES;
        case DEVICE_STATUS: return registers->status;
        case QUEUE_SIZE: return queue->size;
        case QUEUE_MSIX_VECTOR: return queue->vector;
        case QUEUE_ENABLE: return queue->enabled;
        case QUEUE_NOTIFY_OFF: return index;
        default: return 0;
    }
}

static void write_queue(Registers *registers, uint32_t offset, uint32_t value) {
    if (registers->queue_select >= QUEUES) return;
    Queue *queue = &registers->queues[registers->queue_select];
    switch (offset) {
        case QUEUE_SIZE: queue->size = value; return;
        case QUEUE_MSIX_VECTOR: queue->vector = value < MSIX_ENTRIES ? value : NO_VECTOR; return;
        case QUEUE_ENABLE: queue->enabled = value; return;
        default: break;
    }
    if (offset >= QUEUE_DESC && offset < COMMON_BYTES)
        queue->address[(offset - QUEUE_DESC) / 4] = value;
}

static void write_common(Nic *nic, uint32_t offset, uint32_t value) {
    Registers *registers = &nic->registers;
    switch (offset) {
        case DEVICE_FEATURE_SELECT: registers->feature_select = value; return;
        case DRIVER_FEATURE_SELECT: registers->accept_select = value; return;
        case DRIVER_FEATURE:
            if (registers->accept_select < 2) registers->accepted[registers->accept_select] = value;
            return;
        case CONFIG_MSIX_VECTOR:
            registers->config_vector = value < MSIX_ENTRIES ? value : NO_VECTOR;
            return;
        case DEVICE_STATUS: write_status(nic, value); return;
        case QUEUE_SELECT: registers->queue_select = value; return;
        default: write_queue(registers, offset, value);
    }
}

/* ---- the address space -----------------------------------------------------------------------
 */

static bool lies_in(uint64_t at, uint64_t bytes, uint64_t base, uint64_t length) {
    return at >= base && at - base < length && bytes <= length - (at - base);
}

/* The NIC whose BAR holds these bytes, and where in it; NULL where there is none. */
static Nic *nic_at(uint64_t physical, uint32_t bytes, uint32_t *offset) {
    if (!lies_in(physical, bytes, BAR_BASE, (uint64_t)nic_count * BAR_SPACING)) return NULL;
    *offset = (uint32_t)(physical - BAR_BASE) % BAR_SPACING;
    return lies_in(*offset, bytes, 0, BAR_BYTES) ? &nics[(physical - BAR_BASE) / BAR_SPACING]
                                                 : NULL;
}

bool device_has(uint64_t physical, uint32_t bytes) {
    uint32_t offset;
    return lies_in(physical, bytes, ACPI_BASE, ACPI_BYTES) ||
           nic_at(physical, bytes, &offset) != NULL ||
           lies_in(physical, bytes, IO_APIC_BASE, IO_APIC_BYTES);
}

static uint32_t read_bytes(const uint8_t *from, uint32_t bytes) {
    uint32_t value = 0;
    memcpy(&value, from, bytes);
    return value;
}

uint32_t device_read(uint32_t physical, uint32_t bytes) {
    uint32_t offset;
    if (lies_in(physical, bytes, ACPI_BASE, ACPI_BYTES))
        return read_bytes(acpi_tables + (physical - ACPI_BASE), bytes);
    const Nic *nic = nic_at(physical, bytes, &offset);
    if (nic == NULL) return 0;
    if (offset < COMMON_BYTES) return read_common(nic, offset);
    if (lies_in(offset, bytes, DEVICE_OFFSET, DEVICE_BYTES))
        return read_bytes(nic->config + (offset - DEVICE_OFFSET), bytes);
    if (lies_in(offset, bytes, MSIX_OFFSET, sizeof nic->msix_table))
        return nic->msix_table[(offset - MSIX_OFFSET) / 4];
    return 0;
}

/* The console's input is the only one that is led anywhere. */
static void write_io_apic(uint32_t offset, uint32_t value) {
    if (offset == 0) io_apic_select = value;
    if (offset == IO_APIC_WINDOW && io_apic_select == IO_APIC_CONSOLE) console_vector = value & 255;
}

static void ring_doorbell(const Nic *nic, uint32_t index) {
    uint64_t one = 1;
    /* A counter that is full already wakes the backend as well. */
    if (write(nic->kick_fds[index], &one, sizeof one) < 0 && errno != EAGAIN)
        fail_run("the doorbell of queue %u cannot be rung: %s", index, strerror(errno));
}

void device_write(uint32_t physical, uint32_t bytes, uint32_t value) {
    uint32_t offset;
    if (lies_in(physical, bytes, IO_APIC_BASE, IO_APIC_BYTES))
        write_io_apic(physical - IO_APIC_BASE, value);
    Nic *nic = nic_at(physical, bytes, &offset);
    if (nic == NULL) return;
    if (offset < COMMON_BYTES)
        write_common(nic, offset, value);
    else if (lies_in(offset, bytes, NOTIFY_OFFSET, QUEUES * NOTIFY_MULTIPLIER))
        ring_doorbell(nic, (offset - NOTIFY_OFFSET) / NOTIFY_MULTIPLIER);
    else if (lies_in(offset, bytes, MSIX_OFFSET, sizeof nic->msix_table))
        nic->msix_table[(offset - MSIX_OFFSET) / 4] = value;
}

/* ---- configuration space ---------------------------------------------------------------------
 */

/* The NIC that the address port names; NULL for a function that is not there. */
static Nic *selected_nic(void) {
    uint32_t function = pci_address & ~0xffu;
    for (uint32_t i = 0; i < nic_count; i++)
        if (function == FUNCTION + i * FUNCTION_SPACING) return &nics[i];
    return NULL;
}

uint32_t pci_port_read(uint32_t port) {
    uint32_t offset = pci_address & 0xfc;
    const Nic *nic = selected_nic();
    if (port != PORT_DATA || nic == NULL) return UINT32_MAX;
    if (offset == REGISTER_BAR) return nic->bar;
    return config_space[offset / 4] | (offset == REGISTER_COMMAND ? nic->command : 0);
}

void pci_port_write(uint32_t port, uint32_t value) {
    uint32_t offset = pci_address & 0xfc;
    if (port == PORT_ADDRESS) pci_address = value;
    Nic *nic = selected_nic();
    if (port != PORT_DATA || nic == NULL) return;
    if (offset == REGISTER_BAR) nic->bar = value & ~(uint32_t)(BAR_BYTES - 1);
    if (offset == REGISTER_COMMAND) nic->command = value & COMMAND_BITS;
}

/* ---- interrupts ------------------------------------------------------------------------------
 */

int device_call_fd(uint32_t number, uint32_t index) {
    const Nic *nic = &nics[number];
    bool calls = nic->started && nic->registers.queues[index].vector != NO_VECTOR;
    return calls ? nic->call_fds[index] : -1;
}

void device_interrupt(uint32_t number, uint32_t index) {
    const Nic *nic = &nics[number];
    uint64_t count;
    if (read(nic->call_fds[index], &count, sizeof count) != sizeof count) return;
    const uint32_t *entry = &nic->msix_table[nic->registers.queues[index].vector * 4];
    bool masked = (entry[3] & 1) != 0;
    if (!masked) interrupt_counts[entry[2] & 255]++;
}

void device_console_interrupt(void) {
    interrupt_counts[console_vector]++;
}
