/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory and system calls of the program. Numbers are those that RISC-V and AArch64 Linux share.
 */
#include "monitor.h"

enum { EBADF = 9, ENOMEM = 12, EFAULT = 14, EINVAL = 22, ENOTTY = 25, ENOSYS = 38, ENOENT = 2 };
enum { EXIT_ILLEGAL = 132, EXIT_ABORT = 134, EXIT_FAULT = 139 };
enum { READ = 4, WRITE = 2, EXECUTE = 1, MAX_PATH = 4096 };

#define STACK_TOP 0x2000000000ull
#define STACK_BYTES 0x800000ull
#define MAPS_START 0x1800000000ull
#define BREAK_BYTES 0x4000000ull

static struct boot_block *boot;
static uint64_t free_physical, end_physical; /* what is not given away yet */
static uint64_t next_map = MAPS_START, break_start, break_now;
static uint64_t stack; /* while it is being filled */
uint64_t ram_base;

void print(const char *text)
{
    uint64_t n = 0;
    while (text[n])
        n++;
    host_write(2, text, n);
}

static void print_hex(uint64_t value)
{
    char text[19] = "0x";
    for (int n = 0; n < 16; n++)
        text[2 + n] = "0123456789abcdef"[value >> (60 - 4 * n) & 15];
    print(text);
}

/* The compiler may call these. */
void *memset(void *to, int value, size_t n)
{
    for (unsigned char *p = to; n--;)
        *p++ = (unsigned char)value;
    return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
    unsigned char *p = to;
    for (const unsigned char *q = from; n--;)
        *p++ = *q++;
    return to;
}

uint64_t *table_new(void)
{
    static uint64_t used;
    uint64_t place = ram_base + TABLES_OFFSET + used;
    if (used >= TABLES_END - TABLES_OFFSET) {
        print("no memory for page tables\n");
        host_exit(EXIT_ABORT);
    }
    used += PAGE;
    return (uint64_t *)place; /* memory is zero at the start */
}

/* Gives fresh memory to a range, in big pages; 0, or an error. */
static int64_t give(uint64_t address, uint64_t bytes, unsigned flags)
{
    uint64_t first = address / BIG_PAGE * BIG_PAGE;
    uint64_t span = (address + bytes - first + BIG_PAGE - 1) / BIG_PAGE * BIG_PAGE;
    if (span > end_physical - free_physical)
        return -ENOMEM;
    map(first, free_physical, span, flags);
    free_physical += span;
    map_done();
    return 0;
}

/* Copies between the monitor and the program; 0, or an error. */
static int64_t copy(uint64_t address, void *mine, uint64_t bytes, int out)
{
    for (uint64_t done = 0, left; done < bytes; done += left) {
        uint64_t place = physical(address + done, &left);
        if (!place)
            return -EFAULT;
        if (left > bytes - done)
            left = bytes - done;
        if (out)
            memcpy((void *)place, (char *)mine + done, left);
        else
            memcpy((char *)mine + done, (void *)place, left);
    }
    return 0;
}

/* A file operation page by page: host buffers want physical addresses. */
static int64_t transfer(uint64_t file, uint64_t address, uint64_t bytes, int write)
{
    uint64_t done = 0, left;
    while (done < bytes) {
        uint64_t place = physical(address + done, &left);
        if (!place)
            return done ? (int64_t)done : -EFAULT;
        if (left > bytes - done)
            left = bytes - done;
        int64_t n = write ? host_write((int64_t)file, (void *)place, left)
                          : host_read((int64_t)file, (void *)place, left);
        if (n < 0)
            return done ? (int64_t)done : -EBADF;
        done += (uint64_t)n;
        if ((uint64_t)n < left)
            break;
    }
    return (int64_t)done;
}

static int64_t open_file(uint64_t name, uint64_t flags)
{
    static char path[MAX_PATH];
    for (uint64_t n = 0; n < sizeof path; n++) {
        if (copy(name + n, path + n, 1, 0))
            return -EFAULT;
        if (!path[n]) {
            int64_t file = host_open(path, (flags & 3) != 0);
            return file < 0 ? -ENOENT : file;
        }
    }
    return -EINVAL;
}

