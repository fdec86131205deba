/*
 * Ring 3 of the guest: the generated code and what it stands on, in one translation unit. Entered
 * by ring0.c at user_main (each CPU once) and at user_panic (after an exception).
 */
#include "machine.h"
#include "wasm-rt.h"

#include "vireo.wasm.h"

/* Read-only to ring 3: ring 0 fills it in at boot. */
__attribute__((section(".bss.facts"))) MachineFacts machine_facts;

/* ---- what a freestanding compiler expects ---------------------------------------------------- */

void *memcpy(void *to, const void *from, size_t bytes) {
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
    return start;
}

void *memset(void *to, int value, size_t bytes) {
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
    return start;
}

void *memmove(void *to, const void *from, size_t bytes) {
    if ((uintptr_t)to - (uintptr_t)from >= bytes) return memcpy(to, from, bytes);
    for (size_t i = bytes; i-- > 0;) ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes) {
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < bytes; i++)
        if (x[i] != y[i]) return x[i] - y[i];
    return 0;
}

/* For __builtin_popcountll; not every CPU model has the instruction. */
int __popcountdi2(uint64_t bits) {
    int count = 0;
    for (; bits != 0; bits &= bits - 1) count++;
    return count;
}

/* ---- the call into ring 0: an invalid opcode at a place that traps.S knows ---------------------
 *
 * In a section of its own, because unpack.c needs it before the rest is there. */

__asm__(
    ".section .text.call_ring0, \"ax\"\n"
    ".global call_ring0\n"
    "call_ring0:\n"
    "    ud2\n"
    "    ret\n"
    ".text\n");

/* ---- console: COM1, one line at a time --------------------------------------------------------
 */

#define UART_INTERRUPT_ENABLE (PORT_COM1 + 1)
#define UART_LINE_CONTROL (PORT_COM1 + 3)
#define UART_MODEM_CONTROL (PORT_COM1 + 4)
#define UART_LINE_STATUS (PORT_COM1 + 5)
#define UART_RECEIVED_INTERRUPT 1
#define UART_8N1 3
#define UART_READY_AND_INTERRUPT 0xb /* DTR, RTS, OUT2: the last lets interrupts out */
#define UART_DATA_READY 1
#define UART_TRANSMIT_EMPTY 0x20
#define UART_ALL_SENT 0x40
/* Cycles: some seconds. Whoever reads the console may not get a CPU for a while. */
#define UART_WAIT_MAX (1ull << 34)
#define LOCK_SPINS_MAX 100000000

volatile uint32_t mailbox[MAILBOX_WORDS];
static volatile uint32_t console_lock;
/* Nobody drained the console for so long that the line was given up. */
static uint32_t console_stuck;

/* The FIFO stays off: turning it on would throw away what was typed before. */
static void console_open(void) {
    port_write8(UART_LINE_CONTROL, UART_8N1);
    port_write8(UART_MODEM_CONTROL, UART_READY_AND_INTERRUPT);
    port_write8(UART_INTERRUPT_ENABLE, UART_RECEIVED_INTERRUPT);
}

static int console_is(uint32_t status) {
    return (port_read8(UART_LINE_STATUS) & status) != 0;
}

/* Bounded: a console that nobody drains must not stop the driver. */
static int console_wait(uint32_t status) {
    uint64_t start = __builtin_ia32_rdtsc();
    while (!console_is(status))
        if (__builtin_ia32_rdtsc() - start > UART_WAIT_MAX) return 0;
    return 1;
}

/* Bounded as well: a CPU that died while holding the lock must not silence the others. */
static void console_take(void) {
    for (uint32_t i = 0; i < LOCK_SPINS_MAX && __atomic_exchange_n(&console_lock, 1, 2); i++)
        __builtin_ia32_pause();
}

/* A byte that does not go out takes the rest of the line with it, and the lines after it until the
 * console takes bytes again: never a line with a hole. */
static void console_put(const char *text, uint32_t bytes) {
    if (console_stuck && !console_is(UART_TRANSMIT_EMPTY)) return;
    for (uint32_t i = 0; i < bytes; i++) {
        console_stuck = !console_wait(UART_TRANSMIT_EMPTY);
        if (console_stuck) return;
        port_write8(PORT_COM1, (uint8_t)text[i]);
    }
}

void console_write(const char *text, uint32_t bytes) {
    console_take();
    console_put(text, bytes);
    __atomic_store_n(&console_lock, 0, __ATOMIC_RELEASE);
}

int32_t console_read(void) {
    if (!(port_read8(UART_LINE_STATUS) & UART_DATA_READY)) return -1;
    return (int32_t)port_read8(PORT_COM1);
}

/* ---- the end ----------------------------------------------------------------------------------
 */

#define EXIT_SUCCESS_CODE 0x10 /* isa-debug-exit: QEMU's status is 2 * code + 1, so 33 */
#define EXIT_FAILURE_CODE 0x11

