/*
 * The bare C guest's packed ring (bare-guest.h). All slots are offered all the time, so a buffer is
 * offered again in the slot where it came back, for the next lap.
 *
 *   a slot: address 8 | length 4 | id 2 | flags 2, the last three read and written as one word
 */
#include <stddef.h>

#include "bare-guest.h"

#define AVAIL 0x0080
#define USED 0x8000
#define WRITABLE 2
#define DISABLE 1
#define FLAGS_SHIFT 48

typedef struct {
    volatile uint64_t address, word;
} Slot;

typedef struct {
    Slot slots[ENTRIES];
    volatile uint16_t driver_place, driver_flags, device_place, device_flags;
} Ring;

const RingParts packed_parts = {offsetof(Ring, slots), offsetof(Ring, driver_place),
                                offsetof(Ring, device_place)};

/* The word that offers buffer `id` with these marks. */
static inline uint64_t offer(const Queue *queue, uint32_t id, uint64_t marks) {
    return queue->length | (uint64_t)id << 32 |
           (marks | (queue->writable ? WRITABLE : 0)) << FLAGS_SHIFT;
}

void packed_fill(const Queue *queue) {
    Ring *ring = (Ring *)queue->ring;
    ring->driver_flags = DISABLE;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        ring->slots[i].address = queue->buffers + i * BUFFER_BYTES;
        ring->slots[i].word = offer(queue, i, AVAIL);
    }
}

static void notify(const Queue *queue, const Ring *ring) {
    __asm__ volatile("mfence" ::: "memory");
    if (ring->device_flags != DISABLE) *queue->doorbell = queue->index;
}

/*
 * The word of a burst's first slot is written last: until then the device stops in front of it. In
 * order, a used slot names the last buffer of a batch, and ids are those of the slots.
 */
_Noreturn void packed_run(const Queue *given) {
    /* A copy that no store into the ring can be a store into. */
    const Queue own = *given, *queue = &own;
    Ring *ring = (Ring *)queue->ring;
    bool in_order = queue->in_order;
    uint64_t marks = AVAIL | USED, bytes = 0;
    uint32_t slot = 0, last = 0, left = 0;
    notify(queue, ring);
    for (;;) {
        uint32_t first = slot, count = 0;
        uint64_t head = 0;
        for (; count < BURST; count++) {
            uint32_t id = slot;
            if (left == 0) {
                uint64_t word = ring->slots[slot].word;
                if ((word >> FLAGS_SHIFT & (AVAIL | USED)) != marks) break;
                bytes += (uint32_t)word;
                last = (uint32_t)(word >> 32) & 0xffff;
                left = in_order ? (last - slot) % ENTRIES + 1 : 1;
            }
            left--;
            if (!in_order && last != slot) {
                id = last;
                ring->slots[slot].address = queue->buffers + id * BUFFER_BYTES;
            }
            uint64_t again = offer(queue, id, marks == 0 ? AVAIL : USED);
            if (count == 0)
                head = again;
            else
                ring->slots[slot].word = again;
            if (++slot < ENTRIES) continue;
            slot = 0;
            marks ^= AVAIL | USED;
        }
        if (count == 0) continue;
        __asm__ volatile("" ::: "memory");
        ring->slots[first].word = head;
        notify(queue, ring);
        bytes_seen = (uint32_t)bytes;
    }
}
