// SPDX-License-Identifier: Apache-2.0
/*
 * launch: supervises the process tree of one job.
 *
 *   launch parent=PID [wall=S] [cpu=S] [memory=B] [output=B] [file=B] [grace=S]
 *          [cwd=DIR] [layout=fixed] [network=off] -- PROGRAM [ARGUMENT...]
 *
 * Standard output receives one line "key=value ..." about how the job ended, followed by the
 * tails of the job's own output and error streams (their lengths are in that line).
 *
 * No process of the job outlives the launcher's report:
 *  - as child subreaper the launcher inherits what the job daemonises, so its tree is complete;
 *  - it ends the job when asked to (SIGTERM, SIGINT, SIGHUP), when the thread that started it
 *    dies (parent-death signal, which also covers kill -9), and when nobody can read the report;
 *  - the main process dies with the launcher.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RESULT = STDOUT_FILENO, OUT_TAIL = 64 << 10, ERR_TAIL = 16 << 10, MAX_TREE = 1 << 15 };

/* What the caller asked for; an unlimited bound is infinite. */
struct limits {
    double wall, cpu, memory, output, file, grace;
    pid_t parent;
    const char *cwd;
    int fixed_layout, offline;
};

/* The last bytes of a stream: a ring in which `total % size` is the oldest byte. */
struct tail {
    int fd;
    uint64_t total;
    size_t size;
    char *bytes;
};

static struct limits limits = {
    INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, 0.5, 0, NULL, 0, 0,
};
static char out_bytes[OUT_TAIL], err_bytes[ERR_TAIL];
static struct tail out = {-1, 0, sizeof out_bytes, out_bytes};
static struct tail err = {-1, 0, sizeof err_bytes, err_bytes};

static pid_t self, main_pid;
static int main_status, main_ended;
static const char *reason;      /* why we ended the job; NULL while it runs on its own */
static double term_until;       /* end of the grace after TERM; 0 when KILL is due */
static double peak_tree;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
    fprintf(stderr, "launch: %s: %s\n", what, strerror(errno));
    exit(125);
}

/* ---- the process tree ------------------------------------------------------------------ */

/* Reads a small file of /proc as text; empty if its process has gone. */
static const char *slurp(const char *path)
{
    static char text[1 << 16];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t used = 0, n = 0;
    while (fd >= 0 && (n = read(fd, text + used, sizeof text - 1 - (size_t)used)) > 0)
        used += n;
    if (fd >= 0)
        close(fd);
    text[used] = 0;
    return text;
}

/* Appends the children of one thread. */
static int add_children(pid_t pid, const char *thread, pid_t *tree, int count)
{
    char path[64], *end;
    snprintf(path, sizeof path, "/proc/%d/task/%.20s/children", (int)pid, thread);
    for (const char *text = slurp(path); count < MAX_TREE; text = end) {
        pid_t child = (pid_t)strtol(text, &end, 10);
        if (end == text)
            break;
        tree[count++] = child;
    }
    return count;
}

/* All descendants. A process that forks meanwhile may be missed: callers look again. */
static int find_tree(pid_t *tree)
{
    char path[32];
    snprintf(path, sizeof path, "%d", (int)self);
    int count = add_children(self, path, tree, 0);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "/proc/%d/task", (int)tree[i]);
        DIR *threads = opendir(path);
        for (struct dirent *t; threads && (t = readdir(threads));)
            if (t->d_name[0] != '.')
                count = add_children(tree[i], t->d_name, tree, count);
        if (threads)
            closedir(threads);
    }
    return count;
}

/* Resident bytes of one process; 0 for a zombie. */
static double resident(pid_t pid)
{
    char path[32], *end;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    strtol(slurp(path), &end, 10);
    return (double)strtol(end, NULL, 10) * (double)sysconf(_SC_PAGESIZE);
}

/* Signals the whole tree and returns how many of it were alive. */
static int signal_tree(int sig)
{
    static pid_t tree[MAX_TREE];
    int alive = 0, count = find_tree(tree);
    for (int i = 0; i < count; i++) {
        alive += resident(tree[i]) > 0;
        /* A group is killed at once, so its members cannot out-fork us. */
        pid_t group = getpgid(tree[i]);
        if (sig == SIGKILL && group > 1 && group != getpgrp())
            kill(-group, sig);
        kill(tree[i], sig);
    }
    return alive;
}

