/*
 * What ring 3 may ask of ring 0: wait for an interrupt, grow the linear memory, map device memory,
 * start or wake a CPU, halt, seal the unpacked image. Called through `syscall` (traps.S); ring 3's
 * side is machine.h. Everything here is checked as if the caller were hostile: it can harm only its
 * own work.
 */
#include "ring0.h"

#define LAPIC_SPURIOUS 0xf0
#define LAPIC_ICR_LOW 0x300
#define LAPIC_ICR_HIGH 0x310
#define LAPIC_TIMER 0x320
#define LAPIC_LINT0 0x350
#define LAPIC_TIMER_INITIAL 0x380
#define LAPIC_TIMER_CURRENT 0x390
#define LAPIC_TIMER_DIVIDE 0x3e0
#define LAPIC_ENABLED 0x100
#define LAPIC_MASKED 0x10000
#define LAPIC_DIVIDE_BY_1 0xb
#define ICR_INIT 0x4500
#define ICR_STARTUP 0x4600

#define CPU_START_TIMEOUT_US 5000000ULL
#define CALIBRATION_US 1000

/* The pages of the MMIO window that are in use, from its start. Only CPU 0 maps, before `ready`. */
static uint32_t mmio_pages;

void lapic_enable(void) {
    /* The 8259s hang on LINT0, with vectors nobody has set: a tick would look like an exception. */
    lapic_write(LAPIC_LINT0, LAPIC_MASKED);
    lapic_write(LAPIC_SPURIOUS, LAPIC_ENABLED | VECTOR_SPURIOUS);
    lapic_write(LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_1);
    lapic_write(LAPIC_TIMER, VECTOR_TIMER);
}

/* A pair of readings taken close together: of a few tries the one with the least time between. */
static uint64_t read_tsc_and_timer(uint32_t *timer) {
    uint64_t best = UINT64_MAX, tsc = 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t before = read_tsc();
        uint32_t current = lapic_read(LAPIC_TIMER_CURRENT);
        uint64_t spread = read_tsc() - before;
        if (spread >= best) continue;
        best = spread;
        tsc = before;
        *timer = current;
    }
    return tsc;
}

/*
 * The rate of the time stamp counter, against the local APIC timer: QEMU, KVM and every other
 * emulated APIC count it at 1 GHz when it is divided by 1.
 */
uint32_t measure_tsc_khz(void) {
    uint32_t first = 0, last = 0;
    lapic_write(LAPIC_TIMER, LAPIC_MASKED | VECTOR_TIMER);
    lapic_write(LAPIC_TIMER_INITIAL, UINT32_MAX);
    uint64_t start = read_tsc_and_timer(&first);
    while (first - lapic_read(LAPIC_TIMER_CURRENT) < CALIBRATION_US * 1000) __builtin_ia32_pause();
    uint64_t ticks = read_tsc_and_timer(&last) - start;
    lapic_write(LAPIC_TIMER_INITIAL, 0);
    lapic_write(LAPIC_TIMER, VECTOR_TIMER);
    return (uint32_t)(ticks * 1000000 / (first - last));
}

/* Sleeps until an interrupt or for `ns`; 0 means no time limit. At once if `seen` is out of date.
 */
static uint64_t wait_interrupt(uint32_t seen, uint64_t ns) {
    if (((volatile InterruptPage *)CPU_ALIAS)->total != seen) return 0;
    if (ns != 0) lapic_write(LAPIC_TIMER_INITIAL, ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX);
    __asm__ volatile("sti; hlt; cli" ::: "memory");
    if (ns != 0) lapic_write(LAPIC_TIMER_INITIAL, 0);
    return 0;
}

/* This CPU's own block, through the direct map. */
static CpuBlock *own_block(void) {
    uint64_t cr3;
    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    return (CpuBlock *)(DIRECT_BASE + cr3);
}

/* Maps this CPU's arena up to `bytes`, in 2 MiB pages. Answers 0 beyond what it was given. */
static uint64_t grow_memory(uint64_t bytes) {
    CpuBlock *block = own_block();
    if (bytes > block->interrupts.arena_bytes) return 0;
    uint64_t flags = PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_LARGE | PTE_NX;
    for (uint64_t at = 0; at < bytes; at += LARGE_PAGE)
        block->low[(LINEAR_BASE + at) / LARGE_PAGE] =
            (block->interrupts.arena_physical + at) | flags;
    return 1;
}

