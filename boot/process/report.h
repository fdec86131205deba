/*
 * What the process host itself has to say: events in the form of the console's, and its end.
 * Called by every file of this folder.
 */
#ifndef VIREO_PROCESS_REPORT_H
#define VIREO_PROCESS_REPORT_H

#include <stdint.h>

#define STATUS_OK 0
#define STATUS_FAILED 1
#define STATUS_USAGE 2

/* Time stamps: of the start, and the counter's rate. Set by report_start. */
extern uint64_t boot_tsc;
extern uint32_t tsc_khz;

/* Measures the rate of the time stamp counter (takes 20 ms); the first thing that main.c calls. */
void report_start(void);

/* Writes all of `bytes` to standard output; ends the process where nobody reads it any more. */
void write_console(const char *text, uint32_t bytes);

/* One line: {"event":NAME,"us":…,"cpu":0,"message":MESSAGE}. The message is plain text. */
void print_event(const char *name, const char *message);

/* Before the guest runs: says on standard error what is missing, and ends with STATUS_FAILED. */
_Noreturn void fail_setup(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* While it runs: an `error` and the `exit` event, and the end with STATUS_FAILED. */
_Noreturn void fail_run(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A broken invariant or a trap: the `panic` and the `exit` event, and the end. */
_Noreturn void panic(const char *cause, const char *message, const char *function);

#endif
