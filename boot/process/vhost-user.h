/*
 * The front end of the vhost-user protocol: a Unix socket to the backend (DPDK, QEMU's storage
 * daemon, a switch), over which it is told where memory and rings are. Called by device.c, at
 * bring-up and reset only; packets never come here.
 */
#ifndef VIREO_PROCESS_VHOST_USER_H
#define VIREO_PROCESS_VHOST_USER_H

#include <stdbool.h>
#include <stdint.h>

#include "memory.h"

/* What the backend needs to know of a ring. Addresses are those of this process. */
typedef struct {
    uint32_t size;
    uint64_t desc, driver, device;
    int kick; /* eventfd that we write to */
    int call; /* eventfd that the backend writes to; -1: it never interrupts */
} Vring;

typedef struct {
    int socket;
    uint64_t features; /* offered by the backend */
    uint64_t protocol; /* protocol features in use */
} VhostUser;

/* Connects and agrees on the protocol. Ends the process with a message when that fails. */
VhostUser vhost_user_connect(const char *path);

/* Hands over features, memory and one ring after the other, and turns them on. */
void vhost_user_start(VhostUser *backend, uint64_t features, const LinearMemory *memory,
                      const Vring *rings, uint32_t count);

/* Takes the rings back: from here on the backend does not touch them. */
void vhost_user_stop(VhostUser *backend, uint32_t count);

/* Whether the backend has gone. */
bool vhost_user_is_gone(const VhostUser *backend);

#endif
