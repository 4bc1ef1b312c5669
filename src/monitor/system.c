/* SPDX-License-Identifier: MIT */
/*
 * system.c - opening what the kernel tells of a process and its container, and
 * reading it: which file, which limit, which share.
 *
 * Everything begins as unknown, and each file that can be read makes its fields
 * known. Any thread; reads of one handle go one after the other.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "system_impl.h"

/* What /proc/meminfo says of the machine, which does not change. */
static int64_t machine_memory(perf_system *s, const char *proc)
{
    int fd = perf__system_open_file(proc, "", "meminfo");
    int64_t kb = perf__system_load(s, fd) ? perf__system_field(s->buffer, "MemTotal") : -1;
    if (fd >= 0)
        close(fd);
    return kb < 0 || __builtin_mul_overflow(kb, 1024, &kb) ? -1 : kb;
}

/* In mebibytes; -1: not in Lambda, or not a number. */
static int64_t lambda_memory(void)
{
    const char *text = getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE");
    int64_t mb = text ? perf__system_number(&text) : -1;
    return mb <= 0 || *text || __builtin_mul_overflow(mb, 1 << 20, &mb) ? -1 : mb;
}

static void open_files(perf_system *s, const char *proc)
{
    static const struct {
        enum perf__system_file file;
        const char *path, *name;
    } files[] = {
        {PERF__FILE_STAT, "/self", "stat"},   {PERF__FILE_STATUS, "/self", "status"},
        {PERF__FILE_STATM, "/self", "statm"}, {PERF__FILE_IO, "/self", "io"},
        {PERF__FILE_NET, "/self/net", "dev"}, {PERF__FILE_FDS, "/self", "fd"},
        {PERF__FILE_LOAD, "", "loadavg"},     {PERF__FILE_UPTIME, "", "uptime"},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        s->files[files[i].file] = perf__system_open_file(proc, files[i].path, files[i].name);
    if (s->files[PERF__FILE_NET] < 0)
        s->files[PERF__FILE_NET] = perf__system_open_file(proc, "/net", "dev");
    if (!s->live)
        s->files[PERF__FILE_LIMITS] = perf__system_open_file(proc, "/self", "limits");
}

static void read_cpu(perf_system *s, perf_system_stats *stats);

int perf_system_open(const perf_system_options *given, perf_system **out)
{
    perf_system_options o;
    struct perf__host host;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the system's figures");
    if ((rc = perf__options_take("perf_system_options", given, &o, sizeof o)) ||
        (rc = perf__check_range("lambda", o.lambda, 0, 1)) ||
        (rc = perf__host_take(o.host, &host)) || (rc = perf__fork_arm()))
        return rc;
    const char *proc = o.proc ? o.proc : "/proc", *cgroup = o.cgroup ? o.cgroup : "/sys/fs/cgroup";
    if ((rc = perf__check_len("proc", strlen(proc), 1, PATH_MAX / 2)) ||
        (rc = perf__check_len("cgroup", strlen(cgroup), 1, PATH_MAX / 2)))
        return rc;
    perf_system *s = perf__calloc(&host.allocator, 1, sizeof *s);
    if (!s)
        return perf__fail_nomem("the system's figures");
    if (pthread_mutex_init(&s->mutex, NULL)) {
        perf__free(&host.allocator, s);
        return perf__fail_nomem("the mutex of the system's figures");
    }
    s->host = host;
    s->fork_generation = perf__fork_generation;
    s->live = !strcmp(proc, "/proc");
    memset(s->files, -1, sizeof s->files);
    memset(s->levels, -1, sizeof s->levels);
    s->tick_hz = sysconf(_SC_CLK_TCK) > 0 ? sysconf(_SC_CLK_TCK) : 100;
    s->page_size = sysconf(_SC_PAGESIZE) > 0 ? sysconf(_SC_PAGESIZE) : 4096;
    open_files(s, proc);
    s->machine_memory = machine_memory(s, proc);
    s->lambda_memory = o.lambda ? lambda_memory() : -1;
    perf__system_find_cgroup(s, proc, cgroup);
    s->last_cpu_ns = s->last_cgroup_cpu_ns = -1;
    perf_system_stats stats = PERF_SYSTEM_STATS_INIT;
    read_cpu(s, &stats); /* percentages begin here */
    *out = s;
    return PERF_OK;
}

static void close_file(int fd)
{
    if (fd >= 0)
        close(fd);
}

void perf_system_close(perf_system *s)
{
    if (!s)
        return;
    for (int i = 0; i < PERF__FILES; i++)
        close_file(s->files[i]);
    for (int i = 0; i < PERF__SYSTEM_LEVELS; i++) {
        close_file(s->levels[i].max);
        close_file(s->levels[i].high);
        close_file(s->levels[i].quota);
        close_file(s->levels[i].period);
    }
    pthread_mutex_destroy(&s->mutex);
    perf_allocator allocator = s->host.allocator;
    perf__free(&allocator, s);
}

/* ------------------------------------------------------------------ reading */

static void set_unknown(perf_system_stats *stats)
{
    static const perf_pressure none = {-1, -1, -1, -1, -1, -1};
    memset(stats, 0xff, sizeof *stats); /* every integer: -1 */
    stats->struct_size = sizeof *stats;
    stats->cpu_percent = stats->cgroup_cpu_percent = stats->cpu_limit = -1;
    stats->memory_percent = stats->cgroup_memory_percent = -1;
    stats->load_1 = stats->load_5 = stats->load_15 = -1;
    stats->cpu_pressure = stats->memory_pressure = stats->io_pressure = none;
}

/* The share of the limit that was used since; -1 when one of them is not known. */
static double percent(int64_t now, int64_t before, int64_t passed_ns, double limit)
{
    if (now < 0 || before < 0 || now < before || passed_ns <= 0 || limit <= 0)
        return -1;
    return 100.0 * (double)(now - before) / ((double)passed_ns * limit);
}

static void read_cpu(perf_system *s, perf_system_stats *stats)
{
    int64_t now = perf__now_ns(&s->host.clock), passed = now - s->last_ns;
    double quota = perf__system_quota(s), processors = perf__system_processors(s);
    stats->cpu_limit = quota > 0 && (processors <= 0 || quota < processors) ? quota : processors;
    perf__system_read_cgroup_cpu(s, stats);
    stats->cpu_time_ns = perf__system_cpu_time_ns(s);
    stats->cpu_percent = percent(stats->cpu_time_ns, s->last_cpu_ns, passed, stats->cpu_limit);
    stats->cgroup_cpu_percent =
        percent(stats->cgroup_cpu_time_ns, s->last_cgroup_cpu_ns, passed, stats->cpu_limit);
    s->last_ns = now;
    s->last_cpu_ns = stats->cpu_time_ns;
    s->last_cgroup_cpu_ns = stats->cgroup_cpu_time_ns;
}

static void read_memory(perf_system *s, perf_system_stats *stats)
{
    perf__system_read_memory(s, stats);
    perf__system_read_cgroup_memory(s, stats);
    stats->machine_memory = s->machine_memory;
    int64_t limits[] = {stats->cgroup_memory_max, s->lambda_memory, s->machine_memory};
    for (int i = 0; i < 3; i++)
        if (limits[i] > 0 && (stats->memory_limit < 0 || limits[i] < stats->memory_limit))
            stats->memory_limit = limits[i];
    if (stats->memory_limit <= 0)
        return;
    if (stats->rss >= 0)
        stats->memory_percent = 100.0 * (double)stats->rss / (double)stats->memory_limit;
    if (stats->cgroup_memory >= 0) {
        int64_t used = stats->cgroup_memory;
        if (stats->cgroup_inactive_file > 0) /* counted at different times: it may be more */
            used = stats->cgroup_inactive_file < used ? used - stats->cgroup_inactive_file : 0;
        stats->cgroup_memory_percent = 100.0 * (double)used / (double)stats->memory_limit;
    }
}

int perf_system_read(perf_system *s, int64_t parts, perf_system_stats *stats)
{
    perf_system_stats own;
    size_t size;
    int rc;
    if (!s)
        return perf__fail(PERF_EINVAL, "system is NULL; open one first");
    if (s->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    if ((rc = perf__check_range("parts", parts, 1, PERF_SYSTEM_ALL)) ||
        (rc = perf__options_check_out("perf_system_stats", stats, &size)))
        return rc;
    set_unknown(&own);
    pthread_mutex_lock(&s->mutex);
    if (parts & PERF_SYSTEM_CPU)
        read_cpu(s, &own);
    if (parts & PERF_SYSTEM_MEMORY)
        read_memory(s, &own);
    if (parts & PERF_SYSTEM_PROCESS)
        perf__system_read_process(s, &own);
    if (parts & PERF_SYSTEM_IO)
        perf__system_read_io(s, &own);
    if (parts & PERF_SYSTEM_NETWORK)
        perf__system_read_network(s, &own);
    if (parts & PERF_SYSTEM_PRESSURE) {
        perf__system_read_pressure(s, s->files[PERF__FILE_CPU_PRESSURE], &own.cpu_pressure);
        perf__system_read_pressure(s, s->files[PERF__FILE_MEMORY_PRESSURE], &own.memory_pressure);
        perf__system_read_pressure(s, s->files[PERF__FILE_IO_PRESSURE], &own.io_pressure);
    }
    if (parts & PERF_SYSTEM_MACHINE)
        perf__system_read_machine(s, &own);
    own.cgroup_version = !s->memory_levels ? 0 : s->memory_v1 ? 1 : 2;
    pthread_mutex_unlock(&s->mutex);
    perf__options_give(stats, size, &own, sizeof own);
    return PERF_OK;
}
