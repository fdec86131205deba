/*
 * How far two CPUs are from each other: the round trip of one cache line between them, in cycles
 * of the time stamp counter. Called by tools/bench-machine.ts as `cache-line CPU CPU`; prints the
 * median of a hundred pieces of a thousand round trips each.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <x86intrin.h>

#define PIECES 100
#define TRIPS 1000

static _Alignas(128) volatile uint32_t word;

static void stay_on(const char *cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(strtoul(cpu, NULL, 10), &only);
    if (sched_setaffinity(0, sizeof only, &only) == 0) return;
    fprintf(stderr, "cache-line: CPU %s cannot be used\n", cpu);
    exit(1);
}

static void *answer(void *cpu) {
    stay_on(cpu);
    for (uint32_t trip = 0; trip < PIECES * TRIPS; trip++) {
        while (word != 2 * trip + 1) {
        }
        word = 2 * trip + 2;
    }
    return NULL;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int count, char **words) {
    uint64_t pieces[PIECES];
    pthread_t other;
    if (count != 3) {
        fprintf(stderr, "usage: cache-line CPU CPU\n");
        return 2;
    }
    stay_on(words[1]);
    if (pthread_create(&other, NULL, answer, words[2]) != 0) return 1;
    for (uint32_t piece = 0, trip = 0; piece < PIECES; piece++) {
        uint64_t start = __rdtsc();
        for (uint32_t i = 0; i < TRIPS; i++, trip++) {
            word = 2 * trip + 1;
            while (word != 2 * trip + 2) {
            }
        }
        pieces[piece] = (__rdtsc() - start) / TRIPS;
    }
    pthread_join(other, NULL);
    qsort(pieces, PIECES, sizeof *pieces, by_value);
    printf("%llu\n", (unsigned long long)pieces[PIECES / 2]);
    return 0;
}
