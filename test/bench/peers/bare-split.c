/*
 * The bare C guest's split ring (bare-guest.h).
 */
#include <stddef.h>

#include "bare-guest.h"

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

const RingParts split_parts = {offsetof(Ring, desc), offsetof(Ring, avail_flags),
                               offsetof(Ring, used_flags)};

void split_fill(const Queue *queue) {
    Ring *ring = (Ring *)queue->ring;
    ring->avail_flags = 1;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        ring->desc[i].address = queue->buffers + i * BUFFER_BYTES;
        ring->desc[i].length = queue->length;
        ring->desc[i].flags = queue->writable ? WRITABLE : 0;
        ring->avail[i] = (uint16_t)i;
    }
}

static void publish(const Queue *queue, Ring *ring, uint16_t idx) {
    __asm__ volatile("" ::: "memory");
    ring->avail_idx = idx;
    __asm__ volatile("mfence" ::: "memory");
    if (!(ring->used_flags & 1)) *queue->doorbell = queue->index;
}

/*
 * An avail entry that holds the id already is left alone. In order, ids come back as they were
 * offered, so that none of them has to be looked at.
 */
_Noreturn void split_run(const Queue *given) {
    /* A copy that no store into the ring can be a store into. */
    const Queue own = *given, *queue = &own;
    Ring *ring = (Ring *)queue->ring;
    bool in_order = queue->in_order;
    uint16_t avail = ENTRIES, taken = 0;
    uint64_t bytes = 0;
    publish(queue, ring, avail);
    for (;;) {
        uint16_t ready = (uint16_t)(ring->used_idx - taken);
        if (ready == 0) continue;
        if (ready > BURST) ready = BURST;
        __asm__ volatile("" ::: "memory");
        for (uint16_t i = 0; i < ready && !(in_order && !queue->writable); i++) {
            uint16_t at = (uint16_t)(taken + i) % ENTRIES;
            bytes += ring->used[at].length;
            if (in_order) continue;
            uint32_t id = ring->used[at].id;
            if (ring->avail[at] != id) ring->avail[at] = (uint16_t)id;
        }
        taken = (uint16_t)(taken + ready);
        avail = (uint16_t)(avail + ready);
        publish(queue, ring, avail);
        bytes_seen = (uint32_t)bytes;
    }
}
