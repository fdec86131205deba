/*
 * The front end of the vhost-user protocol (vhost-user.h). A message:
 *
 *   0 request 4 | 4 flags 4 (version 1; 4: answer; 8: wants an answer) | 8 size 4 | 12 payload
 *
 * and beside it, for memory and eventfds, a file descriptor in the socket's ancillary data.
 */
#define _GNU_SOURCE
#include "vhost-user.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "report.h"

enum {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    SET_MEM_TABLE = 5,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    GET_VRING_BASE = 11,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    SET_VRING_ENABLE = 18,
    SET_STATUS = 39,
};

#define VERSION 1
#define FLAG_REPLY 4
#define FLAG_NEED_REPLY 8
#define NO_FD 0x100 /* in the payload of kick and call: there is no descriptor */
#define HEADER_BYTES 12
#define REPLY_TIMEOUT_S 5

#define F_PROTOCOL_FEATURES (1ULL << 30)
#define F_RING_PACKED (1ULL << 34)
#define PROTOCOL_REPLY_ACK (1ULL << 3)
#define PROTOCOL_STATUS (1ULL << 16)

#define STATUS_RUNNING 0xf /* ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK */
/* Where a packed ring begins: index 0, wrap counter 1, for both sides. */
#define PACKED_BASE 0x80008000

typedef struct {
    uint32_t request, flags, size;
    union {
        uint64_t number;
        struct {
            uint32_t index, number;
        } state;
        struct {
            uint32_t index, flags;
            uint64_t desc, used, avail, log;
        } ring;
        struct {
            uint32_t count, unused;
            uint64_t guest, bytes, user, offset;
        } memory;
    };
} __attribute__((packed)) Message;

_Static_assert(sizeof(Message) == HEADER_BYTES + 40,
               "a message's payload is 40 bytes at most here");

