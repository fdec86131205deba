/*
 * The bare C guest: as little as a polling driver can do on a split ring, so the limit of the
 * hardware and the emulator underneath. It boots on the image's own ring-0 objects and stands in
 * the place of boot/host.c. Built by tools/bench-peers.ts, run by tools/bench.ts; the command line
 * is `tx` or `rx`. It knows one device (the first virtio-net function on bus 0, whose BARs firmware
 * has placed, as on q35), checks nothing that the device says, and runs until QEMU is ended.
 *
 *   LINEAR_BASE + 0x00000 RX ring | 0x10000 TX ring | 0x100000 buffers, BUFFER_BYTES each
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "machine-facts.h"

#define ENTRIES 256
#define BURST 64
#define FRAME_BYTES 60
#define HEADER_BYTES 12
#define BUFFER_BYTES 1600
#define RING_BYTES 0x10000
#define BUFFERS (LINEAR_BASE + 0x100000)
#define ARENA_BYTES 0x400000
#define WRITABLE 2

typedef struct {
    volatile uint64_t address;
    volatile uint32_t length;
    volatile uint16_t flags, next;
} Descriptor;

typedef struct {
    Descriptor desc[ENTRIES];
    volatile uint16_t avail_flags, avail_idx, avail[ENTRIES], used_event;
    uint8_t gap[2048 - 2 * ENTRIES - 6];
    volatile uint16_t used_flags, used_idx;
    struct {
        volatile uint32_t id, length;
    } used[ENTRIES];
} Ring;

/* Read-only to ring 3: ring 0 fills it in at boot. */
__attribute__((section(".bss.facts"))) MachineFacts machine_facts;
/* Keeps the section of the image's linker script alive. */
__attribute__((section(".data"))) static volatile uint32_t frames_seen = 1;

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

static volatile uint16_t *set_up_queue(volatile uint8_t *common, volatile uint8_t *notify,
                                       uint32_t multiplier, uint32_t index, const Ring *ring) {
    uint64_t at = ((const InterruptPage *)CPU_INTERRUPTS)->arena_physical - LINEAR_BASE;
    uint64_t parts[3] = {(uintptr_t)ring->desc + at, (uintptr_t)&ring->avail_flags + at,
                         (uintptr_t)&ring->used_flags + at};
    *(volatile uint16_t *)(common + 22) = (uint16_t)index;
    *(volatile uint16_t *)(common + 24) = ENTRIES;
    for (uint32_t i = 0; i < 6; i++)
        *(volatile uint32_t *)(common + 32 + 4 * i) = (uint32_t)(parts[i / 2] >> 32 * (i & 1));
    *(volatile uint16_t *)(common + 28) = 1;
    return (volatile uint16_t *)(notify + *(volatile uint16_t *)(common + 30) * multiplier);
}

/* ---- the loops ------------------------------------------------------------------------------- */

static void publish(Ring *ring, uint16_t idx, volatile uint16_t *doorbell, uint32_t queue) {
    __asm__ volatile("" ::: "memory");
    ring->avail_idx = idx;
    __asm__ volatile("mfence" ::: "memory");
    if (!(ring->used_flags & 1)) *doorbell = (uint16_t)queue;
}

/*
 * Every descriptor that comes back is offered again as it is: the frame to be sent once more, the
 * buffer to be filled. An avail entry that holds the id already is left alone.
 */
static _Noreturn void run(Ring *ring, volatile uint16_t *doorbell, uint32_t queue) {
    uint16_t avail = ENTRIES, taken = 0;
    uint64_t bytes = 0;
    publish(ring, avail, doorbell, queue);
    for (;;) {
        uint16_t ready = (uint16_t)(ring->used_idx - taken);
        if (ready == 0) continue;
        if (ready > BURST) ready = BURST;
        __asm__ volatile("" ::: "memory");
        for (uint16_t i = 0; i < ready; i++, taken++, avail++) {
            uint32_t id = ring->used[taken % ENTRIES].id;
            bytes += ring->used[taken % ENTRIES].length;
            if (ring->avail[avail % ENTRIES] != id) ring->avail[avail % ENTRIES] = (uint16_t)id;
        }
        publish(ring, avail, doorbell, queue);
        frames_seen = (uint32_t)bytes;
    }
}

static void fill(Ring *ring, uint32_t first_buffer, uint32_t length, uint16_t flags) {
    uint64_t base = ((const InterruptPage *)CPU_INTERRUPTS)->arena_physical;
    ring->avail_flags = 1;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        uint64_t buffer = BUFFERS + (uint64_t)(first_buffer + i) * BUFFER_BYTES;
        ring->desc[i].address = buffer - LINEAR_BASE + base;
        ring->desc[i].length = length;
        ring->desc[i].flags = flags;
        ring->avail[i] = (uint16_t)i;
        volatile uint8_t *frame = (volatile uint8_t *)buffer;
        for (uint32_t j = 0; j < HEADER_BYTES + FRAME_BYTES; j++) frame[j] = 0;
        frame[HEADER_BYTES] = frame[HEADER_BYTES + 6] = 2;
        frame[HEADER_BYTES + 12] = 8; /* IPv4, as far as anybody looks */
    }
}

_Noreturn void user_main(uint64_t cpu) {
    Ring *rx = (Ring *)LINEAR_BASE, *tx = (Ring *)(LINEAR_BASE + RING_BYTES);
    uint32_t multiplier = 0, unused = 0;
    if (cpu != 0 || !call_ring0(ARENA_BYTES, 0, 0, 0, 0, SERVICE_GROW)) end();
    uint32_t function = find_device();
    volatile uint8_t *common = map_structure(function, 1, &unused);
    volatile uint8_t *notify = map_structure(function, 2, &multiplier);
    common[20] = 0;
    while (common[20] != 0) __builtin_ia32_pause();
    common[20] = 3;
    *(volatile uint32_t *)(common + 8) = 1; /* VERSION_1 and nothing else */
    *(volatile uint32_t *)(common + 12) = 1;
    common[20] = 11;
    fill(rx, 0, BUFFER_BYTES, WRITABLE);
    fill(tx, ENTRIES, HEADER_BYTES + FRAME_BYTES, 0);
    volatile uint16_t *rx_bell = set_up_queue(common, notify, multiplier, 0, rx);
    volatile uint16_t *tx_bell = set_up_queue(common, notify, multiplier, 1, tx);
    common[20] = 15;
    if (machine_facts.command_line[0] == 't') run(tx, tx_bell, 1);
    run(rx, rx_bell, 0);
}
