/*
 * Waiting in the process host (events.h): one ppoll over standard input, the backends' sockets
 * and the call eventfds. An eventfd stays readable until it is read, so no interrupt is lost
 * between the driver's look and the sleep.
 */
#define _GNU_SOURCE
#include "events.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "report.h"

#define NS_PER_S 1000000000ULL
/* What is waited at most, so that times fit; the driver then asks again. */
#define WAIT_NS_MAX (3600 * NS_PER_S)

enum {
    WATCH_INPUT,
    WATCH_BACKENDS,
    WATCH_QUEUES = WATCH_BACKENDS + NICS_MAX,
    WATCHES = WATCH_QUEUES + NICS_MAX * QUEUES
};

static const VhostUser *backends;
static uint32_t backend_count;
static volatile sig_atomic_t asked_to_end;
static bool end_passed_on;
static bool input_ended;
static char input[4096];
static uint32_t input_at, input_bytes;

static void on_signal(int number) {
    asked_to_end = number;
}

void events_open(const VhostUser *peers, uint32_t count) {
    backends = peers;
    backend_count = count;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void take_input(const char *bytes, uint32_t count) {
    memcpy(input, bytes, count);
    input_at = 0;
    input_bytes = count;
    device_console_interrupt();
}

static void read_input(void) {
    char bytes[sizeof input];
    if (input_at < input_bytes) return;
    ssize_t got = read(STDIN_FILENO, bytes, sizeof bytes);
    if (got > 0) take_input(bytes, (uint32_t)got);
    /* Without a console the guest goes on: whoever wants its end sends a signal. */
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) input_ended = true;
}

/* The line begins with a line break, for there may be half a line before it. */
static void pass_on_signal(void) {
    static const char line[] = "\nexit\n";
    if (!asked_to_end || end_passed_on || input_at < input_bytes) return;
    end_passed_on = true;
    take_input(line, sizeof line - 1);
}

/* What ppoll is to watch; an entry that is not used has no descriptor. */
static void fill_watched(struct pollfd watched[WATCHES]) {
    for (uint32_t i = 0; i < WATCHES; i++) watched[i] = (struct pollfd){-1, POLLIN, 0};
    if (!input_ended) watched[WATCH_INPUT].fd = STDIN_FILENO;
    for (uint32_t nic = 0; nic < backend_count; nic++) {
        watched[WATCH_BACKENDS + nic].fd = backends[nic].socket;
        for (uint32_t i = 0; i < QUEUES; i++)
            watched[WATCH_QUEUES + nic * QUEUES + i].fd = device_call_fd(nic, i);
    }
}

void events_wait(uint64_t ns) {
    struct pollfd watched[WATCHES];
    fill_watched(watched);
    uint64_t limit = ns < WAIT_NS_MAX ? ns : WAIT_NS_MAX;
    struct timespec time = {.tv_sec = (time_t)(limit / NS_PER_S), .tv_nsec = limit % NS_PER_S};
    sigset_t none, ends;
    sigemptyset(&none);
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGHUP);
    /* A signal between the look at `asked_to_end` and the sleep must end the sleep. */
    sigprocmask(SIG_BLOCK, &ends, NULL);
    if (asked_to_end && !end_passed_on) time = (struct timespec){0};
    int ready = ppoll(watched, WATCHES, &time, &none);
    sigprocmask(SIG_UNBLOCK, &ends, NULL);
    pass_on_signal();
    if (ready <= 0) return;
    for (uint32_t i = 0; i < NICS_MAX * QUEUES; i++)
        if (watched[WATCH_QUEUES + i].revents) device_interrupt(i / QUEUES, i % QUEUES);
    if (watched[WATCH_INPUT].revents) read_input();
    for (uint32_t nic = 0; nic < backend_count; nic++)
        if (watched[WATCH_BACKENDS + nic].revents && vhost_user_is_gone(&backends[nic]))
            fail_run("the vhost-user backend has closed the socket");
}

int32_t console_read(void) {
    if (input_at == input_bytes) return -1;
    return (uint8_t)input[input_at++];
}
