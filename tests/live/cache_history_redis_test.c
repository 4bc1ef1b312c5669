/* SPDX-License-Identifier: MIT */
/*
 * cache_history_redis_test.c - eight processes read, write, delete and invalidate through caches on
 * one Redis server while connections are killed at random; then what each of them read is held
 * against what all of them did.
 *
 * Every process writes down its operations with their begin and end on the machine's one clock. A
 * read is stale by t when a change of its key that began after the write of what was read had ended
 * t before the read began. Whatever the interleaving, more than BOUND_MS of it is a fault of ours
 * (libperf-coherence(7)); misses are a cache's right and only counted. A change that failed has no
 * end: it may happen at any time, or not.
 *
 * PERF_HISTORY_SECONDS=300 runs it longer than its 10 s.
 */
#include <libperf/perf.h>

#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server.h"
#include "test.h"

enum {
    PROCESSES = 8,
    KEYS = 64,
    USERS = 4,
    TAGS = 8,
    BOUND_MS = 1000,
    PAUSE_NS = 400000, /* between two operations of a process */
    OPS_A_SECOND = 2000,
    SETTLE_MS = 3000,
};

enum { READ, WRITE, DELETE, KILL_USER, KILL_TAG, KILL_PATTERN, KINDS };

/* value 0: nothing was found. end_ns INT64_MAX: it failed. */
struct event {
    int64_t begin_ns, end_ns;
    uint64_t value;
    int32_t kind, what; /* what: the key, user or tag */
};