static _Noreturn void stop(uint32_t status) {
    port_write8(PORT_EXIT, status == 0 ? EXIT_SUCCESS_CODE : EXIT_FAILURE_CODE);
    for (;;) call_ring0(0, 0, 0, 0, 0, SERVICE_HALT);
}

/* The console is never given back: what follows the last line on another CPU is not written. */
_Noreturn void machine_exit(uint32_t status, const char *last_line, uint32_t bytes) {
    console_take();
    console_put(last_line, bytes);
    /* QEMU ends with the port write, whatever its serial port still holds. */
    console_wait(UART_ALL_SENT);
    stop(status);
}

/* Function names by address, made by tools/ from the linked image; in the final link only. */
typedef struct {
    uint32_t address, name;
} Symbol;
extern const uint32_t symbol_count;
extern const Symbol symbols[];
extern const char symbol_names[];
extern const uint8_t user_text_start[], user_text_end[];

static const char *function_at(uint64_t rip) {
    const char *name = "?";
    if (rip < (uintptr_t)user_text_start || rip >= (uintptr_t)user_text_end) return name;
    for (uint32_t i = 0; i < symbol_count && symbols[i].address <= rip; i++)
        name = symbol_names + symbols[i].name;
    return name;
}

/* A line being built for the console. It is on the stack: a panic may come from anywhere. */
typedef struct {
    uint32_t bytes;
    char text[1024];
} Line;

static void put_bytes(Line *line, const char *text, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes && line->bytes < sizeof line->text - 2; i++) {
        bool plain = text[i] >= ' ' && text[i] <= '~' && text[i] != '"' && text[i] != '\\';
        line->text[line->bytes++] = plain ? text[i] : '?';
    }
}

static void put(Line *line, const char *json) {
    while (*json != 0 && line->bytes < sizeof line->text - 2) line->text[line->bytes++] = *json++;
}

static void put_number(Line *line, uint64_t value, uint32_t base) {
    char digits[24];
    uint32_t count = 0;
    do digits[count++] = "0123456789abcdef"[value % base];
    while ((value /= base) != 0);
    while (count > 0) put_bytes(line, &digits[--count], 1);
}

static void put_head(Line *line, const char *event) {
    uint64_t tsc = IMPORT(tsc)(NULL) - machine_facts.boot_tsc;
    uint64_t khz = machine_facts.tsc_khz != 0 ? machine_facts.tsc_khz : 1;
    put(line, "{\"event\":\"");
    put(line, event);
    put(line, "\",\"us\":");
    put_number(line, tsc / khz * 1000 + tsc % khz * 1000 / khz, 10);
    put(line, ",\"cpu\":");
    put_number(line, IMPORT(cpuIndex)(NULL), 10);
}

static void put_end(Line *line) {
    line->text[line->bytes++] = '}';
    line->text[line->bytes++] = '\n';
}

/* Prints the `panic` event and the final `exit` event as one piece of output, and ends the run. */
static _Noreturn void report_panic(const char *cause, const char *message, uint32_t bytes,
                                   uint64_t rip, const uint64_t *address) {
    Line line = {0};
    put_head(&line, "panic");
    put(&line, ",\"cause\":\"");
    put(&line, cause);
    put(&line, "\",\"message\":\"");
    put_bytes(&line, message, bytes);
    put(&line, "\",\"function\":\"");
    put(&line, function_at(rip));
    put(&line, "\",\"rip\":\"0x");
    put_number(&line, rip, 16);
    if (address != NULL) {
        put(&line, "\",\"address\":\"0x");
        put_number(&line, *address, 16);
    }
    put(&line, "\"");
    put_end(&line);
    Line end = {0};
    put_head(&end, "exit");
    put(&end, ",\"status\":\"failure\",\"message\":\"panic\"");
    put_end(&end);
    put(&line, end.text);
    machine_exit(1, line.text, line.bytes);
}

static uint32_t text_length(const char *text) {
    uint32_t bytes = 0;
    while (text[bytes] != 0) bytes++;
    return bytes;
}

static const char *const exception_names[] = {"divide error",
                                              "debug",
                                              "non-maskable interrupt",
                                              "breakpoint",
                                              "overflow",
                                              "bound range",
                                              "invalid opcode",
                                              "device not available",
                                              "double fault",
                                              "exception 9",
                                              "invalid TSS",
                                              "segment not present",
                                              "stack fault",
                                              "general protection fault",
                                              "page fault",
                                              "exception 15",
                                              "x87 error",
                                              "alignment check",
                                              "machine check",
                                              "SIMD error"};

static const char *const trap_names[] = {"none",
                                         "out of bounds memory access",
                                         "integer overflow",
                                         "integer divide by zero",
                                         "invalid conversion to integer",
                                         "unreachable",
                                         "indirect call",
                                         "uncaught exception",
                                         "unaligned access",
                                         "call stack exhausted"};

#define GUARD_BYTES 0x200000000 /* what a Wasm access can reach: 32 bits of index and of offset */