/*
 * Adds device memory to the window and answers its offset there plus 1, or 0 if it does not fit or
 * touches RAM. One page-aligned piece a call; a piece is never taken out again.
 */
static uint64_t map_device(uint64_t physical, uint64_t bytes) {
    uint64_t first = physical & ~(uint64_t)(PAGE - 1);
    uint64_t pages = (physical - first + bytes + PAGE - 1) / PAGE;
    bool overflows = physical + bytes < physical || bytes > MMIO_BYTES;
    bool is_ram = first < machine_facts.memory_end && first + pages * PAGE > IMAGE_BASE;
    if (bytes == 0 || overflows || is_ram || mmio_pages + pages > MMIO_BYTES / PAGE) return 0;
    uint64_t flags = PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_UNCACHED | PTE_NX;
    uint64_t offset = (uint64_t)mmio_pages * PAGE + (physical - first);
    for (uint64_t i = 0; i < pages; i++, mmio_pages++)
        mmio_tables[mmio_pages / 512][mmio_pages % 512] = (first + i * PAGE) | flags;
    return offset + 1;
}

static void send_ipi(uint32_t apic_id, uint32_t command) {
    lapic_write(LAPIC_ICR_HIGH, apic_id << 24);
    lapic_write(LAPIC_ICR_LOW, command);
}

/* Where the memory given to other CPUs begins and ends; CPU 0 may not grow into it. */
static uint64_t given_end;

static bool memory_is_free(uint64_t arena, uint64_t bytes, uint64_t block) {
    uint64_t end = machine_facts.memory_end;
    uint64_t first = given_end != 0 ? given_end : ARENA_BASE;
    return arena >= first && arena % LARGE_PAGE == 0 && bytes <= end && arena + bytes <= block &&
           block % PAGE == 0 && block + CPU_BLOCK_BYTES <= end;
}

/*
 * Builds CPU `index` in the RAM given, arenas in ascending order and blocks above them, and starts
 * it. Answers 1 when it has reached ring 3.
 */
static uint64_t start_cpu(uint64_t index, uint64_t apic_id, uint64_t block, uint64_t arena,
                          uint64_t bytes) {
    uint64_t *own_bytes = &own_block()->interrupts.arena_bytes;
    if (index == 0 || index >= CPUS_MAX || cpus_started != index) return 0;
    if (!memory_is_free(arena, bytes, block)) return 0;
    if (arena - ARENA_BASE < *own_bytes) *own_bytes = arena - ARENA_BASE;
    given_end = arena + bytes;
    uint64_t *words = (uint64_t *)(DIRECT_BASE + block);
    for (uint32_t i = 0; i < sizeof(CpuBlock) / 8; i++) words[i] = 0;
    next_cpu = (CpuMemory){(CpuBlock *)words, block, arena, bytes, (uint32_t)index};
    build_cpu(&next_cpu);
    send_ipi((uint32_t)apic_id, ICR_INIT);
    send_ipi((uint32_t)apic_id, ICR_STARTUP | AP_TRAMPOLINE >> 12);
    uint64_t deadline = read_tsc() + CPU_START_TIMEOUT_US * machine_facts.tsc_khz / 1000;
    while (cpus_started != index + 1)
        if (read_tsc() > deadline) return 0;
    return 1;
}

/* An interrupt at another CPU, which then has something to look at in the mailbox. */
static uint64_t wake_cpu(uint64_t apic_id) {
    send_ipi((uint32_t)apic_id & 0xff, VECTOR_WAKE);
    return 1;
}

static _Noreturn void halt_forever(void) {
    for (;;) __asm__ volatile("cli; hlt");
}

uint64_t handle_service(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                        uint64_t number) {
    switch (number) {
        case SERVICE_WAIT: return wait_interrupt((uint32_t)a, b);
        case SERVICE_GROW: return grow_memory(a);
        case SERVICE_MAP: return map_device(a, b);
        case SERVICE_CPU_START: return start_cpu(a, b, c, d, e);
        case SERVICE_WAKE: return wake_cpu(a);
        case SERVICE_UNPACKED: return seal_image();
        case SERVICE_HALT: halt_forever();
        default: return 0;
    }
}
