/* SPDX-License-Identifier: MIT */
/*
 * demo.h - what the files of the demo share.
 *
 * The demo asks "what would installing this package pull in, and how large is
 * that?" of the machine's own package index, without and with libperf.
 * package_index.c loads the index, closure.c answers, stream.c makes up the
 * requests, phases.c measures, report.c and plot.c show.
 */
#ifndef DEMO_H
#define DEMO_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    DEMO_BIGGEST = 16, /* names that an answer carries */
    DEMO_NAME = 128,   /* longest package name, with its NUL */
    DEMO_THREADS = 8,  /* those that ask for the same cold key at once */
    DEMO_FIRST = 1000  /* the first requests after the restart, shown on their own */
};

/** How much to do; DEMO_QUICK=1 takes the small one. */
struct demo_plan {
    size_t max_records;    /* of the package index */
    size_t requests;       /* in the stream */
    size_t popular;        /* packages asked for at any one time */
    double bare_seconds;   /* time box of the phase without libperf */
    double cached_seconds; /* time box of the phase with it */
    size_t cold_keys;      /* that the threads ask for together */
    size_t hot_keys;       /* the most requested keys that count as the hot part */
    uint64_t memory_bytes; /* limit of the memory tier */
};

/** Set by SIGINT and SIGTERM: finish soon, and clean up. */
extern volatile sig_atomic_t demo_interrupted;

/* ------------------------------------------------------------ package_index.c */

/** The names of all packages, in the order they were loaded. */
struct package_index {
    size_t count;
    char **names;
    size_t depends, provides; /* rows of the other tables */
    char source[256];         /* where they came from, for the reader */
};

/**
 * Parses the machine's package lists (or the plain file `only`, if not NULL) into
 * a new SQLite file at path. 0, or -1 after a line on stderr. Free with
 * package_index_free in both cases.
 */
int package_index_load(const char *only, const char *path, size_t max_records,
                       struct package_index *index);
/** Reads the names back from a file that package_index_load has made. 0 or -1. */
int package_index_reopen(const char *path, struct package_index *index);
void package_index_free(struct package_index *index);

/** Runs argv without a shell; its output is *out, *pid is to be waited for. 0 or -1. */
int open_command(char *const argv[], FILE **out, int *pid);
/** Closes what open_command gave; the command's exit status, or -1. */
int close_command(FILE *out, int pid);

/* ------------------------------------------------------------------ closure.c */

/** A package with all that it depends on. Holds no pointers: it is cached as it is. */
struct closure {
    uint32_t packages;
    uint32_t shown; /* of biggest[] */
    uint64_t installed_kib;
    struct {
        char name[48];
        uint64_t kib;
    } biggest[DEMO_BIGGEST];
};

/** Names the database that the answers come from; call before the first question. */
void closure_use(const char *database);
/** The PERF_CACHED question. PERF_OK, PERF_MISS (no such package) or a PERF_E code. */
int ask_closure(const char *package, struct closure *out);
/** How often the body has run, in this thread and in all. */
uint64_t closure_runs_here(void);
uint64_t closure_runs(void);
/** Closes this thread's connection. */
void closure_thread_end(void);

/* ------------------------------------------------------------------- stream.c */

/** Requests: indexes into package_index.names. */
struct stream {
    size_t count;
    uint32_t *keys;
    unsigned char *is_hot; /* by package: one of the most requested */
    char what[256];
};

/** A skewed stream that drifts. 0 or -1. Free with stream_free in both cases. */
int stream_make(const struct demo_plan *plan, size_t packages, struct stream *stream);
/** The keys of a trace file (plain or .xz), each mapped to a package. 0 or -1. */
int stream_read(const char *path, const struct demo_plan *plan, size_t packages,
                struct stream *stream);
int stream_save(const struct stream *stream, const char *path);
/** What stream_save wrote; every key is below packages. 0 or -1. */
int stream_restore(const char *path, const struct demo_plan *plan, size_t packages,
                   struct stream *stream);
void stream_free(struct stream *stream);
/** The next number of a splitmix64 sequence. */
uint64_t demo_random(uint64_t *state);

/* ------------------------------------------------------------------- phases.c */

/** Which tier answered how many requests. */
struct answered {
    uint64_t requests, memory, disk, loader;
};

/** What one phase measured. us[] has a latency in microseconds for each request. */
struct phase {
    uint64_t requests;
    double seconds;
    struct answered all, first;
    uint64_t hot_requests, hot_hits;
    uint64_t bytes, max_bytes, entries, evictions, failures;
    uint64_t disk_records, disk_bytes;
    float *us;
    uint32_t *position; /* in the stream; NULL: the n-th request is at n */
};

/** The threads that asked for the same cold keys. */
struct flight {
    uint64_t keys, requests, loads, waited, failures;
};

int phase_bare(const struct demo_plan *plan, const struct package_index *index,
               const struct stream *stream, struct phase *phase);
/** Opens a cache over the durable file, answers the stream; with flight, the threads' part too. */
int phase_cached(const char *durable, const char *title, const struct demo_plan *plan,
                 const struct package_index *index, const struct stream *stream,
                 struct phase *phase, struct flight *flight);
int phase_save(const struct phase *phase, const char *path);
int phase_restore(const char *path, size_t max_requests, struct phase *phase);
void phase_free(struct phase *phase);
double demo_now(void);

/* ----------------------------------------------------------- report.c, plot.c */

struct results {
    struct phase bare, cached, restarted;
    struct flight flight;
    uint64_t wanted;   /* requests in the stream; phase 2 may run out of time before */
    uint64_t compared; /* requests answered both without and with */
    double bare_mean, cached_mean, bare_p50, bare_p99, cached_p50, cached_p99;
    double reduction; /* percent of the mean response time */
};

/** A bar on a terminal, else one line a phase. done == total ends it. */
void progress(const char *title, double done, double total);
/** Fills the comparison of the same requests with and without. 0 or -1. */
int results_compare(struct results *results);
void report_table(FILE *out, const struct demo_plan *plan, const struct results *results);
/** Writes a self-contained page. 0 or -1 after a line on stderr. */
int plot_write(const char *path, const struct demo_plan *plan, const struct results *results);
/** The value below which share (0..1) of n values lie; sorts them. 0 when n is 0. */
double percentile(float *values, size_t n, double share);

#endif
