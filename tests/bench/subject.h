/* SPDX-License-Identifier: MIT */
/*
 * subject.h - the harness of the C and C++ subjects: command line, stream, threads and
 * timing.
 *
 * A subject defines the static functions declared below and then lets main() call
 * bench_main(). They are called directly, not through pointers, so that the compiler inlines
 * them where the subject's own API allows it: the harness must cost every subject the same.
 */
#ifndef BENCH_SUBJECT_H
#define BENCH_SUBJECT_H

#include "protocol.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define BENCH_BATCH   64
#define BENCH_SET_BIT 0x80000000U

struct bench {
    const char *subject;    /* which variant, where one program has several */
    const char *kind;       /* get, batch, mixed or overhead */
    const uint32_t *stream; /* NULL for overhead */
    size_t stream_len;
    uint32_t keys;
    unsigned threads; /* of the present run */
    size_t ops;       /* of each thread in each run */
    size_t capacity;
};

/* What the subject supplies. Only get and set need be safe to call from several threads. */
static void subject_open(const struct bench *b);
static int subject_get(const struct bench_key *key, struct bench_value *out); /* 1 if found */
static void subject_get_batch(const struct bench_key *keys, struct bench_value *out, int *found);
static void subject_set(const struct bench_key *key, const struct bench_value *value);

/* ------------------------------------------------------------------- one measured run */

struct bench_worker {
    const struct bench *bench;
    pthread_barrier_t *barrier;
    size_t first;
    uint64_t begin, end;
    uint64_t gets, hits, wrong, checksum;
};

/* The compiler must believe that somebody reads all of the copy. */
static inline void bench_use(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

static inline void bench_count(struct bench_worker *w, int found, const struct bench_key *key,
                               const struct bench_value *out)
{
    bench_use(out);
    w->gets++;
    if (found) {
        w->hits++;
        w->wrong += out->word[0] != key->word[0] ||
                    out->word[BENCH_VALUE_WORDS - 1] != key->word[1] + BENCH_VALUE_WORDS - 1;
        w->checksum += out->word[0] + out->word[BENCH_VALUE_WORDS - 1];
    }
}

static inline void bench_work_get(struct bench_worker *w, size_t at)
{
    const struct bench *b = w->bench;
    struct bench_value out;
    for (size_t n = 0; n < b->ops; n++) {
        struct bench_key key = bench_make_key(b->stream[at]);
        at = at + 1 == b->stream_len ? 0 : at + 1;
        int found = subject_get(&key, &out);
        bench_count(w, found, &key, &out);
    }
}

static inline void bench_work_batch(struct bench_worker *w, size_t at)
{
    const struct bench *b = w->bench;
    struct bench_key keys[BENCH_BATCH];
    struct bench_value out[BENCH_BATCH];
    int found[BENCH_BATCH];
    for (size_t n = 0; n < b->ops; n += BENCH_BATCH) {
        for (int i = 0; i < BENCH_BATCH; i++) {
            keys[i] = bench_make_key(b->stream[at]);
            at = at + 1 == b->stream_len ? 0 : at + 1;
        }
        subject_get_batch(keys, out, found);
        for (int i = 0; i < BENCH_BATCH; i++) {
            bench_count(w, found[i], &keys[i], &out[i]);
        }
    }
}

static inline void bench_work_mixed(struct bench_worker *w, size_t at)
{
    const struct bench *b = w->bench;
    struct bench_value out;
    for (size_t n = 0; n < b->ops; n++) {
        uint32_t access = b->stream[at];
        struct bench_key key = bench_make_key(access & ~BENCH_SET_BIT);
        at = at + 1 == b->stream_len ? 0 : at + 1;
        if ((access & BENCH_SET_BIT) != 0) {
            struct bench_value value = bench_make_value(&key);
            subject_set(&key, &value);
        } else {
            int found = subject_get(&key, &out);
            bench_count(w, found, &key, &out);
        }
    }
}

static inline void *bench_worker_main(void *arg)
{
    struct bench_worker w = *(struct bench_worker *)arg; /* a copy: no line shared by threads */
    pthread_barrier_wait(w.barrier);
    w.begin = bench_now_ns();
    switch (w.bench->kind[0]) {
    case 'b':
        bench_work_batch(&w, w.first);
        break;
    case 'm':
        bench_work_mixed(&w, w.first);
        break;
    default:
        bench_work_get(&w, w.first);
        break;
    }
    w.end = bench_now_ns();
    *(struct bench_worker *)arg = w;
    return NULL;
}

/* Where thread t starts in run r: each has its own part of the stream, and goes on in it. */
static inline size_t bench_start(const struct bench *b, unsigned thread, size_t run)
{
    return (thread * (b->stream_len / b->threads) + run * b->ops) % b->stream_len;
}

static inline void bench_run(const struct bench *b, size_t run)
{
    static struct bench_worker workers[BENCH_MAX_THREADS];
    pthread_t threads[BENCH_MAX_THREADS];
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, b->threads);
    for (unsigned t = 0; t < b->threads; t++) {
        memset(&workers[t], 0, sizeof workers[t]);
        workers[t].bench = b;
        workers[t].barrier = &barrier;
        workers[t].first = bench_start(b, t, run);
        if (pthread_create(&threads[t], NULL, bench_worker_main, &workers[t]) != 0) {
            bench_die("pthread_create");
        }
    }
    struct bench_worker sum;
    memset(&sum, 0, sizeof sum);
    sum.begin = UINT64_MAX;
    for (unsigned t = 0; t < b->threads; t++) {
        const struct bench_worker *w = &workers[t];
        pthread_join(threads[t], NULL);
        sum.begin = w->begin < sum.begin ? w->begin : sum.begin;
        sum.end = w->end > sum.end ? w->end : sum.end;
        sum.gets += w->gets;
        sum.hits += w->hits;
        sum.wrong += w->wrong;
        sum.checksum += w->checksum;
    }
    pthread_barrier_destroy(&barrier);
    printf("{\"ns\":%.3f,\"gets\":%" PRIu64 ",\"hits\":%" PRIu64 ",\"wrong\":%" PRIu64
           ",\"checksum\":\"%016" PRIx64 "\"}\n",
           (double)(sum.end - sum.begin) / (double)b->ops, sum.gets, sum.hits, sum.wrong,
           sum.checksum);
}