static int64_t write_vector(uint64_t file, uint64_t vector, uint64_t n)
{
    int64_t total = 0;
    for (uint64_t k = 0; k < n; k++) {
        uint64_t item[2];
        if (copy(vector + 16 * k, item, sizeof item, 0))
            return -EFAULT;
        int64_t done = transfer(file, item[0], item[1], 1);
        if (done < 0)
            return total ? total : done;
        total += done;
    }
    return total;
}

static int64_t map_memory(uint64_t address, uint64_t bytes, uint64_t protection, uint64_t flags)
{
    enum { FIXED = 0x10, ANONYMOUS = 0x20 };
    uint64_t left;
    if (!(flags & ANONYMOUS) || !bytes)
        return -ENOSYS;
    bytes = (bytes + PAGE - 1) / PAGE * PAGE;
    if (!address || (!(flags & FIXED) && physical(address, &left))) {
        address = next_map;
        next_map += (bytes + 2 * BIG_PAGE - 1) / BIG_PAGE * BIG_PAGE;
    }
    (void)protection;
    int64_t problem = give(address, bytes, READ | WRITE);
    return problem ? problem : (int64_t)address;
}

static int64_t set_break(uint64_t address)
{
    if (address >= break_start && address <= break_start + BREAK_BYTES)
        break_now = address;
    return (int64_t)break_now;
}

static int64_t tell_system(uint64_t to)
{
    static char names[6][65] = {"Linux", "simtune", "6.1.0", "bare", "", ""};
    return copy(to, names, sizeof names, 1);
}

static int64_t tell_time(uint64_t to)
{
    uint64_t now = clock_ns(), pair[2] = {now / 1000000000u, now % 1000000000u};
    return copy(to, pair, sizeof pair, 1);
}

static int64_t tell_limit(uint64_t to)
{
    uint64_t pair[2] = {STACK_BYTES, STACK_BYTES};
    return to ? copy(to, pair, sizeof pair, 1) : 0;
}

static int64_t tell_random(uint64_t to, uint64_t bytes)
{
    for (uint64_t n = 0; n < bytes; n++) {
        char constant = (char)(n * 37 + 11);
        if (copy(to + n, &constant, 1, 1))
            return -EFAULT;
    }
    return (int64_t)bytes;
}

static int64_t system_call(uint64_t number, const uint64_t *a)
{
    switch (number) {
    case 29: return -ENOTTY;                               /* ioctl */
    case 56: return open_file(a[1], a[2]);                 /* openat */
    case 57: host_close((int64_t)a[0]); return 0;          /* close */
    case 63: return transfer(a[0], a[1], a[2], 0);         /* read */
    case 64: return transfer(a[0], a[1], a[2], 1);         /* write */
    case 66: return write_vector(a[0], a[1], a[2]);        /* writev */
    case 78: return -ENOENT;                               /* readlinkat */
    case 93: case 94: host_exit((int)(a[0] & 0xff));       /* exit, exit_group */
    case 96: case 172: case 178: return 1;                 /* set_tid_address, getpid, gettid */
    case 98: case 99: case 134: case 135: return 0;        /* futex, robust list, signals */
    case 113: return tell_time(a[1]);                      /* clock_gettime */
    case 129: case 130: case 131: host_exit(EXIT_ABORT);   /* kill, tkill, tgkill */
    case 160: return tell_system(a[0]);                    /* uname */
    case 174: case 175: case 176: case 177: return 0;      /* user and group */
    case 214: return set_break(a[0]);                      /* brk */
    case 215: case 233: return 0;                          /* munmap, madvise */
    case 222: return map_memory(a[0], a[1], a[2], a[3]);   /* mmap */
    case 226:                                              /* mprotect: guards only */
        if (!a[2])
            unmap(a[0], a[1]);
        return 0;
    case 261: return tell_limit(a[3]);                     /* prlimit64 */
    case 278: return tell_random(a[0], a[1]);              /* getrandom */
    default: return -ENOSYS;
    }
}

static void push(const void *bytes, uint64_t n, uint64_t align)
{
    stack = (stack - n) / align * align;
    copy(stack, (void *)bytes, n, 1);
}