static void stop(const char *why, int sig)
{
    if (reason && sig == SIGTERM)
        return;
    /* The first reason is the cause; a later KILL only shortens the grace. */
    if (!reason)
        reason = why;
    term_until = sig == SIGTERM ? now() + limits.grace : 0;
    signal_tree(sig);
}

/* Memory and CPU so far. The kernel's own CPU limit is the backstop of this finer one. */
static void sample(double *interval)
{
    static pid_t tree[MAX_TREE];
    double bytes = 0, cpu = 0;
    int count = find_tree(tree);
    for (int i = 0; i < count; i++)
        bytes += resident(tree[i]);
    if (bytes > peak_tree)
        peak_tree = bytes;

    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(main_pid, &clock) == 0 && clock_gettime(clock, &t) == 0)
        cpu = (double)t.tv_sec + (double)t.tv_nsec * 1e-9;

    if (bytes > limits.memory)
        stop("memory", SIGKILL);
    else if (cpu > limits.cpu)
        stop("cpu_timeout", SIGTERM);
    /* Sparse for long jobs, dense for those that come near their limit. */
    *interval = bytes > limits.memory / 2 ? 0.005 : fmin(2 * *interval, 0.1);
}

static int reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == main_pid) {
            main_ended = 1;
            main_status = status;
        }
    return pid < 0 && errno == ECHILD;
}

/* ---- streams --------------------------------------------------------------------------- */

/* Reads once; returns 0 when there is nothing (more) to read. */
static int pump(struct tail *t)
{
    size_t at = t->total % t->size;
    ssize_t n = t->fd < 0 ? -1 : read(t->fd, t->bytes + at, t->size - at);
    if (n == 0) {
        close(t->fd);
        t->fd = -1;
    }
    if (n > 0)
        t->total += (uint64_t)n;
    if ((double)(out.total + err.total) > limits.output && reason == NULL)
        stop("output_flood", SIGKILL);
    return n > 0;
}

static size_t kept(const struct tail *t)
{
    return t->total < t->size ? (size_t)t->total : t->size;
}

static void emit(const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t n = write(RESULT, bytes, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            exit(1); /* nobody is left to read it */
        bytes += n;
        count -= (size_t)n;
    }
}

static void emit_tail(const struct tail *t)
{
    size_t oldest = t->total < t->size ? 0 : t->total % t->size;
    emit(t->bytes + oldest, kept(t) - oldest);
    emit(t->bytes, oldest);
}

/* ---- the job --------------------------------------------------------------------------- */

static void bound(int resource, double soft, double hard)
{
    struct rlimit r;
    getrlimit(resource, &r);
    if (soft < (double)r.rlim_max) {
        r.rlim_cur = (rlim_t)soft;
        r.rlim_max = (rlim_t)fmin(hard, (double)r.rlim_max);
        setrlimit(resource, &r);
    }
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text, strlen(text)) >= 0)
        close(fd);
}

/* Leaves the machine's network for an empty one of our own; returns 0 where the kernel refuses. */
static int leave_network(void)
{
    unsigned uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWNET) == 0) /* root may do so */
        return 1;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return 0;
    /* The same user as before, so that files stay accessible. */
    char map[64];
    put("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%u %u 1", uid, uid);
    put("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%u %u 1", gid, gid);
    put("/proc/self/gid_map", map);
    return 1;
}

