/*
 * The packed part of the image: ring 3's code and constants, as tools/pack.ts stored them. Included
 * by unpack.c, which unpacks it, and by ring0.c, which maps it; written by tools/packed-image.ts.
 *
 *   packed             PackedHead
 *                      unpack.c's own constants
 *   packed_streams     numbers, numbers_bytes long: bits, the highest of a byte first, then 8 zeros
 *                      bytes, bytes_bytes long
 *
 * What it becomes lies from unpacked_start to unpacked_end. An image that is linked and not packed
 * has everything in its place and a head of zeros.
 */
#ifndef VIREO_PACKED_H
#define VIREO_PACKED_H

#include <stdint.h>

typedef struct {
    uint32_t unpacked_bytes; /* 0: nothing is packed */
    uint32_t numbers_bytes;
    uint32_t bytes_bytes;
    uint32_t reserved;
} PackedHead;

extern const PackedHead packed;
extern const uint8_t packed_streams[];
extern uint8_t unpacked_start[], unpacked_end[];

/* Of unpack.c: the first function of ring 3 where something is packed, and its panic. */
void user_unpack(uint64_t next);
void unpack_panic(void);

#endif
