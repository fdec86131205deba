/*
 * The command line of the process host. Read by main.c.
 */
#ifndef VIREO_PROCESS_OPTIONS_H
#define VIREO_PROCESS_OPTIONS_H

#include "device.h"

#define COMMAND_LINE_BYTES 2048

typedef struct {
    const char *sockets[NICS_MAX]; /* one a NIC */
    uint32_t socket_count;
    DeviceOptions device;
    uint64_t memory_bytes;
    PageChoice pages;
    bool small_guard;
    int cpu; /* -1: wherever the kernel puts us */
    char command_line[COMMAND_LINE_BYTES];
} Options;

/* Ends the process after --help, and with STATUS_USAGE where something is wrong. */
void options_read(Options *options, int count, char **words);

#endif