/* ------------------------------------------------------------------------ the program */

static inline void bench_load_stream(struct bench *b, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        bench_die(path);
    }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (map == MAP_FAILED) {
        bench_die(path);
    }
    close(fd);
    b->stream = (const uint32_t *)map;
    b->stream_len = (size_t)st.st_size / sizeof *b->stream;
}

/* Resident cases hold every key; mixed ones start from what the stream itself leaves. */
static inline void bench_fill(const struct bench *b)
{
    size_t count = b->kind[0] == 'm' ? b->stream_len : b->keys;
    for (size_t i = 0; i < count; i++) {
        uint32_t number = b->kind[0] == 'm' ? b->stream[i] & ~BENCH_SET_BIT : (uint32_t)i;
        struct bench_key key = bench_make_key(number);
        struct bench_value value = bench_make_value(&key);
        subject_set(&key, &value);
    }
}

static inline int bench_main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: %s SUBJECT KIND STREAM|- KEYS OPS CAPACITY\n", argv[0]);
        return 2;
    }
    struct bench b;
    memset(&b, 0, sizeof b);
    b.subject = argv[1];
    b.kind = argv[2];
    b.keys = (uint32_t)strtoul(argv[4], NULL, 10);
    b.ops = (size_t)strtoul(argv[5], NULL, 10);
    b.capacity = (size_t)strtoul(argv[6], NULL, 10);
    if (strcmp(argv[3], "-") != 0) {
        bench_load_stream(&b, argv[3]);
    }
    uint64_t before = bench_rss_bytes();
    subject_open(&b);
    bench_fill(&b);
    double bytes = ((double)bench_rss_bytes() - (double)before) / b.keys -
                   (double)(sizeof(struct bench_key) + sizeof(struct bench_value));
    bench_ready();
    for (size_t run = 0; (b.threads = bench_next_run()) != 0; run++) {
        if (strcmp(b.kind, "overhead") == 0) {
            printf("{\"bytes\":%.2f}\n", bytes);
        } else {
            bench_run(&b, run);
        }
        fflush(stdout);
    }
    return 0;
}

#endif
