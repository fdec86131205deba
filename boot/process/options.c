/*
 * Reads the command line of the process host (options.h): its own options first, then the words
 * that the image takes from -append.
 */
#define _GNU_SOURCE
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define QUEUE_SIZE_MAX 32768
#define MEMORY_MIB_MAX 512 /* so that it ends before SMALL_GUARD_END */

static const char USAGE[] =
    "usage: vireo-process --socket PATH [options] [app words]\n"
    "\n"
    "The driver in a Linux process, as the front end of a vhost-user backend. The app words are\n"
    "those of the image (docs/contract.md): app=sink mode=poll ... Events go to standard output,\n"
    "commands come from standard input; Ctrl-C is the command `exit`.\n"
    "\n"
    "  --socket PATH        where the backend listens; given twice there are two NICs\n"
    "  --mac ADDRESS        52:54:00:12:34:56, and the next one for the second NIC\n"
    "  --queue-size N       entries of a ring at most, a power of two: 256\n"
    "  --memory MIB         linear memory, a multiple of 2: 16\n"
    "  --hugepages CHOICE   auto (a warning where there are none), required, off\n"
    "  --cpu N              stays on this CPU\n"
    "  --guard CHOICE       full, or small where the addresses are needed otherwise (valgrind)\n"
    "\n"
    "Exit status: 0 the app ended well, 1 it failed or the backend did, 2 wrong usage.\n"
    "\n"
    "Cycles:        perf record build/vireo-process --socket S --cpu 0 app=sink mode=poll "
    "duration=5\n"
    "Instructions:  valgrind --tool=callgrind build/vireo-process --guard small --hugepages off "
    "...\n"
    "Sanitizers:    make process-sanitized, then build/vireo-process-sanitized\n";

static _Noreturn void refuse(const char *what, const char *value) {
    fprintf(stderr, "vireo-process: %s: '%s'; see vireo-process --help\n", what, value);
    exit(STATUS_USAGE);
}

static uint32_t read_number(const char *text, uint32_t first, uint32_t last, const char *what) {
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != 0 || value < first || value > last)
        refuse(what, text);
    return (uint32_t)value;
}

static void read_mac(uint8_t mac[6], const char *text) {
    int used = 0;
    int fields = sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", mac, mac + 1, mac + 2,
                        mac + 3, mac + 4, mac + 5, &used);
    if (fields != 6 || text[used] != 0 || (mac[0] & 1))
        refuse("--mac wants a unicast address", text);
}

static PageChoice read_pages(const char *text) {
    if (strcmp(text, "auto") == 0) return PAGES_AUTO;
    if (strcmp(text, "required") == 0) return PAGES_LARGE;
    if (strcmp(text, "off") == 0) return PAGES_SMALL;
    refuse("--hugepages wants auto, required or off", text);
}

static bool read_guard(const char *text) {
    if (strcmp(text, "full") != 0 && strcmp(text, "small") != 0)
        refuse("--guard wants full or small", text);
    return strcmp(text, "small") == 0;
}

static void take(Options *options, int option, const char *text) {
    uint32_t size;
    switch (option) {
        case 's':
            if (options->socket_count == NICS_MAX) refuse("--socket may be given twice", text);
            options->sockets[options->socket_count++] = text;
            return;
        case 'a': read_mac(options->device.mac, text); return;
        case 'q':
            size = read_number(text, 2, QUEUE_SIZE_MAX, "--queue-size wants 2 to 32768");
            if (size & (size - 1)) refuse("--queue-size wants a power of two", text);
            options->device.queue_size = size;
            return;
        case 'm':
            size = read_number(text, 4, MEMORY_MIB_MAX, "--memory wants 4 to 512");
            if (size % 2) refuse("--memory wants a multiple of 2", text);
            options->memory_bytes = (uint64_t)size << 20;
            return;
        case 'p': options->pages = read_pages(text); return;
        case 'c': options->cpu = (int)read_number(text, 0, 1023, "--cpu wants a number"); return;
        case 'g': options->small_guard = read_guard(text); return;
        case 'h': fputs(USAGE, stdout); exit(STATUS_OK);
        default: fputs("vireo-process: see vireo-process --help\n", stderr); exit(STATUS_USAGE);
    }
}

void options_read(Options *options, int count, char **words) {
    static const struct option known[] = {{"socket", required_argument, NULL, 's'},
                                          {"mac", required_argument, NULL, 'a'},
                                          {"queue-size", required_argument, NULL, 'q'},
                                          {"memory", required_argument, NULL, 'm'},
                                          {"hugepages", required_argument, NULL, 'p'},
                                          {"cpu", required_argument, NULL, 'c'},
                                          {"guard", required_argument, NULL, 'g'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    *options = (Options){
        .device = {.mac = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56}, .queue_size = 256},
        .memory_bytes = 16 << 20,
        .cpu = -1,
#ifdef __SANITIZE_ADDRESS__
        .small_guard = true,
#endif
    };
    for (int option; (option = getopt_long(count, words, "h", known, NULL)) != -1;)
        take(options, option, optarg);
    if (options->socket_count == 0) refuse("--socket PATH is missing", "");
    uint32_t bytes = 0;
    for (int i = optind; i < count; i++) {
        const char *separator = bytes == 0 ? "" : " ";
        int more = snprintf(options->command_line + bytes, COMMAND_LINE_BYTES - bytes, "%s%s",
                            separator, words[i]);
        bytes += (uint32_t)more;
        if (bytes >= COMMAND_LINE_BYTES) refuse("the app words are too long", words[i]);
    }
}
