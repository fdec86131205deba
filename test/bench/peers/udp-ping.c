/*
 * Round trips of UDP datagrams, one after the other: `udp-ping ADDRESS PORT COUNT`. Prints the
 * microseconds of each, a line for each that was answered. Run by tools/bench-latency.ts.
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

/* Microseconds of one round trip; below 0 when it was lost. */
static double round_trip(int fd, uint32_t number) {
    uint32_t back = 0;
    double start = now_us();
    /* A guest that has just come up may still refuse. */
    if (send(fd, &number, sizeof number, 0) < 0) return -1;
    /* An answer that was given up on may still come. */
    ssize_t got;
    while ((got = recv(fd, &back, sizeof back, 0)) == sizeof back && back != number) {
    }
    return got == sizeof back ? now_us() - start : -1;
}

int main(int count, char **words) {
    struct sockaddr_in peer = {.sin_family = AF_INET};
    struct timeval limit = {.tv_usec = LOST_AFTER_US};
    if (count != 4 || inet_pton(AF_INET, words[1], &peer.sin_addr) != 1) return 2;
    uint32_t wanted = (uint32_t)atoi(words[3]), measured = 0;
    double *times = malloc(wanted * sizeof *times);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    peer.sin_port = htons((uint16_t)atoi(words[2]));
    if (times == NULL || fd < 0) return 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&peer, sizeof peer) != 0) {
        perror("udp-ping");
        return 1;
    }
    for (uint32_t number = 0; number < wanted + WARM_UP; number++) {
        double us = round_trip(fd, number);
        if (number >= WARM_UP && us >= 0) times[measured++] = us;
    }
    for (uint32_t i = 0; i < measured; i++) printf("%.1f\n", times[i]);
    return 0;
}
