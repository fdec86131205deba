/*
 * Linear memory that a device shares, for both hosts of the generated code, instruction by
 * instruction. Included by machine.h and by process/host.h, which name the imports (IMPORT) and
 * have the full barrier, in which they differ. x86 keeps loads in order with loads and stores in
 * order with stores, so acquire and release only have to stop the compiler.
 */
#ifndef VIREO_SHARED_MEMORY_H
#define VIREO_SHARED_MEMORY_H

/* The entries of a split ring's used part lie at multiples of 4. virtio 1.4 §2.7.8 */
typedef uint64_t UsedEntry __attribute__((aligned(4)));

#define SHARED(type, pointer) (*(volatile type *)(LINEAR_BASE + (uint64_t)(pointer)))

static inline uint32_t IMPORT(sharedRead8)(Machine *m, uint32_t pointer) {
    return SHARED(uint8_t, pointer);
}
static inline uint32_t IMPORT(sharedRead16)(Machine *m, uint32_t pointer) {
    return SHARED(uint16_t, pointer);
}
static inline uint32_t IMPORT(sharedRead32)(Machine *m, uint32_t pointer) {
    return SHARED(uint32_t, pointer);
}
static inline uint64_t IMPORT(sharedRead64)(Machine *m, uint32_t pointer) {
    return SHARED(UsedEntry, pointer);
}
static inline void IMPORT(sharedWrite16)(Machine *m, uint32_t pointer, uint32_t value) {
    SHARED(uint16_t, pointer) = (uint16_t)value;
}
static inline void IMPORT(acquire)(Machine *m) {
    __asm__ volatile("" ::: "memory");
}
static inline void IMPORT(release)(Machine *m) {
    __asm__ volatile("" ::: "memory");
}
static inline void IMPORT(prefetch)(Machine *m, uint32_t pointer) {
    __builtin_prefetch((const void *)(LINEAR_BASE + (uint64_t)pointer));
}

/* A pointer from Wasm is 32 bits, so it cannot leave the linear memory. */
static inline const char *linear(uint32_t pointer) {
    return (const char *)(LINEAR_BASE + (uint64_t)pointer);
}

#endif
