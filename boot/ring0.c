/*
 * Boot in ring 0: from the loader's start info to Wasm in ring 3, for CPU 0 and for the others.
 * Called by entry.S and traps.S. Builds a CPU's page tables, GDT, TSS and IDT and leaves; after
 * that ring 0 runs for interrupts (traps.S), services (services.c) and exceptions (here) only.
 */
#include "ring0.h"

#include "packed.h"

/* The PVH start info and its memory map, as the loader (QEMU's or a firmware's) leaves them. */
typedef struct {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, command_line, rsdp, memory_map;
    uint32_t memory_map_entries, reserved;
} StartInfo;

typedef struct {
    uint64_t address, size;
    uint32_t type, reserved;
} MemoryMapEntry;

#define START_INFO_MAGIC 0x336ec578
#define MEMORY_TYPE_RAM 1

typedef struct {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed)) TablePointer;

typedef struct {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
} Gate;

/* The TSS: stacks, then one bit a port; a set bit forbids it. The byte after the map is all ones.
 */
typedef struct {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3;
    uint16_t io_bitmap_offset;
    uint8_t io_bitmap[IO_BITMAP_PORTS / 8 + 1];
} __attribute__((packed)) Tss;

#define GDT_BYTES 0x38
#define TSS_OFFSET 0x80
#define GATE_INTERRUPT 0x8e

extern uint8_t trap_stubs[], ap_trampoline[], ap_trampoline_end[];
extern uint8_t ring0_start[], ring0_end[], user_text_start[], user_text_end[];
extern uint8_t user_rodata_end[], user_end[];
extern void enter_user(void (*entry)(uint64_t), uint64_t stack, uint64_t argument);
extern void load_tables(TablePointer *gdt, TablePointer *idt, uint64_t cr3, uint64_t stack,
                        void (*entry)(void)) __attribute__((noreturn));
extern void user_main(uint64_t cpu), user_panic(uint64_t cpu);

static Gate idt[256] __attribute__((aligned(16)));
static uint64_t image_table[512] __attribute__((aligned(PAGE)));
static uint64_t mmio_directory[512] __attribute__((aligned(PAGE)));
static uint64_t mmio_pdpt[512] __attribute__((aligned(PAGE)));
static CpuBlock cpu0_block __attribute__((aligned(PAGE)));
extern uint64_t boot_pdpt[512];
uint64_t mmio_tables[MMIO_BYTES / LARGE_PAGE][512] __attribute__((aligned(PAGE)));
CpuMemory next_cpu;
volatile uint32_t cpus_started;

/* Until ring 3 has unpacked its part (unpack.c): that part is data, and what it is made of there.
 */
static bool is_packed;

/* Page flags of an image page: each ring sees its own part, and nothing is writable and code. */
static uint64_t image_flags(uint8_t *page) {
    if (page < ring0_end) return PTE_PRESENT | PTE_WRITE;
    if (is_packed && page >= unpacked_start && page < unpacked_end)
        return PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_NX;
    if (page < user_text_end) return PTE_PRESENT | PTE_USER;
    if (page < user_rodata_end) return PTE_PRESENT | PTE_USER | PTE_NX;
    if (page < user_end) return PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_NX;
    return is_packed ? PTE_PRESENT | PTE_USER | PTE_NX : 0;
}

/* The first byte behind what is packed. */
static uint8_t *packed_end(void) {
    uint64_t end = (uintptr_t)packed_streams + packed.numbers_bytes + packed.bytes_bytes;
    return (uint8_t *)(end < ARENA_BASE ? end : ARENA_BASE);
}

static void map_image(uint8_t *first, uint8_t *end) {
    for (uint8_t *page = first; page < end; page += PAGE)
        image_table[(uintptr_t)page / PAGE] = (uintptr_t)page | image_flags(page);
}

/* Ring 3 has unpacked its part: from now on it is code and constants. Once, and on CPU 0 only,
 * because the others are not started before. */
uint64_t seal_image(void) {
    if (!is_packed) return 0;
    is_packed = false;
    map_image(unpacked_start, unpacked_end);
    map_image(user_end, packed_end());
    __asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" ::: "rax", "memory");
    return 1;
}