_Noreturn static void become_job(char **argv, int out_fd, int err_fd, int failure_fd)
{
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != self)
        _exit(127);

    for (int sig = 1; sig < 32; sig++)
        signal(sig, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    bound(RLIMIT_CORE, 0, 0);
    if (isfinite(limits.cpu))
        bound(RLIMIT_CPU, ceil(limits.cpu), ceil(limits.cpu) + 1);
    if (isfinite(limits.file))
        bound(RLIMIT_FSIZE, limits.file, limits.file);
    /* Simulators count by address. Some containers refuse this; the job then runs randomised. */
    if (limits.fixed_layout)
        personality(ADDR_NO_RANDOMIZE);
    /* When memory runs out everywhere, a job is to go before the tuner. */
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score >= 0 && write(score, "500", 3) == 3)
        close(score);

    const char *problem = "cannot open /dev/null for";
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0 && dup2(null, 0) == 0 && dup2(out_fd, 1) == 1 && dup2(err_fd, 2) == 2) {
        problem = "cannot enter the working folder of";
        if (!limits.cwd || chdir(limits.cwd) == 0) {
            problem = "cannot execute";
            /* Not execvp for paths: it hands files of an unknown format to the shell. */
            if (strchr(argv[0], '/'))
                execv(argv[0], argv);
            else
                execvp(argv[0], argv);
        }
    }
    dprintf(failure_fd, "%s '%s': %s", problem, argv[0], strerror(errno));
    _exit(127);
}

static void parse(int argc, char **argv, int *program)
{
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        static const struct { const char *name; double *value; } numbers[] = {
            {"wall=", &limits.wall},     {"cpu=", &limits.cpu},   {"memory=", &limits.memory},
            {"output=", &limits.output}, {"file=", &limits.file}, {"grace=", &limits.grace},
        };
        size_t n = 0, known = sizeof numbers / sizeof *numbers;
        while (n < known && strncmp(argv[i], numbers[n].name, strlen(numbers[n].name)) != 0)
            n++;
        if (n < known)
            *numbers[n].value = strtod(strchr(argv[i], '=') + 1, NULL);
        else if (strncmp(argv[i], "parent=", 7) == 0)
            limits.parent = atoi(argv[i] + 7);
        else if (strncmp(argv[i], "cwd=", 4) == 0)
            limits.cwd = argv[i] + 4;
        else if (strcmp(argv[i], "layout=fixed") == 0)
            limits.fixed_layout = 1;
        else if (strcmp(argv[i], "network=off") == 0)
            limits.offline = 1;
        else
            break;
    }
    *program = i + 1;
    if (i + 1 >= argc || strcmp(argv[i], "--") != 0) {
        fprintf(stderr, "launch: bad argument '%s'\n", i < argc ? argv[i] : "");
        exit(125);
    }
}

/* Until the main process has ended, whoever ended it. */
static void supervise(int signals, double started)
{
    /* Most jobs last some tens of milliseconds, and a sample costs a third of one: not too early. */
    double interval = 0.02, next_sample = started + interval;
    while (!main_ended) {
        double next = fmin(next_sample, reason ? INFINITY : started + limits.wall);
        if (reason)
            /* What KILL has missed, because it was just being forked, is killed next time. */
            next = fmin(next, term_until > 0 ? term_until : now() + 0.01);
        double wait = fmax(next - now(), 0);
        struct timespec timeout = {(time_t)wait, (long)((wait - floor(wait)) * 1e9)};
        struct pollfd fds[] = {
            {signals, POLLIN, 0},
            {out.fd, POLLIN, 0},
            {err.fd, POLLIN, 0},
            {RESULT, 0, 0}, /* only reports that the reader has gone */
        };
        ppoll(fds, 4, &timeout, NULL);

        if (fds[1].revents)
            pump(&out);
        if (fds[2].revents)
            pump(&err);
        struct signalfd_siginfo info;
        while (read(signals, &info, sizeof info) == sizeof info)
            if (info.ssi_signo != SIGCHLD)
                stop("cancelled", SIGKILL);
        if (fds[3].revents & (POLLERR | POLLHUP | POLLNVAL))
            stop("cancelled", SIGKILL);

        reap();
        double t = now();
        if (main_ended)
            break;
        if (t >= started + limits.wall)
            stop("wall_timeout", SIGTERM);
        if (t >= next_sample) {
            sample(&interval);
            next_sample = t + interval;
        }
        if (reason && t >= term_until)
            signal_tree(SIGKILL);
    }
}

