/**
 * The machine interface: every function that the module imports, and nothing else in the tree
 * declares one. Three hosts implement it: boot/machine.h in the guest (most of these become one
 * instruction in the caller), test/model for Node, boot/process/host.h in a Linux process.
 *
 * The module exports `boot()`, called once on each CPU, and `step(): u64`, called again and again
 * by the host: it does what there is to do and answers the time stamp until which the CPU may
 * sleep (0: call again at once). The host wakes it earlier for any interrupt, also for one that
 * arrived while `step` was running.
 *
 * Linear memory is the CPU's own. A device reaches the byte at pointer `p` at `dmaBase() + p`.
 */

// ---- device memory -----------------------------------------------------------------------------

/**
 * Makes `bytes` bytes of device memory (or of a firmware table) at a physical address reachable.
 * Answers the address to use with mmioRead and mmioWrite plus 1, or 0 when the range is RAM in use
 * or the window (16 MiB) is full.
 */
export declare function mapDevice(physical: u64, bytes: u32): u32;

/** Reads of device memory, each exactly one access of its width, in program order. */
export declare function mmioRead8(address: u32): u32;
export declare function mmioRead16(address: u32): u32;
export declare function mmioRead32(address: u32): u32;

/** Writes to device memory, each exactly one access of its width, in program order. */
export declare function mmioWrite8(address: u32, value: u32): void;
export declare function mmioWrite16(address: u32, value: u32): void;
export declare function mmioWrite32(address: u32, value: u32): void;

/**
 * Ports, 32 bits: 0xcf8 (address) and 0xcfc (data) of PCI configuration mechanism 1, and the
 * registers of ACPI's PCI hot-plug at 0xcc0 and 0xae00, five words each.
 */
export declare function portRead32(port: u32): u32;
export declare function portWrite32(port: u32, value: u32): void;

// ---- memory shared with a device ---------------------------------------------------------------

/** Where linear memory begins in the address space of devices. Constant for this CPU. */
export declare function dmaBase(): u64;

/** Reads of a word that a device may write: exactly one access, never merged or repeated. */
export declare function sharedRead8(pointer: usize): u32;
export declare function sharedRead16(pointer: usize): u32;
export declare function sharedRead32(pointer: usize): u32;
export declare function sharedRead64(pointer: usize): u64;

/** Writes of a word that a device may read: exactly one access, never merged or delayed. */
export declare function sharedWrite16(pointer: usize, value: u32): void;

/** Reads before this stay before what follows (after reading an index that publishes entries). */
export declare function acquire(): void;

/** Writes before this are seen by the device before writes that follow (publishing an index). */
export declare function release(): void;

/** Nothing crosses this, not even a later read an earlier write (before suppression words). */
export declare function fullBarrier(): void;

/** A hint that the cache line at `pointer` is read soon. */
export declare function prefetch(pointer: usize): void;

// ---- CPUs, interrupts, time --------------------------------------------------------------------

/** The number of this CPU, from 0. */
export declare function cpuIndex(): u32;

/** The physical address at which usable RAM ends, 0 if the loader did not say. */
export declare function memoryEnd(): u64;

/**
 * Starts CPU `index` (the next one in order) on its own arena, and waits until it runs. `block` is
 * 128 KiB of RAM for its tables and stacks above all arenas. False if it does not come up.
 */
export declare function cpuStart(
  index: u32,
  apicId: u32,
  block: u64,
  arena: u64,
  arenaBytes: u64,
): bool;

/** Interrupts the CPU with this local APIC, so that it does not go on sleeping. */
export declare function wake(apicId: u32): void;

/**
 * 64 * 1024 words that all CPUs share, zero at first (kernel/mail.ts); in order among themselves.
 */
export declare function mailboxRead(word: u32): u32;
export declare function mailboxWrite(word: u32, value: u32): void;

/** How often the interrupt `vector` arrived on this CPU since boot, modulo 2^32. */
export declare function interruptCount(vector: u32): u32;

/** The time stamp counter, and its rate in kHz. Its value at boot is in bootTsc. */
export declare function tsc(): u64;
export declare function tscKhz(): u32;
export declare function bootTsc(): u64;

/** To be called in a loop that waits for a device. */
export declare function pause(): void;

// ---- firmware, console, end --------------------------------------------------------------------

/** The physical address of ACPI's root pointer, 0 if the loader did not say. */
export declare function acpiRoot(): u64;

/** Copies at most `capacity` bytes of the command line; answers its whole length. */
export declare function commandLine(pointer: usize, capacity: u32): u32;

/** Writes one line, newline included, without another CPU's output in between. */
export declare function consoleWrite(pointer: usize, bytes: u32): void;

/** The next byte of console input, or -1. */
export declare function consoleRead(): i32;

/** 64 random bits, as good as the machine has. Not for keys. */
export declare function entropy(): u64;

/**
 * Writes the run's last line, after which no CPU writes another, and ends the run: 0 is success,
 * anything else failure. Does not return.
 */
export declare function exit(status: u32, pointer: usize, bytes: u32): void;

/**
 * Reports a broken invariant in the form of the `panic` event, and ends the run. The message is a
 * string as AssemblyScript has it: `characters` UTF-16 units.
 */
export declare function panic(message: usize, characters: u32): void;
