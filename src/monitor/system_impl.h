/* SPDX-License-Identifier: MIT */
/*
 * system_impl.h - what the system*.c files share: files that are kept open, and
 * numbers in their bytes.
 */
#ifndef PERF_MONITOR_SYSTEM_IMPL_H
#define PERF_MONITOR_SYSTEM_IMPL_H

#include <libperf/system.h>
#include <pthread.h>
#include <stdbool.h>

#include "../base/options.h"

/* Larger files are not read in part: their fields are unknown. Levels of cgroups above are not
 * looked at beyond so many. */
enum { PERF__SYSTEM_BUFFER = 65536, PERF__SYSTEM_LEVELS = 16, PERF__SYSTEM_PATH = 4096 };

/* Descriptors, -1 for what is not there. */
enum perf__system_file {
    PERF__FILE_STAT,
    PERF__FILE_STATM,
    PERF__FILE_STATUS,
    PERF__FILE_IO,
    PERF__FILE_NET,
    PERF__FILE_FDS, /* a directory */
    PERF__FILE_LIMITS,
    PERF__FILE_LOAD,
    PERF__FILE_UPTIME,
    PERF__FILE_MEMORY_NOW,
    PERF__FILE_MEMORY_STAT,
    PERF__FILE_MEMORY_EVENTS,
    PERF__FILE_MEMORY_SWAP,
    PERF__FILE_CPU_STAT,
    PERF__FILE_CPU_USAGE, /* v1 has it in a file of its own */
    PERF__FILE_CPU_PRESSURE,
    PERF__FILE_MEMORY_PRESSURE,
    PERF__FILE_IO_PRESSURE,
    PERF__FILES
};

/* The limits of one level. */
struct perf__system_level {
    int max, high;     /* memory */
    int quota, period; /* processor; v2 has both in quota */
};

struct perf_system {
    struct perf__host host;
    uint64_t fork_generation;
    pthread_mutex_t mutex; /* around all that is below */
    bool live;             /* procfs is the kernel's, so that system calls tell the same better */
    bool memory_v1, cpu_v1;
    int files[PERF__FILES];
    struct perf__system_level levels[PERF__SYSTEM_LEVELS];
    int memory_levels, cpu_levels;
    int64_t machine_memory, lambda_memory, page_size, tick_hz;
    int64_t last_ns, last_cpu_ns, last_cgroup_cpu_ns; /* the last read of the processor */
    _Alignas(8) char buffer[PERF__SYSTEM_BUFFER];     /* entries of directories begin so */
};

/* ------------------------------------------------------------- system_file.c */

/** Opens "<dir><path>/<name>" to be read; -1 if it is not there. */
int perf__system_open_file(const char *dir, const char *path, const char *name);

/** Reads all of a file into buffer, ended by a zero byte. False: unknown. */
bool perf__system_load(perf_system *s, int fd);

/** A number at *at, which moves behind it; -1 if there is none or it is too large. */
int64_t perf__system_number(const char **at);

/** A decimal number that is not negative, whatever the locale; -1. */
double perf__system_decimal(const char **at);

/** Skips blanks (not the end of the line), then n words with their blanks. */
void perf__system_skip(const char **at, int n);

/** The number behind a name at the beginning of a line, blanks and ':' between them; -1. */
int64_t perf__system_field(const char *text, const char *name);

/** The first number of a file, "max" is 0 (no limit); -1. */
int64_t perf__system_single(perf_system *s, int fd);

/* ----------------------------------------------------------- system_cgroup.c */

void perf__system_find_cgroup(perf_system *s, const char *proc, const char *root);

/** The memory and the processor of the cgroup. */
void perf__system_read_cgroup_memory(perf_system *s, perf_system_stats *stats);
void perf__system_read_cgroup_cpu(perf_system *s, perf_system_stats *stats);

/** The least quota in processors; 0: none; -1: unknown. */
double perf__system_quota(perf_system *s);

/* ---------------------------------------------------------- system_process.c */

int64_t perf__system_cpu_time_ns(perf_system *s);
double perf__system_processors(perf_system *s);
void perf__system_read_memory(perf_system *s, perf_system_stats *stats);
void perf__system_read_process(perf_system *s, perf_system_stats *stats);
void perf__system_read_io(perf_system *s, perf_system_stats *stats);
void perf__system_read_network(perf_system *s, perf_system_stats *stats);
void perf__system_read_machine(perf_system *s, perf_system_stats *stats);
void perf__system_read_pressure(perf_system *s, int fd, perf_pressure *pressure);

#endif
