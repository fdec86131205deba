/*
 * Round trips of UDP datagrams, one after the other: `udp-ping ADDRESS PORT COUNT`. Prints p50, p99
 * and p99.9 in microseconds and how many were lost, in one line. Run by tools/bench-times.ts.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define WARM_UP 200
#define LOST_AFTER_US 200000

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int count, char **words) {
    struct sockaddr_in peer = {.sin_family = AF_INET};
    struct timeval limit = {.tv_usec = LOST_AFTER_US};
    if (count != 4 || inet_pton(AF_INET, words[1], &peer.sin_addr) != 1) return 2;
    uint32_t wanted = (uint32_t)atoi(words[3]), lost = 0, measured = 0;
    double *times = malloc(wanted * sizeof *times);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    peer.sin_port = htons((uint16_t)atoi(words[2]));
    if (times == NULL || fd < 0) return 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&peer, sizeof peer) != 0) return 1;
    for (uint32_t number = 0; number < wanted + WARM_UP; number++) {
        uint32_t back = 0;
        double start = now_us();
        if (send(fd, &number, sizeof number, 0) < 0) return 1;
        /* An answer that was given up on may still come. */
        ssize_t got;
        while ((got = recv(fd, &back, sizeof back, 0)) == sizeof back && back != number) {
        }
        if (number < WARM_UP) continue;
        if (got == sizeof back)
            times[measured++] = now_us() - start;
        else
            lost++;
    }
    if (measured == 0) return 1;
    qsort(times, measured, sizeof *times, by_value);
    printf("%.1f %.1f %.1f %u\n", times[measured / 2], times[(uint64_t)measured * 99 / 100],
           times[(uint64_t)measured * 999 / 1000], lost);
    return 0;
}
