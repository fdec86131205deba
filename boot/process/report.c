/*
 * Events of the process host and its end (report.h). The lines have the form of docs/contract.md.
 */
#define _GNU_SOURCE
#include "report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define CALIBRATION_NS 20000000
#define LINE_BYTES 1024

uint64_t boot_tsc;
uint32_t tsc_khz;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void report_start(void) {
    boot_tsc = __rdtsc();
    uint64_t start = now_ns(), elapsed = 0;
    while ((elapsed = now_ns() - start) < CALIBRATION_NS) __builtin_ia32_pause();
    tsc_khz = (uint32_t)((__rdtsc() - boot_tsc) * 1000000 / elapsed);
}

void write_console(const char *text, uint32_t bytes) {
    while (bytes > 0) {
        ssize_t written = write(STDOUT_FILENO, text, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) _exit(STATUS_FAILED);
        text += written;
        bytes -= (uint32_t)written;
    }
}

static void write_line(const char *name, const char *fields) {
    char line[LINE_BYTES];
    uint64_t us = (__rdtsc() - boot_tsc) * 1000 / tsc_khz;
    int bytes = snprintf(line, sizeof line, "{\"event\":\"%s\",\"us\":%llu,\"cpu\":0,%s}\n", name,
                         (unsigned long long)us, fields);
    write_console(line, bytes < LINE_BYTES ? (uint32_t)bytes : LINE_BYTES - 1);
}

/* Plain text only, as everywhere on the console. */
static void clean(char *text) {
    for (; *text != 0; text++)
        if (*text < ' ' || *text > '~' || *text == '"' || *text == '\\') *text = '?';
}

void print_event(const char *name, const char *message) {
    char fields[LINE_BYTES / 2];
    snprintf(fields, sizeof fields, "\"message\":\"%s\"", message);
    write_line(name, fields);
}

static _Noreturn void end(const char *why) {
    char fields[LINE_BYTES / 2];
    snprintf(fields, sizeof fields, "\"status\":\"failure\",\"message\":\"%s\"", why);
    write_line("exit", fields);
    _exit(STATUS_FAILED);
}

void fail_setup(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("vireo-process: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(STATUS_FAILED);
}

void fail_run(const char *format, ...) {
    char message[LINE_BYTES / 4];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    clean(message);
    print_event("error", message);
    end(message);
}

void panic(const char *cause, const char *message, const char *function) {
    char text[LINE_BYTES / 4], fields[LINE_BYTES / 2];
    snprintf(text, sizeof text, "%s", message);
    clean(text);
    snprintf(fields, sizeof fields, "\"cause\":\"%s\",\"message\":\"%s\",\"function\":\"%s\"",
             cause, text, function);
    write_line("panic", fields);
    end("panic");
}
