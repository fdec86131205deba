/*
 * Unpacks ring 3's code and constants to where they are linked. CPU 0 comes here (ring0.c) before
 * anything else in ring 3, once. It is ring 3 because ring 0 may be emulated (docs/boot.md).
 * Nothing of ring 3 outside this file is there yet; the linker refuses whatever would use it.
 *
 * Until unpacked_end is reached, one of three blocks follows the other:
 *
 *   bit 0, a number n      after a copy: n bytes as they are, out of the bytes
 *   bit 0, a number n      after those: n bytes from `distance` before, as it was the last time
 *   bit 1, numbers h, n    n + 1 bytes from `distance` before: (h - 1) * 256 + one of the bytes + 1
 *
 * A number, 1 or more, is Elias' gamma code: as many zeros as it has bits behind its highest one,
 * then its bits. The blocks and the distance that is used again are those of Einar Saukas' ZX0; the
 * streams are two because a number is then one load, one shift and one count of zeros.
 */
#include "packed.h"

#include <stddef.h>

#include "machine.h"

/* ---- the panic: host.c's needs what is not there yet -------------------------------------------
 */

#define UART_LINE_STATUS (PORT_COM1 + 5)
#define UART_TRANSMIT_EMPTY 0x20
#define UART_ALL_SENT 0x40
#define UART_WAIT_MAX (1ull << 34) /* cycles, as in host.c */
#define EXIT_FAILURE_CODE 0x11

static void wait_uart(uint32_t status) {
    uint64_t start = IMPORT(tsc)(NULL);
    while (!(port_read8(UART_LINE_STATUS) & status))
        if (IMPORT(tsc)(NULL) - start > UART_WAIT_MAX) return;
}

static void write_text(const char *text) {
    for (; *text != 0; text++) {
        wait_uart(UART_TRANSMIT_EMPTY);
        port_write8(PORT_COM1, (uint8_t)*text);
    }
}

static void write_number(uint64_t value, uint32_t base) {
    char digits[24];
    char *first = &digits[sizeof digits - 1];
    *first = 0;
    do *--first = "0123456789abcdef"[value % base];
    while ((value /= base) != 0);
    write_text(first);
}

static void write_head(const char *event) {
    write_text("{\"event\":\"");
    write_text(event);
    write_text("\",\"us\":");
    uint64_t khz = machine_facts.tsc_khz != 0 ? machine_facts.tsc_khz : 1;
    write_number((IMPORT(tsc)(NULL) - machine_facts.boot_tsc) * 1000 / khz, 10);
}

static _Noreturn void panic(const char *cause, const char *message, uint64_t rip) {
    write_head("panic");
    write_text(",\"cpu\":0,\"cause\":\"");
    write_text(cause);
    write_text("\",\"message\":\"");
    write_text(message);
    write_text("\",\"function\":\"user_unpack\",\"rip\":\"0x");
    write_number(rip, 16);
    write_text("\"}\n");
    write_head("exit");
    write_text(",\"cpu\":0,\"status\":\"failure\",\"message\":\"panic\"}\n");
    wait_uart(UART_ALL_SENT);
    port_write8(PORT_EXIT, EXIT_FAILURE_CODE);
    for (;;) call_ring0(0, 0, 0, 0, 0, SERVICE_HALT);
}

static _Noreturn void damaged(void) {
    panic("failed check", "the packed image is not what the build wrote", (uintptr_t)user_unpack);
}

/* After an exception before everything is unpacked (ring0.c). */
_Noreturn void unpack_panic(void) {
    const ExceptionRecord *record = (const ExceptionRecord *)CPU_INSTANCE;
    panic("cpu exception", "exception while the image was unpacked", record->rip);
}

/* ---- unpacking --------------------------------------------------------------------------------
 */

#define NUMBER_ZEROS_MAX 24
#define BITS_BEHIND 64 /* zeros at the end of the numbers, so that a load never leaves them */

/* How far the streams have been read, and where they end. */
typedef struct {
    uint64_t bit, bits_end;
    const uint8_t *byte, *bytes_end;
} Reader;

/* A load of eight bytes from any address. */
typedef uint64_t __attribute__((aligned(1), may_alias)) Unaligned;

/* The next bits of the numbers, from the highest bit on: 57 at least. */
static inline uint64_t next_bits(const Reader *reader) {
    if (reader->bit >= reader->bits_end) damaged();
    Unaligned bytes = *(const Unaligned *)(packed_streams + reader->bit / 8);
    return __builtin_bswap64(bytes) << reader->bit % 8;
}

/* The number that the bits begin with. */
static inline uint32_t number_in(Reader *reader, uint64_t bits) {
    uint32_t zeros = bits != 0 ? (uint32_t)__builtin_clzll(bits) : 64;
    if (zeros > NUMBER_ZEROS_MAX) damaged();
    reader->bit += 2 * zeros + 1;
    return (uint32_t)(bits >> (63 - 2 * zeros));
}

/* A block's first bit and first number are read at once. */
static inline uint32_t read_kind_and_number(Reader *reader, bool *is_new) {
    uint64_t bits = next_bits(reader);
    *is_new = bits >> 63;
    reader->bit++;
    return number_in(reader, bits << 1);
}

static uint32_t read_byte(Reader *reader) {
    if (reader->byte == reader->bytes_end) damaged();
    return *reader->byte++;
}

/* Byte by byte, because the two may overlap: that is how a pattern is repeated. */
static uint8_t *copy(uint8_t *to, const uint8_t *from, uint32_t bytes) {
    while (bytes-- > 0) *to++ = *from++;
    return to;
}

static void unpack(void) {
    const uint8_t *bytes = packed_streams + packed.numbers_bytes;
    Reader reader = {0, 8ull * packed.numbers_bytes - BITS_BEHIND, bytes,
                     bytes + packed.bytes_bytes};
    uint64_t distance = 0;
    bool behind_literals = false;
    uint8_t *to = unpacked_start;
    while (to < unpacked_end) {
        bool is_new;
        uint32_t length = read_kind_and_number(&reader, &is_new);
        if (is_new) {
            distance = (length - 1ull) * 256 + read_byte(&reader) + 1;
            length = number_in(&reader, next_bits(&reader)) + 1;
        }
        if (length > (uint64_t)(unpacked_end - to)) damaged();
        if (is_new || behind_literals) {
            if (distance == 0 || distance > (uint64_t)(to - unpacked_start)) damaged();
            to = copy(to, to - distance, length);
            behind_literals = false;
        } else {
            if (length > (uint64_t)(reader.bytes_end - reader.byte)) damaged();
            to = copy(to, reader.byte, length);
            reader.byte += length;
            behind_literals = true;
        }
    }
    if (reader.bit + 8 <= reader.bits_end || reader.byte != reader.bytes_end) damaged();
}

/* From ring0.c; `next` is what it would have entered otherwise, with its argument 0: this CPU. */
_Noreturn void user_unpack(uint64_t next) {
    uint64_t bytes = (uint64_t)(unpacked_end - unpacked_start);
    if (packed.unpacked_bytes != bytes || packed.numbers_bytes < BITS_BEHIND / 8) damaged();
    unpack();
    call_ring0(0, 0, 0, 0, 0, SERVICE_UNPACKED);
    ((void (*)(uint64_t))next)(0);
    __builtin_unreachable();
}
