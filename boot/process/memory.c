/*
 * Makes the linear memory of the process host (memory.h). Called once, by main.c.
 */
#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <string.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "report.h"

/* A memfd of `bytes`, all of it there already: a lack of large pages must not show as SIGBUS. */
static int make_file(uint64_t bytes, bool large) {
    int fd = memfd_create("vireo", MFD_CLOEXEC | (large ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
    if (fd < 0) return -1;
    if (ftruncate(fd, (off_t)bytes) == 0) {
        void *probe = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
        if (probe != MAP_FAILED) {
            munmap(probe, bytes);
            return fd;
        }
    }
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static void map_guard(uint64_t end) {
    void *base = (void *)LINEAR_BASE;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    if (mmap(base, end - LINEAR_BASE, PROT_NONE, flags, -1, 0) == base) return;
    fail_setup(
        "the addresses from 0x%x to 0x%llx are not free: %s. Under valgrind, use --guard=small",
        LINEAR_BASE, (unsigned long long)end, strerror(errno));
}

LinearMemory memory_open(uint64_t bytes, PageChoice pages, bool small_guard) {
    LinearMemory memory = {.fd = -1, .bytes = bytes};
    memory.guard_end = small_guard ? SMALL_GUARD_END : LINEAR_BASE + GUARD_BYTES;
    if (pages != PAGES_SMALL) memory.fd = make_file(bytes, true);
    memory.large_pages = memory.fd >= 0;
    if (memory.fd < 0 && pages == PAGES_LARGE)
        fail_setup(
            "no %llu free large pages of 2 MiB: %s. Try: echo 64 > /proc/sys/vm/nr_hugepages",
            (unsigned long long)(bytes / LARGE_PAGE), strerror(errno));
    if (memory.fd < 0) memory.fd = make_file(bytes, false);
    if (memory.fd < 0)
        fail_setup("no memory of %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
    if (pages == PAGES_AUTO && !memory.large_pages)
        print_event("warning", "no large pages of 2 MiB are free: running on small ones, slower");
    map_guard(memory.guard_end);
    void *base = (void *)LINEAR_BASE;
    int flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
    if (mmap(base, bytes, PROT_READ | PROT_WRITE, flags, memory.fd, 0) != base)
        fail_setup("linear memory cannot be mapped at 0x%x: %s", LINEAR_BASE, strerror(errno));
    return memory;
}