/* The tables that all CPUs share: the image, the MMIO window, the interrupt gates. */
static void build_shared(void) {
    is_packed = packed.unpacked_bytes != 0;
    map_image(ring0_start, user_end);
    if (is_packed) map_image(user_end, packed_end());
    for (uint32_t i = 0; i < MMIO_BYTES / LARGE_PAGE; i++)
        mmio_directory[i] = image_physical(mmio_tables[i]) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    mmio_pdpt[(MMIO_BASE >> 30) & 511] =
        image_physical(mmio_directory) | PTE_PRESENT | PTE_WRITE | PTE_USER;
    for (uint32_t i = 0; i < 256; i++) {
        uint64_t stub = (uintptr_t)trap_stubs + STUB_BYTES * i;
        bool own_stack = i == 2 || i == 8 || i == 18;
        idt[i] = (Gate){.offset_low = (uint16_t)stub,
                        .selector = SELECTOR_CODE,
                        .ist = own_stack,
                        .type = GATE_INTERRUPT,
                        .offset_middle = (uint16_t)(stub >> 16),
                        .offset_high = (uint32_t)(stub >> 32)};
    }
}

static void allow_ports(Tss *tss, uint32_t first, uint32_t count) {
    for (uint32_t port = first; port < first + count; port++)
        tss->io_bitmap[port / 8] &= (uint8_t) ~(1 << port % 8);
}

/* GDT and TSS at CPU_TABLES. The TSS is made of absolute addresses that are the same everywhere. */
static void build_segments(uint8_t *tables) {
    uint64_t *gdt = (uint64_t *)tables;
    uint64_t tss_base = CPU_TABLES + TSS_OFFSET;
    gdt[SELECTOR_CODE / 8] = 0x00af9b000000ffff;
    gdt[SELECTOR_DATA / 8] = 0x00cf93000000ffff;
    gdt[SELECTOR_USER_DATA / 8] = 0x00cff3000000ffff;
    gdt[SELECTOR_USER_CODE / 8] = 0x00affb000000ffff;
    gdt[SELECTOR_TSS / 8] = (sizeof(Tss) - 1) | (tss_base & 0xffffff) << 16 | 0x89ULL << 40 |
                            (tss_base >> 24 & 0xff) << 56;
    gdt[SELECTOR_TSS / 8 + 1] = tss_base >> 32;
    Tss *tss = (Tss *)(tables + TSS_OFFSET);
    tss->rsp[0] = CPU_STACK + PAGE;
    tss->ist[0] = CPU_IST + PAGE;
    tss->io_bitmap_offset = offsetof(Tss, io_bitmap);
    for (uint32_t i = 0; i < sizeof tss->io_bitmap; i++) tss->io_bitmap[i] = 0xff;
    allow_ports(tss, PORT_COM1, 8);
    allow_ports(tss, PORT_PCI, 8);
    allow_ports(tss, PORT_HOTPLUG_Q35, PORTS_HOTPLUG);
    allow_ports(tss, PORT_HOTPLUG_PC, PORTS_HOTPLUG);
    allow_ports(tss, PORT_EXIT, 1);
}

_Static_assert(TSS_OFFSET + sizeof(Tss) <= CPU_TABLES_BYTES,
               "GDT and TSS have outgrown their place");
_Static_assert(GDT_BYTES <= TSS_OFFSET, "GDT and TSS share one page");

static void map_region(const CpuMemory *cpu, uint64_t virtual, void *member, uint64_t bytes,
                       uint64_t flags) {
    uint64_t physical = cpu->block_physical + (uint64_t)((uint8_t *)member - (uint8_t *)cpu->block);
    for (uint64_t i = 0; i < bytes; i += PAGE)
        cpu->block->region[(virtual - CPU_REGION + i) / PAGE] = (physical + i) | flags;
}

/* Fills a CPU's block, which must be zero: tables, segments, and where its arena lies. */
void build_cpu(const CpuMemory *cpu) {
    CpuBlock *block = cpu->block;
    uint64_t offset = cpu->block_physical - (uint64_t)(uintptr_t)block;
    uint64_t table = PTE_PRESENT | PTE_WRITE | PTE_USER;
    uint64_t kernel = PTE_PRESENT | PTE_WRITE | PTE_NX;
    uint64_t user = kernel | PTE_USER;
    block->pml4[0] = ((uint64_t)(uintptr_t)block->pdpt + offset) | table;
    block->pml4[DIRECT_BASE >> 39] = image_physical(boot_pdpt) | PTE_PRESENT | PTE_WRITE | PTE_NX;
    block->pdpt[0] = ((uint64_t)(uintptr_t)block->low + offset) | table;
    block->pdpt[MMIO_BASE >> 30] = image_physical(mmio_directory) | table;
    block->low[0] = image_physical(image_table) | table;
    block->low[CPU_REGION / LARGE_PAGE] = ((uint64_t)(uintptr_t)block->region + offset) | table;
    map_region(cpu, CPU_INTERRUPTS, &block->interrupts, PAGE, PTE_PRESENT | PTE_USER | PTE_NX);
    map_region(cpu, CPU_ALIAS, &block->interrupts, PAGE, kernel);
    map_region(cpu, CPU_TABLES, block->tables, CPU_TABLES_BYTES, kernel);
    map_region(cpu, CPU_STACK, block->stack, PAGE, kernel);
    map_region(cpu, CPU_IST, block->ist, PAGE, kernel);
    map_region(cpu, CPU_INSTANCE, block->instance, PAGE, user);
    map_region(cpu, CPU_USER_STACK, block->user, CPU_USER_STACK_BYTES, user);
    map_region(cpu, CPU_PANIC_STACK, block->panic, CPU_PANIC_STACK_BYTES, user);
    block->region[(CPU_LAPIC - CPU_REGION) / PAGE] = 0xfee00000 | kernel | PTE_UNCACHED;
    build_segments(block->tables);
    block->interrupts.cpu = cpu->index;
    block->interrupts.arena_physical = cpu->arena_physical;
    block->interrupts.arena_bytes = cpu->arena_bytes;
}

