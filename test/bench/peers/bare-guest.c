/*
 * The bare C guest: as little as a polling driver can do on a ring, so the limit of the hardware
 * and the emulator underneath. It boots on the image's own ring-0 objects and stands in the place
 * of boot/host.c. Built by tools/bench-peers.ts, run by tools/bench.ts; the command line is `tx` or
 * `rx`, `packed` or `split`, and `in-order` or nothing. It knows one device (the first virtio-net
 * function on bus 0, whose BARs firmware has placed, as on q35), checks nothing that the device
 * says, and runs until QEMU is ended.
 *
 *   LINEAR_BASE + 0x00000 RX ring | 0x10000 TX ring | 0x100000 buffers, BUFFER_BYTES each
 */
#include "bare-guest.h"

#include "layout.h"
#include "machine-facts.h"

#define BUFFERS (LINEAR_BASE + 0x100000)
#define ARENA_BYTES 0x400000
/* Of the second word of features: VERSION_1, RING_PACKED, IN_ORDER. */
#define VERSION_1 1
#define RING_PACKED 4
#define IN_ORDER 8

/* Read-only to ring 3: ring 0 fills it in at boot. */
__attribute__((section(".bss.facts"))) MachineFacts machine_facts;
/* Keeps the section of the image's linker script alive. */
__attribute__((section(".data"))) volatile uint32_t bytes_seen = 1;

uint64_t call_ring0(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t service);
__asm__(
    ".section .text.call_ring0, \"ax\"\n"
    ".global call_ring0\n"
    "call_ring0:\n"
    "    ud2\n"
    "    ret\n"
    ".text\n");

static _Noreturn void end(void) {
    __asm__ volatile("outb %b0, %w1" ::"a"(0x11), "Nd"(PORT_EXIT));
    for (;;) call_ring0(0, 0, 0, 0, 0, SERVICE_HALT);
}

_Noreturn void user_panic(uint64_t cpu) {
    (void)cpu;
    end();
}

/* ---- PCI and the virtio structures ----------------------------------------------------------- */

static uint32_t config_read(uint32_t function, uint32_t offset) {
    uint32_t value;
    __asm__ volatile("outl %0, %w1" ::"a"(0x80000000 | function << 8 | (offset & 0xfc)),
                     "Nd"(PORT_PCI));
    __asm__ volatile("inl %w1, %0" : "=a"(value) : "Nd"(PORT_PCI + 4));
    return value >> (offset & 3) * 8;
}

static uint32_t find_device(void) {
    for (uint32_t function = 0; function < 256; function += 8) {
        uint32_t id = config_read(function, 0);
        if (id == 0x10411af4 || id == 0x10001af4) return function;
    }
    end();
}

/* Maps the first structure of a type and answers where; sets `multiplier` of the notifications. */
static volatile uint8_t *map_structure(uint32_t function, uint32_t type, uint32_t *multiplier) {
    uint32_t capability = config_read(function, 0x34) & 0xfc;
    while (capability != 0) {
        uint32_t head = config_read(function, capability);
        if ((head & 0xff) == 9 && head >> 24 == type) break;
        capability = head >> 8 & 0xfc;
    }
    if (capability == 0) end();
    uint32_t bar = 0x10 + 4 * (config_read(function, capability + 4) & 0xff);
    uint64_t address = (uint64_t)config_read(function, bar + 4) << 32 | config_read(function, bar);
    address = (address & ~15ULL) + config_read(function, capability + 8);
    *multiplier = config_read(function, capability + 16);
    uint64_t window = call_ring0(address, 4096, 0, 0, 0, SERVICE_MAP);
    if (window == 0) end();
    return (volatile uint8_t *)MMIO_BASE + window - 1;
}

static uint64_t bus_address(uint64_t address) {
    return address - LINEAR_BASE + ((const InterruptPage *)CPU_INTERRUPTS)->arena_physical;
}

/* ---- queues ---------------------------------------------------------------------------------- */

static bool asked_for(const char *word) {
    const char *line = machine_facts.command_line;
    for (; *line != 0; line++) {
        uint32_t same = 0;
        while (word[same] != 0 && line[same] == word[same]) same++;
        if (word[same] == 0) return true;
    }
    return false;
}

/* Every frame is the same: broadcast by nobody, IPv4 as far as anybody looks. */
static void fill_buffers(uint32_t first) {
    for (uint32_t i = 0; i < ENTRIES; i++) {
        volatile uint8_t *frame = (volatile uint8_t *)BUFFERS + (first + i) * BUFFER_BYTES;
        for (uint32_t j = 0; j < HEADER_BYTES + FRAME_BYTES; j++) frame[j] = 0;
        frame[HEADER_BYTES] = frame[HEADER_BYTES + 6] = 2;
        frame[HEADER_BYTES + 12] = 8;
    }
}

static void set_up_queue(volatile uint8_t *common, volatile uint8_t *notify, uint32_t multiplier,
                         Queue *queue, const RingParts *parts) {
    uint64_t at = bus_address((uintptr_t)queue->ring);
    uint64_t addresses[3] = {at + parts->desc, at + parts->driver, at + parts->device};
    *(volatile uint16_t *)(common + 22) = queue->index;
    *(volatile uint16_t *)(common + 24) = ENTRIES;
    for (uint32_t i = 0; i < 6; i++)
        *(volatile uint32_t *)(common + 32 + 4 * i) = (uint32_t)(addresses[i / 2] >> 32 * (i & 1));
    *(volatile uint16_t *)(common + 28) = 1;
    uint32_t offset = *(volatile uint16_t *)(common + 30) * multiplier;
    queue->doorbell = (volatile uint16_t *)(notify + offset);
}

static void make_queue(Queue *queue, uint16_t index, bool in_order) {
    bool writable = index == 0;
    fill_buffers(index * ENTRIES);
    *queue = (Queue){
        .ring = (uint8_t *)LINEAR_BASE + index * RING_BYTES,
        .buffers = bus_address(BUFFERS + index * ENTRIES * BUFFER_BYTES),
        .length = writable ? BUFFER_BYTES : HEADER_BYTES + FRAME_BYTES,
        .writable = writable,
        .in_order = in_order,
        .index = index,
    };
}

_Noreturn void user_main(uint64_t cpu) {
    Queue queues[2];
    uint32_t multiplier = 0, unused = 0;
    if (cpu != 0 || !call_ring0(ARENA_BYTES, 0, 0, 0, 0, SERVICE_GROW)) end();
    bool packed = asked_for("packed"), in_order = asked_for("in-order");
    uint32_t function = find_device();
    volatile uint8_t *common = map_structure(function, 1, &unused);
    volatile uint8_t *notify = map_structure(function, 2, &multiplier);
    common[20] = 0;
    while (common[20] != 0) __builtin_ia32_pause();
    common[20] = 3;
    *(volatile uint32_t *)(common + 8) = 1;
    *(volatile uint32_t *)(common + 12) =
        VERSION_1 | (packed ? RING_PACKED : 0) | (in_order ? IN_ORDER : 0);
    common[20] = 11;
    for (uint16_t i = 0; i < 2; i++) {
        make_queue(&queues[i], i, in_order);
        if (packed)
            packed_fill(&queues[i]);
        else
            split_fill(&queues[i]);
        set_up_queue(common, notify, multiplier, &queues[i], packed ? &packed_parts : &split_parts);
    }
    common[20] = 15;
    const Queue *queue = &queues[asked_for("tx") ? 1 : 0];
    if (packed) packed_run(queue);
    split_run(queue);
}