/* Kills what the main process left behind, and returns how much that was. */
static int sweep(int signals)
{
    if (reap())
        return 0;
    int leftovers = signal_tree(SIGKILL);
    double give_up = now() + 5; /* a process inside a broken driver cannot be killed */
    while (!reap() && now() < give_up) {
        struct signalfd_siginfo info;
        struct pollfd fd = {signals, POLLIN, 0};
        poll(&fd, 1, 5);
        while (read(signals, &info, sizeof info) == sizeof info)
            ;
        signal_tree(SIGKILL);
    }
    return leftovers;
}

static void report(double wall, int leftovers, const char *failure)
{
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
               + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    double peak = (double)used.ru_maxrss * 1024;
    int sig = WIFSIGNALED(main_status) ? WTERMSIG(main_status) : 0;

    const char *ending = reason;
    if (*failure)
        ending = "launch_failed";
    else if (!ending && peak > limits.memory)
        ending = "memory"; /* it was too quick for a sample, yet the same job ends the same way */
    else if (!ending && (sig == SIGXCPU || (sig == SIGKILL && cpu >= limits.cpu)))
        ending = "cpu_timeout";
    else if (!ending)
        ending = sig ? "signaled" : "exited";

    char line[512];
    int n = snprintf(line, sizeof line,
                     "ending=%s code=%d signal=%d wall=%.6f cpu=%.6f rss=%.0f tree_rss=%.0f "
                     "leftovers=%d network=%s stdout=%zu stderr=%zu\n",
                     ending, sig ? -1 : WEXITSTATUS(main_status), sig, wall, cpu, peak,
                     fmax(peak, peak_tree), reason ? 0 : leftovers, limits.offline ? "off" : "on", kept(&out),
                     kept(&err));
    emit(line, (size_t)n);
    emit_tail(&out);
    emit_tail(&err);
}

int main(int argc, char **argv)
{
    int program;
    parse(argc, argv, &program);
    self = getpid();

    sigset_t handled;
    sigemptyset(&handled);
    for (const int *s = (int[]){SIGCHLD, SIGTERM, SIGINT, SIGHUP, 0}; *s; s++) {
        signal(*s, SIG_DFL); /* an inherited "ignore" of SIGCHLD would lose the exit status */
        sigaddset(&handled, *s);
    }
    sigprocmask(SIG_SETMASK, &handled, NULL);
    signal(SIGPIPE, SIG_IGN);
    /* Before the parent-death signal, which the kernel forgets when credentials change. */
    if (limits.offline)
        limits.offline = leave_network();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != limits.parent)
        return 125; /* it died before the line above */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
#ifdef SYS_close_range
    syscall(SYS_close_range, 3u, ~0u, 0u);
#endif

    int signals = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
    int out_pipe[2], err_pipe[2], failure_pipe[2];
    if (signals < 0 || pipe2(out_pipe, O_CLOEXEC) || pipe2(err_pipe, O_CLOEXEC)
        || pipe2(failure_pipe, O_CLOEXEC))
        die("cannot open descriptors");

    double started = now();
    main_pid = fork();
    if (main_pid < 0)
        die("cannot fork");
    if (main_pid == 0)
        become_job(argv + program, out_pipe[1], err_pipe[1], failure_pipe[1]);
    close(out_pipe[1]);
    close(err_pipe[1]);
    close(failure_pipe[1]);
    /* Only our ends: the other end is a file description of its own. */
    fcntl(out.fd = out_pipe[0], F_SETFL, O_NONBLOCK);
    fcntl(err.fd = err_pipe[0], F_SETFL, O_NONBLOCK);
    fcntl(failure_pipe[0], F_SETFL, O_NONBLOCK);

    supervise(signals, started);
    double wall = now() - started;
    int leftovers = sweep(signals);
    /* Bounded: a descriptor may have been handed to a process outside of the tree. */
    for (int rounds = 64; rounds > 0 && pump(&out) + pump(&err) > 0; rounds--)
        ;

    char failure[512] = "";
    ssize_t n = read(failure_pipe[0], failure, sizeof failure - 1);
    if (n > 0) {
        err.total = (uint64_t)n;
        memcpy(err.bytes, failure, (size_t)n);
    }
    report(wall, leftovers, failure);
    return 0;
}
