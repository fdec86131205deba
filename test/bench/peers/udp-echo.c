/*
 * A UDP echo service for the Linux guest of the benchmark: `udp-echo PORT`, for ever. Started by
 * linux-init.sh.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int count, char **words) {
    static char datagram[65536];
    struct sockaddr_in own = {.sin_family = AF_INET}, peer;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (count != 2) return 2;
    own.sin_port = htons((uint16_t)atoi(words[1]));
    if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof own) != 0) {
        perror("udp-echo");
        return 1;
    }
    for (;;) {
        socklen_t length = sizeof peer;
        ssize_t bytes =
            recvfrom(fd, datagram, sizeof datagram, 0, (struct sockaddr *)&peer, &length);
        if (bytes >= 0) sendto(fd, datagram, (size_t)bytes, 0, (struct sockaddr *)&peer, length);
    }
}
