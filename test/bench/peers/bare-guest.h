/*
 * What the parts of the bare C guest share: bare-guest.c brings the device up, bare-split.c and
 * bare-packed.c have a ring and its loop each.
 */
#ifndef VIREO_BARE_GUEST_H
#define VIREO_BARE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#define ENTRIES 256
#define BURST 64
#define FRAME_BYTES 60
#define HEADER_BYTES 12
#define BUFFER_BYTES 1600
#define RING_BYTES 0x10000

/* A queue: its memory, its buffers in a row, and where to ring. */
typedef struct {
    uint8_t *ring;
    uint64_t buffers; /* bus address of the first one */
    uint32_t length;  /* of each */
    bool writable, in_order;
    volatile uint16_t *doorbell;
    uint16_t index;
} Queue;

/* Where the three parts of the ring are, from its beginning on. virtio 1.4 §4.1.4.3 */
typedef struct {
    uint32_t desc, driver, device;
} RingParts;

extern const RingParts split_parts, packed_parts;

/* Fills the ring before the device gets it. */
void split_fill(const Queue *queue);
void packed_fill(const Queue *queue);

/* Every buffer that comes back is offered again: the frame to be sent once more, or to be filled.
 */
_Noreturn void split_run(const Queue *queue);
_Noreturn void packed_run(const Queue *queue);

/* Of what was taken back; keeps the reading of lengths from being left out. */
extern volatile uint32_t bytes_seen;

#endif