/* Arguments, an empty environment and the auxiliary vector, as Linux leaves them. */
static void fill_stack(void)
{
    static uint64_t words[512];
    uint64_t n = 0, strings[256], argc = boot->argc < 255 ? boot->argc : 255;
    char seed[16];
    const char *text = boot->arguments;
    stack = STACK_TOP - 64;
    for (int k = 0; k < 16; k++)
        seed[k] = (char)(k * 41 + 7);
    push(seed, sizeof seed, 16);
    uint64_t random = stack;
    for (uint64_t k = 0; k < argc; k++) {
        uint64_t length = 1;
        while (text[length - 1])
            length++;
        push(text, length, 1);
        strings[k] = stack;
        text += length;
    }
    words[n++] = argc;
    for (uint64_t k = 0; k < argc; k++)
        words[n++] = strings[k];
    n += 2; /* ends of the arguments and of the environment */
    const uint64_t vector[][2] = {{3, boot->headers}, {4, 56}, {5, boot->n_headers}, {6, PAGE}, {7, 0}, {8, 0},
                                  {9, boot->entry}, {11, 0}, {12, 0}, {13, 0}, {14, 0}, {16, hwcap()},
                                  {17, 100}, {23, 0}, {25, random}, {31, argc ? strings[0] : random}, {0, 0}};
    memcpy(words + n, vector, sizeof vector);
    n += sizeof vector / sizeof *words;
    stack = stack / 16 * 16;
    push(words, 8 * n, 16);
}

void monitor_start(struct frame *frame, uint64_t ram)
{
    ram_base = ram;
    host_init();
    boot = (struct boot_block *)(ram + BOOT_OFFSET);
    if (boot->magic != BOOT_MAGIC || boot->n_segments > MAX_SEGMENTS) {
        print("no program to run\n");
        host_exit(EXIT_ABORT);
    }
    map_init();
    uint64_t top = 0;
    for (uint64_t k = 0; k < boot->n_segments; k++) {
        const struct boot_segment *s = boot->segments + k;
        uint64_t first = s->address / PAGE * PAGE;
        uint64_t end = (s->address + s->bytes + PAGE - 1) / PAGE * PAGE;
        map(first, ram + PROGRAM_OFFSET + first, end - first, (unsigned)s->flags);
        top = end > top ? end : top;
    }
    /* Memory behind the program, page by page where it starts, so that nothing else changes hands. */
    free_physical = ram + PROGRAM_OFFSET + (top + BIG_PAGE - 1) / BIG_PAGE * BIG_PAGE;
    end_physical = ram + boot->memory_bytes;
    break_start = break_now = (top + 2 * BIG_PAGE - 1) / BIG_PAGE * BIG_PAGE;
    if (free_physical > end_physical || give(break_start, BREAK_BYTES, READ | WRITE) ||
        give(STACK_TOP - STACK_BYTES, STACK_BYTES, READ | WRITE)) {
        print("the program does not fit into memory\n");
        host_exit(4);
    }
    fill_stack();
    map_done();
    frame->pc = boot->entry;
#if defined(__riscv)
    frame->regs[2] = stack;
#else
    frame->regs[31] = stack;
#endif
}

void monitor_trap(struct frame *frame, enum trap kind, uint64_t where)
{
#if defined(__riscv)
    uint64_t number = frame->regs[17], *arguments = frame->regs + 10;
#else
    uint64_t number = frame->regs[8], *arguments = frame->regs;
#endif
    if (kind == TRAP_SYSCALL) {
        arguments[0] = (uint64_t)system_call(number, arguments);
        return;
    }
    if (kind == TRAP_BREAK && boot->stop) { /* stands in the place of a mark */
        host_mark((int)boot->stop, frame->entered);
        host_exit(0);
    }
    print(kind == TRAP_FAULT ? "memory fault at " : "illegal instruction at ");
    print_hex(kind == TRAP_FAULT ? where : frame->pc);
    print(", code at ");
    print_hex(frame->pc);
    print("\n");
    host_exit(kind == TRAP_FAULT ? EXIT_FAULT : EXIT_ILLEGAL);
}
