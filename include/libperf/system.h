/* SPDX-License-Identifier: MIT */
/*
 * system.h - what this process and its container use, and what they may use.
 *
 * In four lines:
 *
 *     perf_system_open(NULL, &system);
 *     perf_system_stats stats = PERF_SYSTEM_STATS_INIT;
 *     perf_system_read(system, PERF_SYSTEM_BASIC, &stats);
 *     printf("%.1f %% of %.2f processors\n", stats.cpu_percent, stats.cpu_limit);
 *
 * Caveats first
 *  - What is not known is -1: a file that is missing, damaged or not allowed leaves its
 *    fields unknown and all others right. Only Linux knows anything.
 *  - Percentages are since the last read that asked for the processor, or since
 *    the open. Who reads one handle from two places gets shorter intervals; open one for each.
 *  - Limits are the least on the way from the process's cgroup to the root, for each level
 *    counts. Below "cgroup" are the figures of the process's own cgroup, which
 *    may hold other processes, too.
 *  - The files are kept open (about 20 descriptors) and read again. A process that is moved
 *    to another cgroup afterwards opens a new handle.
 *  - Threads: any function from any thread; reads of one handle go one after the other.
 *  - fork(): calls on an inherited handle return PERF_EFORKED.
 */
#ifndef LIBPERF_SYSTEM_H
#define LIBPERF_SYSTEM_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** Files of the kernel that are read again and again. */
typedef struct perf_system perf_system;

/** How to open one. Zero in a field means the default. */
typedef struct perf_system_options {
    size_t struct_size;
    const char *proc;      /**< where procfs is; default "/proc" */
    const char *cgroup;    /**< where cgroups are; default "/sys/fs/cgroup" */
    int64_t lambda;        /**< 1: AWS_LAMBDA_FUNCTION_MEMORY_SIZE, if set, is a limit, too. It is
                                read when opening */
    const perf_host *host; /**< allocator, clock, log */
} perf_system_options;
#define PERF_SYSTEM_OPTIONS_INIT                \
    {                                           \
        sizeof(perf_system_options), 0, 0, 0, 0 \
    }

/** Opens the files that are there; options may be NULL. PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_system_open(const perf_system_options *options, perf_system **out);

/** Closes them. NULL is allowed. Since 1.0. */
PERF_API void perf_system_close(perf_system *system);

/** What to read; combine with |. */
enum {
    PERF_SYSTEM_CPU = 1,       /**< the processor */
    PERF_SYSTEM_MEMORY = 2,    /**< memory */
    PERF_SYSTEM_PROCESS = 4,   /**< peak, files, threads, switches, faults */
    PERF_SYSTEM_IO = 8,        /**< bytes read and written */
    PERF_SYSTEM_NETWORK = 16,  /**< bytes sent and received */
    PERF_SYSTEM_PRESSURE = 32, /**< time lost to waiting (PSI) */
    PERF_SYSTEM_MACHINE = 64,  /**< load, uptime */
    PERF_SYSTEM_BASIC = 3,     /**< the first two */
    PERF_SYSTEM_ALL = 127      /**< everything */
};

/** Time in which tasks waited for something they lacked. Never grows by further fields. */
typedef struct perf_pressure {
    double some_avg10, some_avg60;        /**< percent of the last 10 and 60 seconds in which at
                                               least one task waited */
    double full_avg10, full_avg60;        /**< in which all of them did */
    int64_t some_total_us, full_total_us; /**< since ever */
} perf_pressure;

/** What there is. -1: not known, or not asked for. Limits: 0: there is none. Sizes in bytes. */
typedef struct perf_system_stats {
    size_t struct_size;

    /* PERF_SYSTEM_CPU */
    double cpu_percent;        /**< of cpu_limit, by this process */
    double cgroup_cpu_percent; /**< of cpu_limit, by its cgroup */
    double cpu_limit;          /**< processors: the least of quotas and of those it may run on */
    int64_t cpu_time_ns;       /**< of this process, user and system */
    int64_t cgroup_cpu_time_ns;
    int64_t cpu_periods;      /**< of the quota of its cgroup */
    int64_t cpu_throttled;    /**< those in which it had to stop */
    int64_t cpu_throttled_ns; /**< for how long */

    /* PERF_SYSTEM_MEMORY */
    double memory_percent; /**< resident memory, of memory_limit */
    double
        cgroup_memory_percent; /**< cgroup_memory without cgroup_inactive_file, of memory_limit */
    int64_t memory_limit;      /**< the least of cgroup_memory_max, Lambda's size and
                                    machine_memory */
    int64_t rss;               /**< resident */
    int64_t virtual_size;
    int64_t machine_memory;
    int64_t cgroup_memory;        /**< with the cache of its files */
    int64_t cgroup_inactive_file; /**< cache that the kernel drops first */
    int64_t cgroup_memory_high;   /**< above, it is slowed down; the least on the way; 0: none */
    int64_t cgroup_memory_max;    /**< above, it is killed; the least on the way; 0: none */
    int64_t cgroup_swap;
    int64_t oom;       /**< how often its cgroup was out of memory */
    int64_t oom_kills; /**< processes killed for that */

    /* PERF_SYSTEM_PROCESS */
    int64_t peak_rss; /**< the most that was ever resident */
    int64_t threads;
    int64_t open_files; /**< descriptors */
    int64_t open_files_limit;
    int64_t voluntary_switches;   /**< waits */
    int64_t involuntary_switches; /**< pre-emptions */
    int64_t minor_faults;
    int64_t major_faults;  /**< those that read from a disk */
    int64_t start_time_ms; /**< wall clock */
    int64_t uptime_ms;     /**< of this process */

    /* PERF_SYSTEM_IO */
    int64_t read_bytes, written_bytes; /**< from and to storage */
    int64_t read_chars, written_chars; /**< by calls, from anywhere */
    int64_t read_calls, write_calls;

    /* PERF_SYSTEM_NETWORK: all interfaces of the namespace but loopback */
    int64_t received_bytes, received_packets, received_errors, received_dropped;
    int64_t sent_bytes, sent_packets, sent_errors, sent_dropped;

    /* PERF_SYSTEM_PRESSURE: of the cgroup, or where it has none of the machine */
    perf_pressure cpu_pressure, memory_pressure, io_pressure;

    /* PERF_SYSTEM_MACHINE */
    double load_1, load_5, load_15;
    int64_t machine_uptime_ms;
    int64_t cgroup_version; /**< of memory: 1, 2; 0: no cgroup was found */
} perf_system_stats;
#define PERF_SYSTEM_STATS_INIT                                                                    \
    {                                                                                             \
        sizeof(perf_system_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,               \
            {0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0}, 0, 0, 0, 0, 0             \
    }

/** Reads what parts (PERF_SYSTEM_...) ask for; takes tens of microseconds and no memory.
 *  PERF_EINVAL, PERF_EFORKED. Since 1.0. */
PERF_API int perf_system_read(perf_system *system, int64_t parts, perf_system_stats *stats);

PERF_END_DECLS

#endif
