/*
 * Sends TCP frames that the device is to cut, for ever, from the Linux guest of the benchmark:
 * `gso-source INTERFACE BYTES MSS`. The frames are those of the image's app=source with gso=tcp4.
 * Started by linux-init.sh.
 *
 *   0 net header 10 | 10 Ethernet 14 | 24 IPv4 20 | 44 TCP 20 | 64 data
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BURST 16
#define FRAME_BYTES_MAX 65535

static struct {
    struct virtio_net_hdr net;
    struct ether_header ethernet;
    struct iphdr ip;
    struct tcphdr tcp;
    char data[FRAME_BYTES_MAX];
} __attribute__((packed)) packet;

static void build(uint32_t frame_bytes, uint32_t mss) {
    uint32_t head = sizeof packet.ethernet + sizeof packet.ip;
    packet.net.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    packet.net.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
    packet.net.hdr_len = (uint16_t)(head + sizeof packet.tcp);
    packet.net.gso_size = (uint16_t)mss;
    packet.net.csum_start = (uint16_t)head;
    packet.net.csum_offset = offsetof(struct tcphdr, check);
    memcpy(packet.ethernet.ether_dhost, "\x02\0\0\0\0\1", 6);
    memcpy(packet.ethernet.ether_shost, "\x52\x54\0\x12\x34\x56", 6);
    packet.ethernet.ether_type = htons(ETHERTYPE_IP);
    packet.ip.version = 4;
    packet.ip.ihl = sizeof packet.ip / 4;
    packet.ip.ttl = 64;
    packet.ip.protocol = IPPROTO_TCP;
    packet.ip.tot_len = htons((uint16_t)(frame_bytes - sizeof packet.ethernet));
    packet.ip.saddr = inet_addr("192.0.2.2");
    packet.ip.daddr = inet_addr("192.0.2.1");
    packet.tcp.doff = sizeof packet.tcp / 4;
    packet.tcp.ack = 1;
}

static int open_socket(const char *interface) {
    int on = 1, fd = socket(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll own = {.sll_family = AF_PACKET,
                              .sll_ifindex = (int)if_nametoindex(interface)};
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&own, sizeof own) != 0) {
        perror("gso-source");
        exit(1);
    }
    return fd;
}

int main(int count, char **words) {
    struct mmsghdr messages[BURST] = {0};
    if (count != 4) return 2;
    uint32_t bytes = (uint32_t)atoi(words[2]);
    if (bytes > FRAME_BYTES_MAX) return 2;
    build(bytes, (uint32_t)atoi(words[3]));
    int fd = open_socket(words[1]);
    struct iovec piece = {&packet, sizeof packet.net + bytes};
    for (uint32_t i = 0; i < BURST; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &piece, .msg_iovlen = 1};
    /* What the driver has no room for is an error of that one packet. */
    for (;;) sendmmsg(fd, messages, BURST, 0);
}
