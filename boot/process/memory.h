/*
 * Linear memory of the process host: a memfd that the backend maps as well, at the address that the
 * generated code has as a constant. Called by main.c and vhost-user.c.
 *
 *   0x0_10000000  LINEAR_BASE   the arena: `bytes` of the memfd, in 2 MiB pages where there are
 * some
 *        ...                    guard: mapped without any access, to LINEAR_BASE + 8 GiB, or only
 * to 0x0_38000000                here where the rest is taken (sanitizers, valgrind)
 */
#ifndef VIREO_PROCESS_MEMORY_H
#define VIREO_PROCESS_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#define LINEAR_BASE 0x10000000
#define GUARD_BYTES 0x200000000 /* what a Wasm access can reach: 32 bits of index and of offset */
#define SMALL_GUARD_END 0x38000000
#define LARGE_PAGE 0x200000

typedef enum { PAGES_AUTO, PAGES_LARGE, PAGES_SMALL } PageChoice;

typedef struct {
    int fd;
    uint64_t bytes;
    bool large_pages;
    uint64_t guard_end;
} LinearMemory;

/*
 * Makes and maps `bytes` (a multiple of 2 MiB) and the guard. Ends the process with a message when
 * that cannot be; with PAGES_AUTO a lack of large pages is a warning.
 */
LinearMemory memory_open(uint64_t bytes, PageChoice pages, bool small_guard);

#endif