static void leave_boot(void (*entry)(void)) {
    TablePointer gdt = {GDT_BYTES - 1, CPU_TABLES};
    TablePointer interrupts = {sizeof idt - 1, (uintptr_t)idt};
    uint64_t cr3 = next_cpu.block_physical;
    load_tables(&gdt, &interrupts, cr3, CPU_STACK + PAGE, entry);
}

static void start_user(void) {
    uint32_t index = next_cpu.index;
    lapic_enable();
    MachineFacts *facts = (MachineFacts *)(DIRECT_BASE + image_physical(&machine_facts));
    if (index == 0) facts->tsc_khz = measure_tsc_khz();
    cpus_started = index + 1;
    uint64_t stack = CPU_USER_STACK + CPU_USER_STACK_BYTES - 8;
    if (is_packed) enter_user(user_unpack, stack, (uintptr_t)user_main);
    enter_user(user_main, stack, index);
}

/* Takes over what the loader said. Without a memory map memory_end stays 0, which kernel/ reports.
 */
static void read_start_info(const StartInfo *info) {
    if (info->magic != START_INFO_MAGIC) return;
    const char *text = (const char *)(uintptr_t)info->command_line;
    uint32_t length = 0;
    for (; text != NULL && text[length] != 0 && length < 2 * COMMAND_LINE_BYTES; length++)
        if (length < COMMAND_LINE_BYTES - 1) machine_facts.command_line[length] = text[length];
    machine_facts.command_line_bytes = length;
    machine_facts.acpi_root = info->rsdp;
    const MemoryMapEntry *map = (const MemoryMapEntry *)(uintptr_t)info->memory_map;
    for (uint32_t i = 0; info->version >= 1 && i < info->memory_map_entries; i++) {
        uint64_t end = map[i].address + map[i].size;
        if (map[i].type != MEMORY_TYPE_RAM || map[i].address > IMAGE_BASE || end <= IMAGE_BASE)
            continue;
        machine_facts.memory_end = end < DIRECT_BYTES ? end : DIRECT_BYTES;
    }
}

/* CPU 0, from pvh_entry, on the boot tables. */
void boot_cpu_zero(const StartInfo *info) {
    machine_facts.boot_tsc = read_tsc();
    read_start_info(info);
    for (uint8_t *from = ap_trampoline, *to = (uint8_t *)AP_TRAMPOLINE; from < ap_trampoline_end;)
        *to++ = *from++;
    build_shared();
    next_cpu = (CpuMemory){&cpu0_block, image_physical(&cpu0_block), ARENA_BASE, 0, 0};
    uint64_t end = machine_facts.memory_end & ~(uint64_t)(LARGE_PAGE - 1);
    next_cpu.arena_bytes = end > ARENA_BASE ? end - ARENA_BASE : 0;
    build_cpu(&next_cpu);
    leave_boot(start_user);
}

/* Any other CPU, from the trampoline; services.c built its block and put it into next_cpu. */
void boot_cpu_other(void) {
    leave_boot(start_user);
}

/*
 * An exception in either ring ends the CPU's work: the frame is bent so that the return leads to
 * the panic report in ring 3, on a stack of its own. Ring 3 prints, because it knows the names.
 */
void handle_exception(uint64_t *frame, uint64_t address) {
    ExceptionRecord *record = (ExceptionRecord *)CPU_INSTANCE;
    record->active++;
    if (record->active == 1) {
        record->vector = (uint32_t)frame[0];
        record->error = frame[1];
        record->rip = frame[2];
        record->address = address;
    }
    frame[2] = is_packed ? (uintptr_t)unpack_panic : (uintptr_t)user_panic;
    frame[3] = SELECTOR_USER_CODE;
    frame[4] = 2;
    frame[5] = CPU_PANIC_STACK + CPU_PANIC_STACK_BYTES - 8;
    frame[6] = SELECTOR_USER_DATA;
}