struct history {
    _Atomic int64_t count;
    _Atomic int stop, failed_opens;
    perf_tier_stats stats;
    struct event events[];
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t x = *state;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* ------------------------------------------------------------------ one process */

static const char *user_of(int key)
{
    static const char *const users[USERS] = {"u0", "u1", "u2", "u3"};
    return users[key % USERS];
}

static const char *tag_of(int key)
{
    static const char *const tags[TAGS] = {"t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"};
    return tags[key / USERS % TAGS];
}

/* Keys of pattern p: "a12" and so on, p being the letter. */
static int pattern_of(int key)
{
    return key % 16;
}

static void name_of(int key, char name[16])
{
    snprintf(name, 16, "%c%d", 'a' + pattern_of(key), key);
}

static int do_write(perf_cache *cache, int key, uint64_t value)
{
    char name[16];
    perf_set_options o = PERF_SET_OPTIONS_INIT;
    const char *tag = tag_of(key);
    o.tags = &tag;
    o.tag_count = 1;
    o.ttl_ms = 600000;
    name_of(key, name);
    return perf_cache_put(cache, "h", user_of(key), name, strlen(name), &value, sizeof value, &o,
                          NULL);
}

static uint64_t do_read(perf_cache *cache, int key)
{
    char name[16];
    uint64_t value = 0;
    size_t len = 0;
    name_of(key, name);
    int rc = perf_cache_get_copy(cache, "h", user_of(key), name, strlen(name), &value, sizeof value,
                                 &len);
    return rc == PERF_OK && len == sizeof value ? value : 0;
}

static int change(perf_cache *cache, struct event *e)
{
    char text[16];
    switch (e->kind) {
    case WRITE:
        return do_write(cache, e->what, e->value);
    case DELETE:
        name_of(e->what, text);
        return perf_cache_delete(cache, "h", user_of(e->what), text, strlen(text));
    case KILL_USER:
        return perf_cache_invalidate_user(cache, user_of(e->what));
    case KILL_TAG:
        return perf_cache_invalidate_tag(cache, tag_of(e->what * USERS));
    default:
        snprintf(text, sizeof text, "%c*", 'a' + e->what);
        return perf_cache_invalidate_pattern(cache, "h", text);
    }
}

static void worker(int number, const char *url, struct history *h, int64_t room)
{
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    perf_cache_options o = PERF_CACHE_OPTIONS_INIT;
    perf_cache *cache;
    uint64_t random = (uint64_t)number * 7919 + 1;
    tier.backend = "redis";
    tier.location = url;
    o.tiers = &tier;
    o.tier_count = 1;
    if (perf_cache_open(&o, &cache)) {
        fprintf(stderr, "%s\n", perf_last_error());
        atomic_store(&h->failed_opens, 1);
        _exit(1);
    }
    for (int64_t n = 0; n < room - KEYS && !atomic_load(&h->stop); n++) {
        struct event *e = &h->events[n];
        uint64_t r = next_random(&random) % 1000;
        e->kind = r < 850   ? READ
                  : r < 950 ? WRITE
                  : r < 990 ? DELETE
                  : r < 994 ? KILL_USER
                  : r < 997 ? KILL_TAG
                            : KILL_PATTERN;
        uint64_t range = e->kind == KILL_USER      ? USERS
                         : e->kind == KILL_TAG     ? TAGS
                         : e->kind == KILL_PATTERN ? 16
                                                   : KEYS;
        e->what = (int32_t)(next_random(&random) % range);
        e->value = e->kind == WRITE ? (uint64_t)(number + 1) << 40 | (uint64_t)(n + 1) : 0;
        e->begin_ns = now_ns();
        if (e->kind == READ) {
            e->value = do_read(cache, e->what);
            e->end_ns = now_ns();
        } else {
            int rc = change(cache, e);
            e->end_ns = rc >= 0 ? now_ns() : INT64_MAX;
        }
        atomic_store(&h->count, n + 1);
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    }
    /* At rest: all has been told, so what each process reads now is what is left. */
    struct timespec rest = {SETTLE_MS / 1000, 0};
    nanosleep(&rest, NULL);
    for (int key = 0; key < KEYS; key++) {
        struct event *e = &h->events[atomic_load(&h->count)];
        *e = (struct event){.begin_ns = now_ns(), .kind = READ, .what = key};
        e->value = do_read(cache, key);
        e->end_ns = now_ns();
        atomic_fetch_add(&h->count, 1);
    }
    h->stats = (perf_tier_stats)PERF_TIER_STATS_INIT;
    perf_cache_get_tier_stats(cache, 0, &h->stats);
    _exit(perf_cache_close(cache) != PERF_OK);
}

/* -------------------------------------------------------------------- the checker */

/* Changes of one key, by their end. latest: the latest begin of those up to and with this one. */
struct changed {
    int64_t begin_ns, end_ns, latest_ns;
    uint64_t value;
};

struct key_history {
    struct changed *changes;
    size_t count, cap;
};

static bool concerns(const struct event *e, int key)
{
    switch (e->kind) {
    case WRITE:
    case DELETE:
        return e->what == key;
    case KILL_USER:
        return e->what == key % USERS;
    case KILL_TAG:
        return e->what == key / USERS % TAGS;
    case KILL_PATTERN:
        return e->what == pattern_of(key);
    default:
        return false;
    }
}

static int by_end(const void *a, const void *b)
{
    const struct changed *x = a, *y = b;
    return x->end_ns < y->end_ns ? -1 : x->end_ns > y->end_ns;
}

static void gather(struct key_history *k, int key, struct history *const *all)
{
    *k = (struct key_history){0};
    for (int p = 0; p < PROCESSES; p++) {
        for (int64_t i = 0; i < all[p]->count; i++) {
            const struct event *e = &all[p]->events[i];
            if (!concerns(e, key))
                continue;
            if (k->count == k->cap) {
                k->cap = k->cap ? 2 * k->cap : 1024;
                k->changes = realloc(k->changes, k->cap * sizeof *k->changes);
                cr_assert_not_null(k->changes);
            }
            k->changes[k->count++] = (struct changed){e->begin_ns, e->end_ns, 0, e->value};
        }
    }
    if (k->count)
        qsort(k->changes, k->count, sizeof *k->changes, by_end);
    int64_t latest = INT64_MIN;
    for (size_t i = 0; i < k->count; i++) {
        if (k->changes[i].begin_ns > latest && k->changes[i].end_ns != INT64_MAX)
            latest = k->changes[i].begin_ns;
        k->changes[i].latest_ns = latest;
    }
}

/* By how much is a read that began at begin_ns of what w wrote stale? 0: not. */
static int64_t staleness(const struct key_history *k, const struct changed *w, int64_t begin_ns)
{
    if (w->end_ns == INT64_MAX)
        return 0; /* it may have happened just now */
    for (size_t i = 0; i < k->count && k->changes[i].end_ns < begin_ns; i++)
        if (k->changes[i].begin_ns > w->end_ns)
            return begin_ns - k->changes[i].end_ns; /* the first that came after it */
    return 0;
}

struct verdict {
    int64_t reads, misses, unknown, stale, beyond, worst_ns, failed, changes;
};

static int by_value(const void *a, const void *b)
{
    const struct changed *x = a, *y = b;
    return x->value < y->value ? -1 : x->value > y->value;
}

static void judge_key(int key, struct history *const *all, struct verdict *v)
{
    struct key_history k;
    gather(&k, key, all);
    /* A copy by value finds the write of a read fast. */
    struct changed *writes = malloc((k.count + 1) * sizeof *writes);
    cr_assert_not_null(writes);
    memcpy(writes, k.changes, k.count * sizeof *writes);
    qsort(writes, k.count, sizeof *writes, by_value);
    for (int p = 0; p < PROCESSES; p++) {
        for (int64_t i = 0; i < all[p]->count; i++) {
            const struct event *e = &all[p]->events[i];
            if (e->kind != READ || e->what != key)
                continue;
            v->reads++;
            if (!e->value) {
                v->misses++;
                continue;
            }
            struct changed wanted = {.value = e->value};
            const struct changed *w = bsearch(&wanted, writes, k.count, sizeof *writes, by_value);
            if (!w || w->begin_ns > e->end_ns) {
                v->unknown++;
                continue;
            }
            int64_t late = staleness(&k, w, e->begin_ns);
            v->stale += late > 0;
            if (late > v->worst_ns)
                v->worst_ns = late;
            if (late > BOUND_MS * INT64_C(1000000)) {
                if (v->beyond++ < 10)
                    fprintf(stderr, "key %d: process %d read %llx, stale by %lld ms\n", key, p,
                            (unsigned long long)e->value, (long long)(late / 1000000));
            }
        }
    }
    free(writes);
    free(k.changes);
}

/* The checker itself: a history that is right, and one with a fault of each kind. */
Test(history, the_checker_finds_faults)
{
    enum { EVENTS = 8 };
    const int64_t ms = 1000000;
    struct history *all[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) {
        all[p] = calloc(1, sizeof **all + EVENTS * sizeof(struct event));
        cr_assert_not_null(all[p]);
    }
    struct event *a = all[0]->events, *b = all[1]->events;
    a[0] = (struct event){1 * ms, 2 * ms, 11, WRITE, 5};
    a[1] = (struct event){3 * ms, 4 * ms, 0, KILL_USER, 1}; /* key 5 is u1's */
    b[0] = (struct event){5 * ms, 6 * ms, 11, READ, 5};     /* stale by 1 ms */
    b[1] = (struct event){2004 * ms, 2005 * ms, 11, READ, 5};
    b[2] = (struct event){2004 * ms, 2005 * ms, 12, READ, 5}; /* nobody wrote that */
    b[3] = (struct event){2004 * ms, 2005 * ms, 0, READ, 5};
    all[0]->count = 2;
    all[1]->count = 1;
    struct verdict v = {0};
    judge_key(5, all, &v);
    cr_assert(v.reads == 1 && v.stale == 1 && !v.beyond && !v.unknown && v.worst_ns == 1 * ms);
    all[1]->count = 4;
    v = (struct verdict){0};
    judge_key(5, all, &v);
    cr_assert(v.reads == 4 && v.beyond == 1 && v.unknown == 1 && v.misses == 1 &&
              v.worst_ns == 2000 * ms);
    a[1].end_ns = INT64_MAX; /* it failed: then nothing is stale */
    v = (struct verdict){0};
    judge_key(5, all, &v);
    cr_assert(v.stale == 0 && v.unknown == 1);
    for (int p = 0; p < PROCESSES; p++)
        free(all[p]);
}

/* ------------------------------------------------------------------------ the run */

/* ThreadSanitizer lets no child of a process with threads go on, and its runner is one process. */
#ifdef TEST_WITHOUT_CRITERION
enum { FORKS_ARE_FORBIDDEN = 1 };
#else
enum { FORKS_ARE_FORBIDDEN = 0 };
#endif

Test(history, eight_processes_and_dying_connections, .timeout = 600,
     .disabled = FORKS_ARE_FORBIDDEN)
{
    const char *asked = getenv("PERF_HISTORY_SECONDS");
    int seconds = asked ? atoi(asked) : 10;
    struct test_server *redis = test_server_redis(NULL);
    if (!redis)
        PERF_TEST_SKIP(test_server_why());
    int64_t room = (int64_t)(seconds + 5) * OPS_A_SECOND + KEYS;
    size_t size = sizeof(struct history) + (size_t)room * sizeof(struct event);
    struct history *all[PROCESSES];
    pid_t pids[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) {
        all[p] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        cr_assert_neq(all[p], MAP_FAILED);
    }
    char url[96];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/0", redis->port);
    for (int p = 0; p < PROCESSES; p++) {
        pids[p] = fork();
        cr_assert_geq(pids[p], 0);
        if (!pids[p])
            worker(p, url, all[p], room);
    }
    int64_t end = now_ns() + seconds * INT64_C(1000000000);
    uint64_t random = 42;
    int kills = 0;
    while (now_ns() < end) {
        nanosleep(&(struct timespec){.tv_nsec = (long)(next_random(&random) % 400 + 100) * 1000000},
                  NULL);
        /* One kind of connection of all processes at once, or both. */
        uint64_t kind = next_random(&random) % 4;
        char *answer =
            test_redis_cli(redis, "CLIENT KILL TYPE %s SKIPME yes", kind ? "pubsub" : "normal");
        free(answer);
        kills++;
    }
    for (int p = 0; p < PROCESSES; p++)
        atomic_store(&all[p]->stop, 1);
    int ended_well = 0;
    for (int p = 0; p < PROCESSES; p++) {
        int status;
        cr_assert_eq(waitpid(pids[p], &status, 0), pids[p]);
        ended_well += WIFEXITED(status) && !WEXITSTATUS(status);
        cr_assert_not(atomic_load(&all[p]->failed_opens));
    }
    struct verdict v = {0};
    uint64_t heard = 0, gaps = 0, hits = 0, repaired = 0;
    for (int p = 0; p < PROCESSES; p++) {
        heard += all[p]->stats.heard;
        gaps += all[p]->stats.gaps;
        hits += all[p]->stats.hits + all[p]->stats.misses;
        repaired += all[p]->stats.repaired;
        for (int64_t i = 0; i < all[p]->count; i++) {
            v.changes += all[p]->events[i].kind != READ;
            v.failed += all[p]->events[i].end_ns == INT64_MAX;
        }
    }
    for (int key = 0; key < KEYS; key++)
        judge_key(key, all, &v);
    printf(
        "%d s, %d processes, %d kills: %lld reads (%lld misses, %llu went to Redis), %lld changes "
        "(%lld failed); %llu changes heard, %llu gaps, %llu repairs; %lld reads stale, the worst "
        "by %.1f ms; %lld beyond %d ms, %lld of values nobody wrote\n",
        seconds, PROCESSES, kills, (long long)v.reads, (long long)v.misses,
        (unsigned long long)hits, (long long)v.changes, (long long)v.failed,
        (unsigned long long)heard, (unsigned long long)gaps, (unsigned long long)repaired,
        (long long)v.stale, (double)v.worst_ns / 1e6, (long long)v.beyond, BOUND_MS,
        (long long)v.unknown);
    fflush(stdout);
    cr_assert_eq(v.beyond, 0);
    cr_assert_eq(v.unknown, 0);
    cr_assert_eq(ended_well, PROCESSES);
    cr_assert_gt(v.reads - v.misses, v.reads / 4, "it hardly ever hits: nothing was tested");
    cr_assert_gt(gaps, 0);
    for (int p = 0; p < PROCESSES; p++)
        munmap(all[p], size);
    test_server_stop(redis);
}
