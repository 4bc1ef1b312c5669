/* SPDX-License-Identifier: MIT */
/*
 * system_process.c - what procfs says of this process, its network and the machine.
 *
 * Where procfs is the kernel's own, a few figures come from system calls
 * that are cheaper or better: processor time to the nanosecond instead of in ticks,
 * switches of all threads instead of the first one's. Under the handle's mutex.
 */
#include <dirent.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../base/clock.h"
#include "system_impl.h"

enum { MOST_FILES = 1 << 20 };

/* Fields of /proc/self/stat by their numbers in proc(5). */
enum { MINOR = 10, MAJOR = 12, USER_TIME = 14, SYSTEM_TIME = 15, THREADS = 20, START = 22 };

/* The field of that number, in the text of stat that is loaded. The name of the program is in
 * parentheses and may hold any: the last one ends it. */
static int64_t stat_field(const perf_system *s, int number)
{
    const char *p = strrchr(s->buffer, ')');
    if (!p)
        return -1;
    perf__system_skip(&p, number - 2);
    return perf__system_number(&p);
}

static int64_t ticks_to_ns(const perf_system *s, int64_t ticks)
{
    int64_t ns;
    if (ticks < 0 || __builtin_mul_overflow(ticks, 1000000000 / s->tick_hz, &ns))
        return -1;
    return ns;
}

int64_t perf__system_cpu_time_ns(perf_system *s)
{
    struct timespec t;
    if (s->live && !clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t))
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    if (!perf__system_load(s, s->files[PERF__FILE_STAT]))
        return -1;
    int64_t user = ticks_to_ns(s, stat_field(s, USER_TIME));
    int64_t kernel = ticks_to_ns(s, stat_field(s, SYSTEM_TIME)), sum;
    return user < 0 || kernel < 0 || __builtin_add_overflow(user, kernel, &sum) ? -1 : sum;
}

/* "0-3,8" in the text of status. */
static double count_list(const char *text)
{
    const char *p = strstr(text, "\nCpus_allowed_list:");
    double count = 0;
    if (!p)
        return -1;
    p += strlen("\nCpus_allowed_list:");
    p += strspn(p, " \t");
    do {
        int64_t first = perf__system_number(&p), last = first;
        if (*p == '-') {
            p++;
            last = perf__system_number(&p);
        }
        if (first < 0 || last < first)
            return -1;
        count += (double)(last - first) + 1;
    } while (*p++ == ',');
    return count;
}

double perf__system_processors(perf_system *s)
{
    /* A machine with more than 8192 processors is read from status. */
    enum { SET = 8192 };
    _Alignas(cpu_set_t) unsigned char set[SET / 8];
    if (s->live && !sched_getaffinity(getpid(), sizeof set, (cpu_set_t *)set))
        return CPU_COUNT_S(sizeof set, (cpu_set_t *)set);
    return perf__system_load(s, s->files[PERF__FILE_STATUS]) ? count_list(s->buffer) : -1;
}

static int64_t kilobytes(const char *text, const char *name)
{
    int64_t v = perf__system_field(text, name);
    return v < 0 || __builtin_mul_overflow(v, 1024, &v) ? -1 : v;
}

static int64_t pages(const perf_system *s, int64_t count)
{
    return count < 0 || __builtin_mul_overflow(count, s->page_size, &count) ? -1 : count;
}

/* statm costs a tenth of status, which alone knows the peak. */
void perf__system_read_memory(perf_system *s, perf_system_stats *stats)
{
    if (!perf__system_load(s, s->files[PERF__FILE_STATM]))
        return;
    const char *p = s->buffer;
    stats->virtual_size = pages(s, perf__system_number(&p));
    perf__system_skip(&p, 0);
    stats->rss = pages(s, perf__system_number(&p));
}

/* The directory's size is their number since Linux 6.2; before, they are counted. */
static int64_t open_files(perf_system *s)
{
    int fd = s->files[PERF__FILE_FDS];
    struct stat st;
    int64_t count = 0;
    if (fd < 0)
        return -1;
    if (s->live && !fstat(fd, &st) && st.st_size > 0)
        return st.st_size;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -1;
    long n; /* not by readdir, which takes memory */
    while (count < MOST_FILES &&
           (n = syscall(SYS_getdents64, fd, s->buffer, sizeof s->buffer)) != 0) {
        if (n < 0)
            return -1;
        for (long at = 0; at < n;) {
            const struct dirent64 *e = (const void *)(s->buffer + at);
            count += e->d_name[0] != '.';
            at += e->d_reclen;
        }
    }
    return count;
}

static int64_t files_limit(perf_system *s)
{
    struct rlimit limit;
    if (s->live && !getrlimit(RLIMIT_NOFILE, &limit))
        return limit.rlim_cur == RLIM_INFINITY ? 0 : (int64_t)limit.rlim_cur;
    if (!perf__system_load(s, s->files[PERF__FILE_LIMITS]))
        return -1;
    const char *p = strstr(s->buffer, "Max open files");
    if (!p)
        return -1;
    perf__system_skip(&p, 3);
    return strncmp(p, "unlimited", 9) ? perf__system_number(&p) : 0;
}

/* From /proc/uptime that is loaded: seconds with two decimals. */
static int64_t uptime_ms(const perf_system *s)
{
    const char *p = s->buffer;
    double seconds = perf__system_decimal(&p);
    return seconds < 0 || seconds > 1e12 ? -1 : (int64_t)(seconds * 1000 + 0.5);
}

