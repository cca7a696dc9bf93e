/* SPDX-License-Identifier: Apache-2.0
 *
 * Entry point of every candidate's executable: fills the inputs, runs the image's steps inside the
 * region of interest, checks the output and prints what it found as `name value` lines.
 *
 * Exit status: 0 right, 3 wrong output, 4 unusable arguments or files, 5 a kernel raised an error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "image.h"
#include "roi.h"
#include "runtime.h"
#include "tensors.h"

extern const struct image image_window; /* windows.S; the linker puts a candidate there */

enum { EXIT_WRONG = 3, EXIT_UNUSABLE = 4, EXIT_KERNEL = 5 };
enum { STACK_BYTES = 8 << 20, PAGE = 4096, GUARD = 64 << 10 };

/* Tensors lie at a fixed address, so that cache sets do not depend on where the system puts things.
 * --layout moves them by whole pages: one draw of an address layout per value, for native timing. */
static const uintptr_t ARENA_BASE = 0x100000000ull;
static const size_t WORKSPACE_BYTES = 1ull << 30;

static const struct image *image;
static const struct image_tensor *tensors;
static const struct image_step *steps;
static const uint32_t *arg_table;
static char *area; /* tensors, then workspace, then the kernel's stack, then the tables of its calls */

static struct options {
    uint64_t seed;
    long repeat, number, warmup, layout, core, flush;
    int constant, touch;
    double rtol, atol;
    const char *expect, *dump;
} options = {.seed = 0, .repeat = 1, .number = 1, .core = -1};

static DLTensor *dl_tensors;
static TVMFFIAny *call_args;
static int kernel_status;
static struct times {
    double wall, cpu; /* seconds per call; the second leaves out what other processes took */
} *times;

static void die(const char *what, const char *detail) {
    fprintf(stderr, "%s: %s\n", what, detail);
    exit(EXIT_UNUSABLE);
}

static void *tensor_data(uint32_t number) { return area + tensors[number].offset; }

static size_t tensor_bytes(uint32_t number) {
    return tensors[number].elements * element_bytes(&tensors[number]);
}

static void read_file(const char *path, void *into, size_t bytes, int exact) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) die("cannot open", path);
    size_t done = 0;
    for (ssize_t n; done < bytes && (n = read(fd, (char *)into + done, bytes - done)) > 0;) done += (size_t)n;
    char more;
    if (done != bytes || (exact && read(fd, &more, 1) == 1)) die("file has not the size of the tensors", path);
    close(fd);
}

/* Before any memory is touched, so that it lies near the core that uses it. */
static void pin(void) {
    cpu_set_t one;
    if (options.core < 0) return;
    if (options.core >= CPU_SETSIZE) die("--core", "no such core");
    CPU_ZERO(&one);
    CPU_SET((size_t)options.core, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) die("cannot run on the core of --core", strerror(errno));
}

static size_t table_bytes(void) {
    return image->n_tensors * sizeof *dl_tensors + image->n_args * sizeof *call_args;
}