/* Entered from ring0.c's handle_exception, with a fresh stack. */
_Noreturn void user_panic(uint64_t cpu) {
    const ExceptionRecord *record = (const ExceptionRecord *)CPU_INSTANCE;
    uint32_t count = sizeof exception_names / sizeof exception_names[0];
    const char *name = record->vector < count ? exception_names[record->vector] : "exception";
    bool in_linear = record->address - LINEAR_BASE < GUARD_BYTES;
    if (record->active > 1) stop(1);
    if (record->vector != 14)
        report_panic("cpu exception", name, text_length(name), record->rip, NULL);
    if (record->address - (CPU_INSTANCE + 4096) < CPU_USER_STACK - (CPU_INSTANCE + 4096)) {
        const char *exhausted = trap_names[WASM_RT_TRAP_EXHAUSTION];
        report_panic("wasm trap", exhausted, text_length(exhausted), record->rip, NULL);
    }
    if (in_linear) {
        uint64_t address = record->address - LINEAR_BASE;
        report_panic("wasm trap", "out of bounds memory access", 27, record->rip, &address);
    }
    report_panic("cpu exception", name, text_length(name), record->rip, &record->address);
}

/* Inside the call, not behind it: a call that does not return may end its function. */
#define CALLER ((uint64_t)__builtin_return_address(0) - 1)

#define MESSAGE_CHARACTERS_MAX 200

_Noreturn __attribute__((noinline)) void machine_panic(const uint16_t *message,
                                                       uint32_t characters) {
    char text[MESSAGE_CHARACTERS_MAX];
    uint32_t bytes = 0;
    for (; bytes < characters && bytes < sizeof text; bytes++) text[bytes] = (char)message[bytes];
    report_panic("failed check", text, bytes, CALLER, NULL);
}

/* ---- wasm2c's runtime --------------------------------------------------------------------------
 */

_Noreturn __attribute__((noinline)) void wasm_rt_trap(wasm_rt_trap_t code) {
    const char *name = trap_names[code];
    report_panic("wasm trap", name, text_length(name), CALLER, NULL);
}

#define WASM_PAGE 65536

void wasm_rt_allocate_memory(wasm_rt_memory_t *memory, uint64_t pages, uint64_t max_pages,
                             bool is64, uint32_t page_size) {
    *memory = (wasm_rt_memory_t){(uint8_t *)LINEAR_BASE, 0, max_pages, 0, page_size, is64};
    if (wasm_rt_grow_memory(memory, pages) == UINT32_MAX) wasm_rt_trap(WASM_RT_TRAP_OOB);
}

uint64_t wasm_rt_grow_memory(wasm_rt_memory_t *memory, uint64_t pages) {
    uint64_t before = memory->pages, after = before + pages;
    if (after > memory->max_pages) return UINT32_MAX;
    if (!call_ring0(after * WASM_PAGE, 0, 0, 0, 0, SERVICE_GROW)) return UINT32_MAX;
    memory->pages = after;
    memory->size = after * WASM_PAGE;
    return before;
}

/* A CPU's memory lives as long as the CPU; the generated code only wants the name. */
void wasm_rt_free_memory(wasm_rt_memory_t *memory) {
    (void)memory;
}

/* Runs once; by default it would be a fifth of the code. */
static void init_memories(w2c_vireo *instance) __attribute__((optimize("Os")));

#include "cold.h" /* by tools/cold.ts: what need not be fast */
#include "vireo.wasm.c"

_Static_assert(INSTANCE_OFFSET + sizeof(w2c_vireo) <= 4096, "the instance has outgrown its page");

/* Nanoseconds from now to a time stamp, 0 if it has passed, UINT64_MAX for "no limit". */
static uint64_t ns_until(uint64_t deadline) {
    if (deadline == UINT64_MAX) return UINT64_MAX;
    uint64_t now = IMPORT(tsc)(NULL), ticks = deadline - now;
    if (deadline <= now) return 0;
    uint64_t second = (uint64_t)machine_facts.tsc_khz * 1000;
    return ticks > 4 * second ? 4000000000 : ticks * 1000000 / machine_facts.tsc_khz;
}

/* A CPU's whole life: instantiate the module over this CPU's memory, boot it, step and sleep. */
_Noreturn void user_main(uint64_t cpu) {
    w2c_vireo *instance = (w2c_vireo *)(CPU_INSTANCE + INSTANCE_OFFSET);
    if (cpu == 0) console_open();
    wasm2c_vireo_instantiate(instance, NULL);
    w2c_vireo_boot(instance);
    for (;;) {
        uint32_t seen = interrupt_total();
        uint64_t deadline = w2c_vireo_step(instance);
        if (deadline == 0) continue;
        uint64_t ns = ns_until(deadline);
        if (ns != 0) call_ring0(seen, ns == UINT64_MAX ? 0 : ns, 0, 0, 0, SERVICE_WAIT);
    }
}
