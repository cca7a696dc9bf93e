/* SPDX-License-Identifier: Apache-2.0
 *
 * The monitor stands where Linux would when a simulator has no operating system: it maps a static
 * executable at its own addresses, runs it in user mode, and answers the few system calls that
 * simtune's harness and the C library's start-up make. Code, data and stack lie where they lie under
 * user-mode emulation, so the region of interest executes the same instructions on the same lines.
 */
#ifndef SIMTUNE_MONITOR_H
#define SIMTUNE_MONITOR_H

#include <stddef.h>
#include <stdint.h>

/* Written by simtune/simulators/bare.py at RAM + BOOT_OFFSET. All fields little-endian. */
#define BOOT_MAGIC 0x315441424d4d4953ull
enum { MAX_SEGMENTS = 16 };
struct boot_segment {
    uint64_t address, bytes, flags; /* flags as in ELF: 1 execute, 2 write, 4 read */
};
struct boot_block {
    uint64_t magic, entry, headers, n_headers, memory_bytes, n_segments;
    struct boot_segment segments[MAX_SEGMENTS];
    uint64_t stop; /* what the breakpoint that ends the run stands for: 1 begin, 2 end of the region */
    uint64_t argc; /* then the strings, one after the other, each with its zero */
    char arguments[];
};

/* Offsets from the start of memory: page tables, the boot block, the program's own pages. */
#define TABLES_OFFSET 0x200000ull
#define TABLES_END 0xc00000ull
#define BOOT_OFFSET 0xc00000ull
#define PROGRAM_OFFSET 0x1000000ull
#define PAGE 0x1000ull
#define BIG_PAGE 0x200000ull

/* What a trap saves; the assembly knows the offsets. */
struct frame {
    uint64_t regs[32]; /* x0..x31; on AArch64 [31] is sp */
    uint64_t pc, status;
    uint64_t entered; /* instructions executed until the trap, where that can be read */
};

enum trap { TRAP_SYSCALL, TRAP_BREAK, TRAP_ILLEGAL, TRAP_FAULT };

/* monitor.c */
void monitor_start(struct frame *frame, uint64_t ram);
void monitor_trap(struct frame *frame, enum trap kind, uint64_t where);
void print(const char *text);

uint64_t *table_new(void);

/* pages.c */
extern uint64_t *page_root;
void map(uint64_t address, uint64_t physical, uint64_t bytes, unsigned flags);
void unmap(uint64_t address, uint64_t bytes);
/* The physical address, or 0; `left` gets the bytes up to the end of the page. */
uint64_t physical(uint64_t address, uint64_t *left);

/* riscv64.c, aarch64.c: translation, and what an entry of a table at a level looks like, 0 for none. */
extern uint64_t ram_base;
extern const unsigned address_bits;
void map_init(void);
void map_done(void);
uint64_t table_entry(uint64_t *table);
uint64_t leaf_entry(uint64_t physical, int level, unsigned flags);
int entry_is_leaf(uint64_t entry, int level);
int entry_is_user(uint64_t entry);
uint64_t entry_part(uint64_t entry, uint64_t offset, int level); /* `offset` bytes into a big page */
uint64_t entry_address(uint64_t entry);
uint64_t clock_ns(void);
uint64_t hwcap(void);

/* semihosting.c, ../spike/htif.c: files and output of the host. Addresses are physical. */
void host_init(void);
int64_t host_open(const char *path, int write);
int64_t host_read(int64_t file, void *to, uint64_t bytes);
int64_t host_write(int64_t file, const void *from, uint64_t bytes);
void host_close(int64_t file);
void host_mark(int stop, uint64_t instructions);
__attribute__((noreturn)) void host_exit(int code);

#endif