static void map_area(void) {
    /* Offset by an odd number of pages and lines, so that draws differ in page and cache set. */
    uintptr_t base = ARENA_BASE + (uintptr_t)options.layout * (37 * PAGE);
    size_t shift = (size_t)(options.layout % 61) * 64;
    size_t bytes = image->area_bytes + WORKSPACE_BYTES + STACK_BYTES + table_bytes() + 3 * PAGE;
    char *map = mmap((void *)base, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (map == MAP_FAILED) die("cannot map memory for the tensors", "not enough address space");
    /* A mapped page before the first tensor: QEMU 7.2 reads the masked-off lanes of AVX masked loads. */
    area = map + PAGE + shift;
    workspace_init(area + (image->area_bytes + 63) / 64 * 64, WORKSPACE_BYTES);
}

static char *kernel_stack(void) { return area + (image->area_bytes + 63) / 64 * 64 + WORKSPACE_BYTES; }

static void prepare_calls(void) {
    /* Not on the heap: where that begins depends on the length of the executable's path. */
    dl_tensors = (DLTensor *)(kernel_stack() + STACK_BYTES);
    call_args = (TVMFFIAny *)(dl_tensors + image->n_tensors);
    times = calloc((size_t)options.repeat, sizeof *times);
    if (!times) die("cannot allocate", "times");
    for (uint32_t i = 0; i < image->n_tensors; ++i) {
        const struct image_tensor *t = &tensors[i];
        dl_tensors[i] = (DLTensor){.data = tensor_data(i),
                                   .device = {1, 0},
                                   .ndim = t->ndim,
                                   .dtype = {t->code, t->bits, 1},
                                   .shape = (int64_t *)t->shape};
        if (t->role == ROLE_INPUT) fill_input(tensor_data(i), t, i, options.seed, options.constant);
        /* All ones is NaN for floats: an element that the kernel never writes is noticed. */
        else memset(tensor_data(i), 0xff, tensor_bytes(i));
    }
    for (uint32_t i = 0; i < image->n_args; ++i)
        call_args[i] = (TVMFFIAny){.type_index = FFI_TENSOR, .v.ptr = &dl_tensors[arg_table[i]]};
}

static int run_steps(void) {
    for (uint32_t i = 0; i < image->n_steps; ++i) {
        TVMFFIAny result = {.type_index = FFI_NONE};
        int status = ((kernel_fn)(uintptr_t)steps[i].entry)(NULL, call_args + steps[i].first_arg,
                                                           (int32_t)steps[i].n_args, &result);
        if (status != 0) return status;
    }
    return 0;
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A simulated call finds in the caches what it would find there after others, as far as they hold it. */
static void touch_tensors(void) {
    enum { LINE = 64 };
    for (uint32_t i = 0; i < image->n_tensors; ++i) {
        const volatile char *data = tensor_data(i);
        for (size_t at = 0; at < tensor_bytes(i); at += LINE) (void)data[at];
    }
}

/* Reads so many bytes that nothing else uses: what was in the caches is there no more. For simulators
 * whose caches live since the start; the QEMU plugin begins a region with empty ones by itself. */
static void flush_caches(void) {
    const volatile char *unused = area + (image->area_bytes + 63) / 64 * 64 + WORKSPACE_BYTES / 2;
    for (long at = 0; at < options.flush; at += 64) (void)unused[at % (long)(WORKSPACE_BYTES / 2)];
}

/* Runs on its own stack at a fixed address, whatever the command line and environment hold. */
static void measure(void) {
    volatile float third = 1.0f;
    third /= 3.0f; /* sets the inexact flag: emulators are fast from here on */
    flush_caches();
    if (options.touch || options.warmup > 0) ROI_WARM();
    if (options.touch) touch_tensors();
    for (long i = 0; i < options.warmup && kernel_status == 0; ++i) kernel_status = run_steps();
    for (long r = 0; r < options.repeat && kernel_status == 0; ++r) {
        struct times start = {.wall = now(CLOCK_MONOTONIC), .cpu = now(CLOCK_THREAD_CPUTIME_ID)};
        ROI_BEGIN();
        for (long i = 0; i < options.number && kernel_status == 0; ++i) kernel_status = run_steps();
        ROI_END();
        times[r].cpu = (now(CLOCK_THREAD_CPUTIME_ID) - start.cpu) / (double)options.number;
        times[r].wall = (now(CLOCK_MONOTONIC) - start.wall) / (double)options.number;
    }
}

static void call_on_own_stack(void (*function)(void)) {
    static ucontext_t outside, inside;
    char *stack = kernel_stack();
    /* Below lies the workspace: a kernel that needs more stack must crash, not write into it. */
    char *guard = stack + (GUARD - (uintptr_t)stack % GUARD) % GUARD;
    if (mprotect(guard, GUARD, PROT_NONE) != 0) die("cannot guard the stack", "mprotect failed");
    getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = STACK_BYTES;
    inside.uc_link = &outside;
    makecontext(&inside, function, 0);
    swapcontext(&outside, &inside);
}

static void report_outputs(void) {
    uint64_t hash = 0xcbf29ce484222325ull;
    double norm2 = 0, sums[N_PROJECTIONS] = {0};
    FILE *dump = options.dump ? fopen(options.dump, "wb") : NULL;
    if (options.dump && !dump) die("cannot write", options.dump);
    for (uint32_t i = 0; i < image->n_tensors; ++i) {
        if (tensors[i].role != ROLE_OUTPUT) continue;
        hash = checksum(hash, tensor_data(i), tensor_bytes(i));
        /* The projections serve to compare candidates when no reference is known. */
        if (!options.expect) project(&norm2, sums, tensor_data(i), &tensors[i]);
        if (dump && fwrite(tensor_data(i), 1, tensor_bytes(i), dump) != tensor_bytes(i))
            die("cannot write", options.dump);
    }
    if (dump && fclose(dump) != 0) die("cannot write", options.dump);
    printf("checksum %016llx\n", (unsigned long long)hash);
    if (options.expect) return;
    printf("norm2 %.17g\n", norm2);
    for (int k = 0; k < N_PROJECTIONS; ++k) printf("projection.%d %.17g\n", k, sums[k]);
}

/* The reference file holds all outputs one after the other. */
static int check_outputs(void) {
    struct comparison result = {0};
    size_t total = 0, position = 0;
    for (uint32_t i = 0; i < image->n_tensors; ++i)
        if (tensors[i].role == ROLE_OUTPUT) total += tensor_bytes(i);
    char *expected = malloc(total ? total : 1);
    if (!expected) die("cannot allocate", "reference");
    read_file(options.expect, expected, total, 1);
    for (uint32_t i = 0; i < image->n_tensors; ++i) {
        if (tensors[i].role != ROLE_OUTPUT) continue;
        compare(&result, tensor_data(i), expected + position, &tensors[i], options.rtol, options.atol);
        position += tensor_bytes(i);
    }
    printf("max_abs_error %.9g\nmismatches %llu\n", result.max_abs_error, (unsigned long long)result.mismatches);
    if (result.mismatches == 0) return 0;
    fprintf(stderr, "wrong output: %llu elements differ from the reference, first at %llu, largest error %g\n",
            (unsigned long long)result.mismatches, (unsigned long long)result.first_mismatch, result.max_abs_error);
    return EXIT_WRONG;
}

static long whole(const char *name, const char *text, long low) {
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end || value < low) die(name, text);
    return value;
}

struct file_input {
    uint32_t number;
    const char *path;
};

static size_t parse_options(int argc, char **argv, struct file_input *files) {
    size_t n_files = 0;
    for (int i = 1; i < argc; ++i) {
        const char *name = argv[i];
        if (strcmp(name, "--constant") == 0) { options.constant = 1; continue; }
        if (strcmp(name, "--touch") == 0) { options.touch = 1; continue; }
        if (i + 1 == argc) die("option needs a value, or is not known", name);
        char *value = argv[++i];
        if (strcmp(name, "--seed") == 0) options.seed = (uint64_t)whole(name, value, 0);
        else if (strcmp(name, "--repeat") == 0) options.repeat = whole(name, value, 1);
        else if (strcmp(name, "--number") == 0) options.number = whole(name, value, 1);
        else if (strcmp(name, "--warmup") == 0) options.warmup = whole(name, value, 0);
        else if (strcmp(name, "--layout") == 0) options.layout = whole(name, value, 0);
        else if (strcmp(name, "--flush") == 0) options.flush = whole(name, value, 0);
        else if (strcmp(name, "--core") == 0) options.core = whole(name, value, 0);
        else if (strcmp(name, "--rtol") == 0) options.rtol = atof(value);
        else if (strcmp(name, "--atol") == 0) options.atol = atof(value);
        else if (strcmp(name, "--expect") == 0) options.expect = value;
        else if (strcmp(name, "--dump") == 0) options.dump = value;
        else if (strcmp(name, "--input") == 0) {
            char *equals = strchr(value, '=');
            if (!equals) die("--input takes NUMBER=FILE", value);
            *equals = 0;
            files[n_files++] = (struct file_input){(uint32_t)whole(name, value, 0), equals + 1};
        } else die("unknown option", name);
    }
    return n_files;
}

int main(int argc, char **argv) {
    image = &image_window;
    if (image->magic != IMAGE_MAGIC) die("no candidate", "this is the bare harness, link a candidate into it");
    tensors = (const struct image_tensor *)(image + 1);
    steps = (const struct image_step *)(tensors + image->n_tensors);
    arg_table = (const uint32_t *)(steps + image->n_steps);

    struct file_input *files = calloc((size_t)argc, sizeof *files);
    size_t n_files = parse_options(argc, argv, files);
    pin();
    map_area();
    prepare_calls();
    for (size_t i = 0; i < n_files; ++i) {
        if (files[i].number >= image->n_tensors) die("--input names no tensor of this executable", files[i].path);
        read_file(files[i].path, tensor_data(files[i].number), tensor_bytes(files[i].number), 1);
    }
    call_on_own_stack(measure);
    if (kernel_status != 0) {
        fprintf(stderr, "a kernel returned %d\n", kernel_status);
        return EXIT_KERNEL;
    }
    for (long r = 0; r < options.repeat; ++r)
        printf("seconds.%ld %.9g\ncpu_seconds.%ld %.9g\n", r, times[r].wall, r, times[r].cpu);
    if (options.core >= 0) printf("core %d\n", sched_getcpu());
    report_outputs();
    int status = options.expect ? check_outputs() : 0;
    puts("end ok");
    return status;
}