static void send_message(const VhostUser *backend, Message *message, uint32_t size, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    message->size = size;
    message->flags |= VERSION;
    struct iovec piece = {message, HEADER_BYTES + size};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
    if (fd >= 0) {
        header.msg_control = control;
        header.msg_controllen = sizeof control;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    ssize_t sent = sendmsg(backend->socket, &header, MSG_NOSIGNAL);
    if (sent != (ssize_t)piece.iov_len)
        fail_run("the vhost-user backend takes no messages any more (request %u): %s",
                 message->request, sent < 0 ? strerror(errno) : "cut short");
}

static void receive(const VhostUser *backend, uint32_t request, void *to, uint32_t bytes) {
    ssize_t got = recv(backend->socket, to, bytes, MSG_WAITALL);
    if (got == (ssize_t)bytes) return;
    const char *why = got >= 0                                  ? "it has closed the socket"
                      : errno == EAGAIN || errno == EWOULDBLOCK ? "no answer within 5 s"
                                                                : strerror(errno);
    fail_run("the vhost-user backend does not answer request %u: %s", request, why);
}

/* Waits for the answer to `request` and takes its first `size` bytes as a number. */
static uint64_t receive_number(const VhostUser *backend, uint32_t request, uint32_t size) {
    Message answer = {0};
    receive(backend, request, &answer, HEADER_BYTES);
    bool sound = answer.request == request && (answer.flags & 3) == VERSION &&
                 (answer.flags & FLAG_REPLY) && answer.size == size;
    if (!sound)
        fail_run("the vhost-user backend answers request %u with request %u, flags 0x%x, %u bytes",
                 request, answer.request, answer.flags, answer.size);
    receive(backend, request, &answer.number, size);
    return answer.number;
}

static uint64_t ask(const VhostUser *backend, uint32_t request) {
    Message message = {.request = request};
    send_message(backend, &message, 0, -1);
    return receive_number(backend, request, sizeof(uint64_t));
}

/* Sends a message and, where the backend can say so, waits until it has been carried out. */
static void tell(const VhostUser *backend, Message *message, uint32_t size, int fd) {
    bool answers = (backend->protocol & PROTOCOL_REPLY_ACK) != 0;
    if (answers) message->flags |= FLAG_NEED_REPLY;
    uint32_t request = message->request;
    send_message(backend, message, size, fd);
    if (answers && receive_number(backend, request, sizeof(uint64_t)) != 0)
        fail_run("the vhost-user backend refuses request %u", request);
}

static void tell_number(const VhostUser *backend, uint32_t request, uint64_t number) {
    Message message = {.request = request, .number = number};
    tell(backend, &message, sizeof message.number, -1);
}

static void tell_state(const VhostUser *backend, uint32_t request, uint32_t index,
                       uint32_t number) {
    Message message = {.request = request, .state = {index, number}};
    tell(backend, &message, sizeof message.state, -1);
}

static void tell_fd(const VhostUser *backend, uint32_t request, uint32_t index, int fd) {
    Message message = {.request = request, .number = index | (fd < 0 ? NO_FD : 0)};
    tell(backend, &message, sizeof message.number, fd);
}

VhostUser vhost_user_connect(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        fail_setup("the socket's path is longer than %zu bytes: %s", sizeof address.sun_path - 1,
                   path);
    strcpy(address.sun_path, path);
    VhostUser backend = {.socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (backend.socket < 0) fail_setup("no Unix socket can be made: %s", strerror(errno));
    if (connect(backend.socket, (struct sockaddr *)&address, sizeof address) != 0)
        fail_setup(
            "no vhost-user backend listens at %s: %s. Start one first, for example dpdk-testpmd "
            "with --vdev net_vhost0,iface=%s",
            path, strerror(errno), path);
    struct timeval limit = {.tv_sec = REPLY_TIMEOUT_S};
    setsockopt(backend.socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(backend.socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    backend.features = ask(&backend, GET_FEATURES);
    if (backend.features & F_PROTOCOL_FEATURES) {
        uint64_t known = PROTOCOL_REPLY_ACK | PROTOCOL_STATUS;
        uint64_t both = ask(&backend, GET_PROTOCOL_FEATURES) & known;
        tell_number(&backend, SET_PROTOCOL_FEATURES, both);
        backend.protocol = both;
    }
    Message owner = {.request = SET_OWNER};
    tell(&backend, &owner, 0, -1);
    return backend;
}

static void tell_memory(const VhostUser *backend, const LinearMemory *memory) {
    Message message = {.request = SET_MEM_TABLE,
                       .memory = {.count = 1,
                                  .guest = LINEAR_BASE,
                                  .bytes = memory->bytes,
                                  .user = LINEAR_BASE,
                                  .offset = 0}};
    tell(backend, &message, sizeof message.memory, memory->fd);
}

static void tell_ring(const VhostUser *backend, uint32_t index, const Vring *ring, bool packed) {
    tell_state(backend, SET_VRING_NUM, index, ring->size);
    tell_state(backend, SET_VRING_BASE, index, packed ? PACKED_BASE : 0);
    Message address = {
        .request = SET_VRING_ADDR,
        .ring = {.index = index, .desc = ring->desc, .used = ring->device, .avail = ring->driver}};
    tell(backend, &address, sizeof address.ring, -1);
    tell_fd(backend, SET_VRING_CALL, index, ring->call);
    tell_fd(backend, SET_VRING_KICK, index, ring->kick);
}

void vhost_user_start(VhostUser *backend, uint64_t features, const LinearMemory *memory,
                      const Vring *rings, uint32_t count) {
    tell_number(backend, SET_FEATURES, features | (backend->features & F_PROTOCOL_FEATURES));
    tell_memory(backend, memory);
    for (uint32_t i = 0; i < count; i++)
        tell_ring(backend, i, &rings[i], (features & F_RING_PACKED) != 0);
    /* Without protocol features a ring is on as soon as it has a kick. */
    for (uint32_t i = 0; i < count && (backend->features & F_PROTOCOL_FEATURES); i++)
        tell_state(backend, SET_VRING_ENABLE, i, 1);
    if (backend->protocol & PROTOCOL_STATUS) tell_number(backend, SET_STATUS, STATUS_RUNNING);
}

void vhost_user_stop(VhostUser *backend, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        Message message = {.request = GET_VRING_BASE, .state = {i, 0}};
        send_message(backend, &message, sizeof message.state, -1);
        receive_number(backend, GET_VRING_BASE, sizeof message.state);
    }
    if (backend->protocol & PROTOCOL_STATUS) tell_number(backend, SET_STATUS, 0);
}

bool vhost_user_is_gone(const VhostUser *backend) {
    char byte;
    ssize_t got = recv(backend->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}