void perf__system_read_process(perf_system *s, perf_system_stats *stats)
{
    struct rusage usage;
    int64_t start_ms = -1;
    if (perf__system_load(s, s->files[PERF__FILE_STAT])) {
        stats->threads = stat_field(s, THREADS);
        stats->minor_faults = stat_field(s, MINOR);
        stats->major_faults = stat_field(s, MAJOR);
        start_ms = ticks_to_ns(s, stat_field(s, START));
        start_ms = start_ms < 0 ? -1 : start_ms / 1000000;
    }
    if (start_ms >= 0 && perf__system_load(s, s->files[PERF__FILE_UPTIME])) {
        int64_t machine = uptime_ms(s);
        if (machine >= start_ms) {
            stats->uptime_ms = machine - start_ms;
            stats->start_time_ms = perf__realtime_ms(&s->host.clock) - stats->uptime_ms;
        }
    }
    if (perf__system_load(s, s->files[PERF__FILE_STATUS])) {
        stats->peak_rss = kilobytes(s->buffer, "VmHWM");
        stats->voluntary_switches = perf__system_field(s->buffer, "voluntary_ctxt_switches");
        stats->involuntary_switches = perf__system_field(s->buffer, "nonvoluntary_ctxt_switches");
    }
    if (s->live && !getrusage(RUSAGE_SELF, &usage)) { /* of all threads, not of the first */
        stats->voluntary_switches = usage.ru_nvcsw;
        stats->involuntary_switches = usage.ru_nivcsw;
    }
    stats->open_files = open_files(s);
    stats->open_files_limit = files_limit(s);
}

void perf__system_read_io(perf_system *s, perf_system_stats *stats)
{
    if (!perf__system_load(s, s->files[PERF__FILE_IO]))
        return;
    stats->read_chars = perf__system_field(s->buffer, "rchar");
    stats->written_chars = perf__system_field(s->buffer, "wchar");
    stats->read_calls = perf__system_field(s->buffer, "syscr");
    stats->write_calls = perf__system_field(s->buffer, "syscw");
    stats->read_bytes = perf__system_field(s->buffer, "read_bytes");
    stats->written_bytes = perf__system_field(s->buffer, "write_bytes");
}

/* Two lines of heads, then a line for each interface: "name: " and 16 numbers. A line that is
 * damaged makes all of it unknown: a sum that leaves something out is no sum. */
void perf__system_read_network(perf_system *s, perf_system_stats *stats)
{
    enum { FIELDS = 16 };
    static const int columns[8] = {0, 1, 2, 3, 8, 9, 10, 11};
    int64_t sums[8] = {0};
    if (!perf__system_load(s, s->files[PERF__FILE_NET]))
        return;
    const char *p = strchr(s->buffer, '\n');
    p = p ? strchr(p + 1, '\n') : NULL;
    if (!p)
        return;
    for (p++; *p;) {
        p += strspn(p, " ");
        const char *name = p;
        p += strcspn(p, ":\n");
        if (*p != ':')
            return;
        bool loopback = p - name == 2 && !strncmp(name, "lo", 2);
        int64_t numbers[FIELDS];
        p++;
        for (int i = 0; i < FIELDS; i++) {
            p += strspn(p, " ");
            if ((numbers[i] = perf__system_number(&p)) < 0)
                return;
        }
        for (int i = 0; i < 8 && !loopback; i++)
            if (__builtin_add_overflow(sums[i], numbers[columns[i]], &sums[i]))
                return;
        p += strcspn(p, "\n");
        p += *p == '\n';
    }
    stats->received_bytes = sums[0];
    stats->received_packets = sums[1];
    stats->received_errors = sums[2];
    stats->received_dropped = sums[3];
    stats->sent_bytes = sums[4];
    stats->sent_packets = sums[5];
    stats->sent_errors = sums[6];
    stats->sent_dropped = sums[7];
}

void perf__system_read_machine(perf_system *s, perf_system_stats *stats)
{
    if (perf__system_load(s, s->files[PERF__FILE_LOAD])) {
        const char *p = s->buffer;
        stats->load_1 = perf__system_decimal(&p);
        perf__system_skip(&p, 0);
        stats->load_5 = perf__system_decimal(&p);
        perf__system_skip(&p, 0);
        stats->load_15 = perf__system_decimal(&p);
    }
    if (perf__system_load(s, s->files[PERF__FILE_UPTIME]))
        stats->machine_uptime_ms = uptime_ms(s);
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", and the same for full. */
static void read_line(const char *text, const char *kind, double *avg10, double *avg60,
                      int64_t *total)
{
    static const char *const names[] = {"avg10=", "avg60=", "total="};
    const char *line = strstr(text, kind);
    if (!line)
        return;
    const char *end = line + strcspn(line, "\n");
    for (int i = 0; i < 3; i++) {
        const char *p = strstr(line, names[i]);
        if (!p || p >= end)
            continue;
        p += strlen(names[i]);
        if (i == 2)
            *total = perf__system_number(&p);
        else
            *(i ? avg60 : avg10) = perf__system_decimal(&p);
    }
}

void perf__system_read_pressure(perf_system *s, int fd, perf_pressure *pressure)
{
    if (!perf__system_load(s, fd))
        return;
    read_line(s->buffer, "some ", &pressure->some_avg10, &pressure->some_avg60,
              &pressure->some_total_us);
    read_line(s->buffer, "full ", &pressure->full_avg10, &pressure->full_avg60,
              &pressure->full_total_us);
}
