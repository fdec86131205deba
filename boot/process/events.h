/*
 * What the process host waits for: a console line, an interrupt, the end of the backend, a signal.
 * Called by main.c's loop; the console is read by the driver through host.h.
 */
#ifndef VIREO_PROCESS_EVENTS_H
#define VIREO_PROCESS_EVENTS_H

#include <stdint.h>

#include "vhost-user.h"

/* Takes SIGINT and SIGTERM: either asks the driver to exit, as the line `exit` does. `backends`
 * are those of NIC 0 and so on. */
void events_open(const VhostUser *backends, uint32_t count);

/*
 * Sleeps until something has happened, at most `ns` nanoseconds (0: looks only; UINT64_MAX: no
 * limit), and counts the interrupts. Ends the process when a backend has gone.
 */
void events_wait(uint64_t ns);

/* The next byte of console input, or -1. */
int32_t console_read(void);

#endif
