/*
 * The third host of the machine interface: the generated code in a Linux process, as the front end
 * of a vhost-user backend, or of two. It is for perf, callgrind and sanitizers, and for comparison
 * with other drivers at the speed of the hardware. Built by `make process`, used by test/bench.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "options.h"
#include "wasm-rt.h"

#include "vireo.wasm.h"

/* How often a driver that never sleeps lets us look at the console and the backend, in steps. */
#define STEPS_BETWEEN_LOOKS 4096
#define MESSAGE_CHARACTERS_MAX 200
#define WASM_PAGE 65536

const char *command_line;
uint64_t arena_bytes;
uint32_t mailbox[MAILBOX_WORDS];

_Noreturn void machine_exit(uint32_t status, const char *last_line, uint32_t bytes) {
    device_close();
    write_console(last_line, bytes);
    _exit(status == 0 ? STATUS_OK : STATUS_FAILED);
}

_Noreturn void machine_panic(const uint16_t *message, uint32_t characters) {
    char text[MESSAGE_CHARACTERS_MAX + 1] = {0};
    for (uint32_t i = 0; i < characters && i < MESSAGE_CHARACTERS_MAX; i++)
        text[i] = (char)message[i];
    panic("failed check", text, "?");
}

/* ---- wasm2c's runtime ------------------------------------------------------------------------
 */

_Noreturn __attribute__((noinline)) void wasm_rt_trap(wasm_rt_trap_t code) {
    static const char *const names[] = {"none",
                                        "out of bounds memory access",
                                        "integer overflow",
                                        "integer divide by zero",
                                        "invalid conversion to integer",
                                        "unreachable"};
    panic("wasm trap", code <= WASM_RT_TRAP_UNREACHABLE ? names[code] : "other", "?");
}

void wasm_rt_allocate_memory(wasm_rt_memory_t *linear_memory, uint64_t pages, uint64_t max_pages,
                             bool is64, uint32_t page_size) {
    *linear_memory = (wasm_rt_memory_t){(uint8_t *)LINEAR_BASE, 0, max_pages, 0, page_size, is64};
    if (wasm_rt_grow_memory(linear_memory, pages) == UINT32_MAX) wasm_rt_trap(WASM_RT_TRAP_OOB);
}

uint64_t wasm_rt_grow_memory(wasm_rt_memory_t *linear_memory, uint64_t pages) {
    uint64_t before = linear_memory->pages, after = before + pages;
    if (after > linear_memory->max_pages || after * WASM_PAGE > arena_bytes) return UINT32_MAX;
    linear_memory->pages = after;
    linear_memory->size = after * WASM_PAGE;
    return before;
}

void wasm_rt_free_memory(wasm_rt_memory_t *linear_memory) {
    (void)linear_memory;
}

#include "cold.h" /* by tools/cold.ts: what need not be fast */
#include "vireo.wasm.c"

/* ---- traps that the MMU finds ----------------------------------------------------------------
 */

static uint64_t guard_end;
static uint8_t signal_stack[65536];

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)context;
    uint64_t address = (uint64_t)info->si_addr;
    if (address >= LINEAR_BASE && address < guard_end)
        panic("wasm trap", "out of bounds memory access", "?");
    panic("cpu exception", strsignal(number), "?");
}

static void catch_faults(void) {
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (uint32_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigaction(faults[i], &action, NULL);
}

/* ---- a run -----------------------------------------------------------------------------------
 */

static void stay_on_cpu(int cpu) {
    cpu_set_t only;
    if (cpu < 0) return;
    CPU_ZERO(&only);
    CPU_SET((unsigned)cpu, &only);
    if (sched_setaffinity(0, sizeof only, &only) != 0)
        fail_setup("CPU %d cannot be used: %s", cpu, strerror(errno));
}

/* Nanoseconds from now to a time stamp; 0 if it has passed, UINT64_MAX for "no limit". */
static uint64_t ns_until(uint64_t deadline) {
    uint64_t now = __rdtsc();
    if (deadline == UINT64_MAX) return UINT64_MAX;
    if (deadline <= now) return 0;
    return (uint64_t)((__uint128_t)(deadline - now) * 1000000 / tsc_khz);
}

static _Noreturn void run(void) {
    static w2c_vireo instance;
    wasm2c_vireo_instantiate(&instance, NULL);
    w2c_vireo_boot(&instance);
    for (uint32_t steps = 1;; steps++) {
        uint64_t deadline = w2c_vireo_step(&instance);
        if (deadline != 0)
            events_wait(ns_until(deadline));
        else if (steps % STEPS_BETWEEN_LOOKS == 0)
            events_wait(0);
    }
}

int main(int count, char **words) {
    static Options options;
    static VhostUser backends[NICS_MAX];
    static LinearMemory linear_memory;
    options_read(&options, count, words);
    report_start();
    stay_on_cpu(options.cpu);
    command_line = options.command_line;
    arena_bytes = options.memory_bytes;
    for (uint32_t i = 0; i < options.socket_count; i++)
        backends[i] = vhost_user_connect(options.sockets[i]);
    linear_memory = memory_open(arena_bytes, options.pages, options.small_guard);
    guard_end = linear_memory.guard_end;
    for (uint32_t i = 0; i < options.socket_count; i++)
        device_open(&backends[i], &linear_memory, &options.device);
    events_open(backends, options.socket_count);
    catch_faults();
    run();
}
