/* SPDX-License-Identifier: MIT */
/*
 * The tier: order, group commit, write-behind, full queues, failing stores.
 *
 * The store here is a real one in memory that fails, refuses and waits when
 * told, which is what the vtable is there for.
 */
#include "../../src/cache/tier.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "seams.h"
#include "store_conformance.h"
#include "test.h"

enum { LOG_SIZE = 8192, NUMBERS = 4096, BIG_RECORD = 5000 };

/* Records are numbers, found by the number in the key; the order of all that is applied is kept. */
struct moody {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool held;     /* apply waits while this is set */
    int waiting;   /* applies that do */
    int fail_next; /* so many applies fail with fail_with; -1: all */
    int fail_with;
    int applies, flushes, closes;
    size_t largest;
    int64_t applied[LOG_SIZE]; /* number, or -number for a removal */
    size_t applied_count;
    struct {
        bool used;
        unsigned char data[64];
        size_t len;
    } record[NUMBERS];
    int marks;
};

static size_t number_of(const perf_store_key *key)
{
    return (size_t)strtoul((const char *)key->key.data + 4, NULL, 10);
}

static int moody_open(const perf_store_config *config, void **store)
{
    *store = config->user_ctx;
    return PERF_OK;
}

static void moody_close(void *store)
{
    ((struct moody *)store)->closes++;
}

static int moody_get(void *store, const perf_store_key *key, perf_store_reply *reply)
{
    struct moody *m = store;
    size_t n = number_of(key);
    pthread_mutex_lock(&m->mutex);
    int rc = m->record[n].used ? perf_store_reply_set(reply, m->record[n].data, m->record[n].len)
                               : PERF_MISS;
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

/* Refuses records of 13 bytes: something in the change itself. */
static int moody_apply(void *store, const perf_store_op *ops, size_t count)
{
    struct moody *m = store;
    int rc = PERF_OK;
    pthread_mutex_lock(&m->mutex);
    m->applies++;
    if (count > m->largest)
        m->largest = count;
    m->waiting++;
    pthread_cond_broadcast(&m->changed);
    while (m->held)
        pthread_cond_wait(&m->changed, &m->mutex);
    m->waiting--;
    if (m->fail_next) {
        m->fail_next -= m->fail_next > 0;
        rc = m->fail_with;
    }
    for (size_t i = 0; i < count && !rc; i++)
        if (ops[i].record.len == 13)
            rc = PERF_EINVAL;
    for (size_t i = 0; i < count && !rc; i++) {
        if (ops[i].kind == PERF_STORE_MARK) {
            m->marks++;
            continue;
        }
        size_t n = number_of(&ops[i].key);
        bool set = ops[i].kind == PERF_STORE_SET;
        m->record[n].used = set;
        m->record[n].len = ops[i].record.len < 64 ? ops[i].record.len : 64;
        if (set)
            memcpy(m->record[n].data, ops[i].record.data, m->record[n].len);
        if (m->applied_count < LOG_SIZE)
            m->applied[m->applied_count++] = set ? (int64_t)n : -(int64_t)n;
    }
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

static int moody_flush(void *store)
{
    ((struct moody *)store)->flushes++;
    return PERF_OK;
}

static const perf_store_vtable moody_vtable = {
    .struct_size = sizeof moody_vtable,
    .name = "moody",
    .open = moody_open,
    .close = moody_close,
    .get = moody_get,
    .apply = moody_apply,
    .flush = moody_flush,
};

/* ------------------------------------------------------------------- fixture */

struct fixture {
    struct test_host th;
    struct perf__host host;
    struct moody *moody;
    struct perf__background *background;
    perf_tier_options options;
    struct perf__tier *tier;
};

static void set_up(struct fixture *f, int64_t mode)
{
    memset(f, 0, sizeof *f);
    cr_assert(perf__host_take(test_host_init(&f->th), &f->host) == PERF_OK);
    f->moody = calloc(1, sizeof *f->moody);
    pthread_mutex_init(&f->moody->mutex, NULL);
    pthread_cond_init(&f->moody->changed, NULL);
    f->options = (perf_tier_options)PERF_TIER_OPTIONS_INIT;
    f->options.store = &moody_vtable;
    f->options.store_ctx = f->moody;
    f->options.write_mode = mode;
    cr_assert(perf__background_open(&f->host, 2, &f->background) == PERF_OK);
}

static void open_tier(struct fixture *f)
{
    cr_assert(perf__tier_open(&f->options, &f->host, f->background, NULL, &f->tier) == PERF_OK,
              "%s", perf_last_error());
}

static int close_tier(struct fixture *f)
{
    int rc = perf__tier_close(f->tier);
    f->tier = NULL;
    return rc;
}

static void tear_down(struct fixture *f)
{
    if (f->tier)
        close_tier(f);
    perf__background_close(f->background);
    cr_assert(f->th.live == 0, "%lld blocks leaked", (long long)f->th.live);
    pthread_cond_destroy(&f->moody->changed);
    pthread_mutex_destroy(&f->moody->mutex);
    free(f->moody);
}

static void hold(struct moody *m, bool held)
{
    pthread_mutex_lock(&m->mutex);
    m->held = held;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->mutex);
}

static void wait_until_applying(struct moody *m)
{
    pthread_mutex_lock(&m->mutex);
    while (!m->waiting)
        pthread_cond_wait(&m->changed, &m->mutex);
    pthread_mutex_unlock(&m->mutex);
}

static void fail(struct moody *m, int times, int rc)
{
    pthread_mutex_lock(&m->mutex);
    m->fail_next = times;
    m->fail_with = rc;
    pthread_mutex_unlock(&m->mutex);
}

static int submit(struct fixture *f, const perf_store_op *op, uint64_t *ticket)
{
    return perf__tier_submit(f->tier, op, ticket);
}

static int set(struct fixture *f, uint64_t n, const char *text)
{
    struct test_key own;
    perf_store_op op = test_set(&own, n, text, strlen(text), 0);
    uint64_t ticket;
    int rc = submit(f, &op, &ticket);
    return rc ? rc : perf__tier_wait(f->tier, ticket);
}

static int forget(struct fixture *f, uint64_t n)
{
    struct test_key own;
    perf_store_op op = test_remove(&own, n);
    uint64_t ticket;
    int rc = submit(f, &op, &ticket);
    return rc ? rc : perf__tier_wait(f->tier, ticket);
}

/* What the tier says about n: text, or NULL expected for a miss. */
static bool reads(struct fixture *f, uint64_t n, const char *text)
{
    struct test_key own;
    perf_store_key key = test_key(&own, n);
    perf_store_reply reply = {.allocator = &f->host.allocator};
    int rc = perf__tier_get(f->tier, &key, &reply);
    bool same =
        text ? rc == PERF_OK && reply.len == strlen(text) && !memcmp(reply.data, text, reply.len)
             : rc == PERF_MISS;
    perf__reply_free(&reply);
    return same;
}

static bool stored(struct moody *m, uint64_t n, const char *text)
{
    pthread_mutex_lock(&m->mutex);
    bool same = text ? m->record[n].used && m->record[n].len == strlen(text) &&
                           !memcmp(m->record[n].data, text, strlen(text))
                     : !m->record[n].used;
    pthread_mutex_unlock(&m->mutex);
    return same;
}

static perf_tier_stats stats_of(struct fixture *f)
{
    perf_tier_stats stats;
    perf__tier_stats(f->tier, &stats);
    return stats;
}

/* --------------------------------------------------------------------- tests */

Test(tier, options_are_checked_by_name)
{
    struct fixture f;
    static const struct {
        size_t at;
        int64_t value;
        const char *name;
    } wrong[] = {{offsetof(perf_tier_options, timeout_ms), -1, "timeout_ms"},
                 {offsetof(perf_tier_options, write_mode), 2, "write_mode"},
                 {offsetof(perf_tier_options, sync), 9, "sync"},
                 {offsetof(perf_tier_options, queue_full), -1, "queue_full"},
                 {offsetof(perf_tier_options, queue_max_bytes), 10, "queue_max_bytes"}};
    set_up(&f, PERF_WRITE_THROUGH);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        perf_tier_options options = f.options;
        memcpy((char *)&options + wrong[i].at, &wrong[i].value, sizeof wrong[i].value);
        cr_assert(perf__tier_open(&options, &f.host, f.background, NULL, &f.tier) == PERF_EINVAL);
        cr_assert(strstr(perf_last_error(), wrong[i].name), "%s", perf_last_error());
    }
    tear_down(&f);
}

Test(tier, write_through_is_there_when_wait_returns)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_THROUGH);
    open_tier(&f);
    cr_assert(reads(&f, 1, NULL));
    cr_assert(set(&f, 1, "one") == PERF_OK && stored(f.moody, 1, "one"));
    cr_assert(reads(&f, 1, "one"));
    cr_assert(forget(&f, 1) == PERF_OK && stored(f.moody, 1, NULL) && reads(&f, 1, NULL));
    perf_tier_stats stats = stats_of(&f);
    cr_assert(stats.hits == 1 && stats.misses == 2 && stats.writes == 2 && stats.commits == 2);
    cr_assert(!strcmp(stats.backend, "moody") && !stats.errors && !stats.queued);
    perf__tier_count_damaged(f.tier);
    cr_assert(stats_of(&f).damaged == 1);
    cr_assert(close_tier(&f) == PERF_OK && f.moody->closes == 1);
    tear_down(&f);
}

Test(tier, changes_are_applied_in_order_and_together)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_THROUGH);
    open_tier(&f);
    struct test_key own;
    uint64_t ticket = 0, before = 0;
    for (uint64_t n = 1; n <= 600; n++) {
        perf_store_op op = n % 3 ? test_set(&own, n, "x", 1, 0) : test_remove(&own, n);
        cr_assert(submit(&f, &op, &ticket) == PERF_OK && ticket > before);
        before = ticket;
    }
    cr_assert(stats_of(&f).queued == 600 && f.moody->applies == 0);
    cr_assert(reads(&f, 1, "x") && reads(&f, 3, NULL), "reads see what is queued");
    cr_assert(perf__tier_wait(f.tier, ticket) == PERF_OK);
    cr_assert(f.moody->applies == 2 && f.moody->largest == 512, "%d applies", f.moody->applies);
    for (size_t i = 0; i < 600; i++)
        cr_assert(f.moody->applied[i] == (int64_t)((i + 1) % 3 ? i + 1 : (size_t) - (i + 1)));
    tear_down(&f);
}

/* A leader is stuck in the store; what the others submit meanwhile becomes one commit. */
struct crowd {
    struct fixture *f;
    uint64_t first;
    int each, wrong;
    uint64_t ticket;
};

static void *write_many(void *arg)
{
    struct crowd *c = arg;
    for (int i = 0; i < c->each; i++) {
        char text[32];
        snprintf(text, sizeof text, "%llu", (unsigned long long)c->first + (unsigned)i);
        c->wrong += set(c->f, c->first + (unsigned)i, text) != PERF_OK;
        c->wrong += !reads(c->f, c->first + (unsigned)i, text);
    }
    return NULL;
}

Test(tier, followers_share_a_commit)
{
    enum { THREADS = 8 };
    struct fixture f;
    set_up(&f, PERF_WRITE_THROUGH);
    open_tier(&f);
    hold(f.moody, true);
    pthread_t threads[THREADS];
    struct crowd crowd[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        crowd[i] = (struct crowd){&f, i * 100, 1, 0, 0};
        cr_assert(!pthread_create(&threads[i], NULL, write_many, &crowd[i]));
    }
    while (stats_of(&f).queued < THREADS)
        sched_yield();
    hold(f.moody, false);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert(crowd[i].wrong == 0);
    }
    perf_tier_stats stats = stats_of(&f);
    cr_assert(stats.writes == THREADS && stats.commits == (uint64_t)f.moody->applies);
    cr_assert(stats.commits < THREADS, "%d commits", (int)stats.commits);
    cr_assert(f.moody->largest > 1);
    tear_down(&f);
}

static void run_crowd(struct fixture *f, int each)
{
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    struct crowd crowd[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        crowd[i] = (struct crowd){f, i * 400, each, 0, 0};
        cr_assert(!pthread_create(&threads[i], NULL, write_many, &crowd[i]));
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert(crowd[i].wrong == 0, "%d calls went wrong", crowd[i].wrong);
    }
}

Test(tier, many_threads_through_and_behind)
{
    for (int64_t mode = PERF_WRITE_THROUGH; mode <= PERF_WRITE_BEHIND; mode++) {
        struct fixture f;
        set_up(&f, mode);
        f.options.queue_max_bytes = 16384; /* full now and then */
        open_tier(&f);
        run_crowd(&f, 300);
        cr_assert(perf__tier_flush(f.tier) == PERF_OK && f.moody->flushes == 1);
        perf_tier_stats stats = stats_of(&f);
        cr_assert(stats.writes == 8 * 300 && stats.queued == 0 && stats.dropped == 0);
        cr_assert(stats.commits <= stats.writes);
        cr_assert(stored(f.moody, 5, "5") && stored(f.moody, 3099, "3099"));
        tear_down(&f);
    }
}

Test(tier, write_behind_reads_its_own_writes_while_they_are_written)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_BEHIND);
    open_tier(&f);
    cr_assert(set(&f, 1, "old") == PERF_OK && perf__tier_flush(f.tier) == PERF_OK);
    hold(f.moody, true);
    cr_assert(set(&f, 1, "new") == PERF_OK, "does not wait for the store");
    wait_until_applying(f.moody);
    cr_assert(stored(f.moody, 1, "old") && reads(&f, 1, "new"), "also what is being committed");
    cr_assert(set(&f, 1, "newer") == PERF_OK && reads(&f, 1, "newer"));
    cr_assert(forget(&f, 2) == PERF_OK && reads(&f, 2, NULL));
    cr_assert(forget(&f, 1) == PERF_OK && reads(&f, 1, NULL));
    cr_assert(set(&f, 3, "three") == PERF_OK);

    struct test_key own[3];
    perf_store_key keys[3];
    perf_store_reply replies[3], *pointers[3];
    for (uint64_t i = 0; i < 3; i++) {
        keys[i] = test_key(&own[i], i + 1);
        replies[i] = (perf_store_reply){.allocator = &f.host.allocator};
        pointers[i] = &replies[i];
    }
    hold(f.moody, false);
    cr_assert(perf__tier_get_many(f.tier, keys, 3, pointers) == PERF_OK);
    cr_assert(!replies[0].found && !replies[1].found && replies[2].found);
    cr_assert(replies[2].len == 5 && !memcmp(replies[2].data, "three", 5));
    perf__reply_free(&replies[2]);
    cr_assert(perf__tier_flush(f.tier) == PERF_OK);
    cr_assert(stored(f.moody, 1, NULL) && stored(f.moody, 3, "three"));
    cr_assert(close_tier(&f) == PERF_OK);
    tear_down(&f);
}

Test(tier, write_behind_writes_the_newest_of_a_key)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_BEHIND);
    open_tier(&f);
    hold(f.moody, true);
    cr_assert(set(&f, 1, "in the way") == PERF_OK);
    wait_until_applying(f.moody);
    for (int i = 0; i < 100; i++)
        cr_assert(set(&f, 2, i == 99 ? "last" : "other") == PERF_OK);
    cr_assert(stats_of(&f).queued == 2, "%d queued", (int)stats_of(&f).queued);
    hold(f.moody, false);
    cr_assert(perf__tier_flush(f.tier) == PERF_OK && stored(f.moody, 2, "last"));
    cr_assert(f.moody->applied_count == 2);
    tear_down(&f);
}

Test(tier, closing_writes_what_is_queued)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_BEHIND);
    open_tier(&f);
    hold(f.moody, true);
    cr_assert(set(&f, 1, "one") == PERF_OK);
    wait_until_applying(f.moody);
    cr_assert(set(&f, 2, "two") == PERF_OK);
    hold(f.moody, false);
    cr_assert(close_tier(&f) == PERF_OK);
    cr_assert(stored(f.moody, 1, "one") && stored(f.moody, 2, "two"));
    tear_down(&f);
}

Test(tier, without_a_thread_the_caller_writes)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_BEHIND);
    perf__background_close(f.background);
    f.background = NULL;
    open_tier(&f);
    cr_assert(set(&f, 1, "one") == PERF_OK && stored(f.moody, 1, "one"));
    tear_down(&f);
}

/* -------------------------------------------------------------- full queues */

static void *set_big(void *arg)
{
    struct crowd *c = arg;
    static const char big[BIG_RECORD] = "big";
    struct test_key own;
    perf_store_op op = test_set(&own, c->first, big, sizeof big, 0);
    c->wrong = submit(c->f, &op, &c->ticket);
    return NULL;
}

Test(tier, a_full_queue_makes_callers_wait)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_BEHIND);
    f.options.queue_max_bytes = 2 * BIG_RECORD;
    open_tier(&f);
    hold(f.moody, true);
    struct crowd c = {&f, 1, 0, 0, 0};
    set_big(&c);
    wait_until_applying(f.moody);
    pthread_t threads[3];
    struct crowd crowd[3];
    for (uint64_t i = 0; i < 3; i++) {
        crowd[i] = (struct crowd){&f, 2 + i, 0, 0, 0};
        cr_assert(!pthread_create(&threads[i], NULL, set_big, &crowd[i]));
    }
    for (int i = 0; i < 100; i++) {
        cr_assert(stats_of(&f).queued == 1, "no room until the first is written");
        sched_yield();
    }
    hold(f.moody, false);
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        cr_assert(crowd[i].wrong == PERF_OK);
    }
    cr_assert(perf__tier_flush(f.tier) == PERF_OK);
    cr_assert(stats_of(&f).writes == 4 && stats_of(&f).dropped == 0);
    tear_down(&f);
}

Test(tier, a_full_queue_drops_but_leaves_nothing_stale)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_BEHIND);
    f.options.queue_max_bytes = 2 * BIG_RECORD;
    f.options.queue_full = PERF_FULL_DROP;
    open_tier(&f);
    cr_assert(set(&f, 7, "old") == PERF_OK && perf__tier_flush(f.tier) == PERF_OK);
    hold(f.moody, true);
    struct crowd c = {&f, 1, 0, 0, 0};
    set_big(&c);
    wait_until_applying(f.moody);
    c.first = 7;
    set_big(&c);
    cr_assert(c.wrong == PERF_OK && stats_of(&f).dropped == 1);
    cr_assert(reads(&f, 7, NULL), "neither the dropped value nor the older one");
    hold(f.moody, false);
    cr_assert(perf__tier_flush(f.tier) == PERF_OK);
    cr_assert(stored(f.moody, 7, NULL));
    cr_assert(stats_of(&f).writes == 3);
    tear_down(&f);
}

/* ------------------------------------------------------------ failing stores */

Test(tier, write_through_tells_every_follower)
{
    enum { THREADS = 6 };
    struct fixture f;
    set_up(&f, PERF_WRITE_THROUGH);
    open_tier(&f);
    fail(f.moody, -1, PERF_EIO);
    hold(f.moody, true);
    pthread_t threads[THREADS];
    struct crowd crowd[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        crowd[i] = (struct crowd){&f, i, 1, 0, 0};
        cr_assert(!pthread_create(&threads[i], NULL, write_many, &crowd[i]));
    }
    while (stats_of(&f).queued < THREADS)
        sched_yield();
    hold(f.moody, false);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert(crowd[i].wrong == 2, "thread %d saw %d failures", (int)i, crowd[i].wrong);
    }
    cr_assert(f.moody->applies < THREADS, "one failure is for all who wait");
    cr_assert(f.th.logged == 1, "%lld lines for one outage", (long long)f.th.logged);
    fail(f.moody, 0, 0);
    cr_assert(set(&f, 100, "works") == PERF_OK && f.th.logged == 2);
    tear_down(&f);
}

Test(tier, an_outage_leaves_nothing_stale)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_THROUGH);
    open_tier(&f);
    cr_assert(set(&f, 1, "old") == PERF_OK && set(&f, 2, "old") == PERF_OK);
    cr_assert(set(&f, 3, "old") == PERF_OK);
    fail(f.moody, 4, PERF_EUNAVAILABLE);
    struct test_key own;
    perf_store_op mark = test_mark(1, "m", 5);
    uint64_t ticket;
    cr_assert(set(&f, 1, "missed") == PERF_EUNAVAILABLE);
    cr_assert(strstr(perf_last_error(), "moody"), "%s", perf_last_error());
    cr_assert(set(&f, 2, "missed") == PERF_EUNAVAILABLE);
    cr_assert(forget(&f, 3) == PERF_EUNAVAILABLE);
    cr_assert(submit(&f, &mark, &ticket) == PERF_OK);
    cr_assert(perf__tier_wait(f.tier, ticket) == PERF_EUNAVAILABLE);
    cr_assert(reads(&f, 1, NULL) && reads(&f, 2, NULL) && reads(&f, 3, NULL));
    cr_assert(set(&f, 2, "new") == PERF_OK, "and what was missed is made good");
    cr_assert(stored(f.moody, 1, NULL) && stored(f.moody, 2, "new") && stored(f.moody, 3, NULL));
    cr_assert(f.moody->marks == 1);
    cr_assert(stats_of(&f).queued == 0);
    perf_store_op op = test_set(&own, 1, "again", 5, 0);
    cr_assert(submit(&f, &op, &ticket) == PERF_OK && perf__tier_wait(f.tier, ticket) == PERF_OK);
    cr_assert(stored(f.moody, 1, "again"));
    tear_down(&f);
}

Test(tier, one_bad_change_fails_alone)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_THROUGH);
    open_tier(&f);
    cr_assert(set(&f, 2, "old") == PERF_OK);
    struct test_key own;
    uint64_t tickets[3];
    static const char *const texts[] = {"good", "thirteen byte", "good"};
    for (uint64_t i = 0; i < 3; i++) {
        perf_store_op op = test_set(&own, i + 1, texts[i], strlen(texts[i]), 0);
        cr_assert(submit(&f, &op, &tickets[i]) == PERF_OK);
    }
    cr_assert(perf__tier_wait(f.tier, tickets[2]) == PERF_OK);
    cr_assert(perf__tier_wait(f.tier, tickets[1]) == PERF_EINVAL);
    cr_assert(perf__tier_wait(f.tier, tickets[0]) == PERF_OK);
    cr_assert(stored(f.moody, 1, "good") && stored(f.moody, 3, "good"));
    cr_assert(stored(f.moody, 2, NULL), "the version before the refused one is gone");
    tear_down(&f);
}

Test(tier, write_behind_tries_again)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_BEHIND);
    open_tier(&f);
    fail(f.moody, 2, PERF_EBUSY);
    hold(f.moody, true);
    cr_assert(set(&f, 1, "one") == PERF_OK);
    wait_until_applying(f.moody); /* in the background, not in our flush */
    hold(f.moody, false);
    cr_assert(perf__tier_flush(f.tier) == PERF_OK, "%s", perf_last_error());
    cr_assert(stored(f.moody, 1, "one") && f.moody->applies == 3);
    cr_assert(stats_of(&f).dropped == 0);
    tear_down(&f);
}

Test(tier, write_behind_gives_up_and_says_so)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_BEHIND);
    open_tier(&f);
    cr_assert(set(&f, 1, "old") == PERF_OK && perf__tier_flush(f.tier) == PERF_OK);
    fail(f.moody, -1, PERF_EIO);
    for (int i = 0; i < 20; i++)
        cr_assert(set(&f, 1, "lost") == PERF_OK);
    cr_assert(set(&f, 2, "lost") == PERF_OK);
    cr_assert(perf__tier_flush(f.tier) == PERF_EIO);
    cr_assert(stats_of(&f).dropped >= 2 && stats_of(&f).errors > 0);
    cr_assert(f.th.logged == 1, "%lld lines", (long long)f.th.logged);
    cr_assert(reads(&f, 1, NULL) && reads(&f, 2, NULL));
    fail(f.moody, 0, 0);
    cr_assert(perf__tier_flush(f.tier) == PERF_OK && stored(f.moody, 1, NULL));
    fail(f.moody, -1, PERF_EIO);
    cr_assert(set(&f, 3, "lost") == PERF_OK);
    cr_assert(close_tier(&f) == PERF_EIO, "closing tells what was lost");
    tear_down(&f);
}

Test(tier, a_long_outage_keeps_its_bounds)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_BEHIND);
    f.options.queue_max_bytes = 4096;
    open_tier(&f);
    fail(f.moody, -1, PERF_EUNAVAILABLE);
    for (uint64_t n = 0; n < NUMBERS; n++)
        cr_assert(set(&f, n, "lost") == PERF_OK, "no caller waits for ever");
    cr_assert(stats_of(&f).queued < 64, "%d still queued", (int)stats_of(&f).queued);
    cr_assert(close_tier(&f) == PERF_EUNAVAILABLE);
    tear_down(&f);
}

Test(tier, failing_allocations_lose_nothing)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_THROUGH);
    for (int64_t at = 1;; at++) {
        f.th.fail_at = at;
        int rc = perf__tier_open(&f.options, &f.host, f.background, NULL, &f.tier);
        f.th.fail_at = 0;
        if (!rc)
            break;
        cr_assert(rc == PERF_ENOMEM && at < 20);
    }
    for (int64_t at = 1; at < 8; at++) {
        f.th.fail_at = at;
        int rc = set(&f, 1, at % 2 ? "odd" : "even");
        f.th.fail_at = 0;
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM);
        if (!rc)
            cr_assert(stored(f.moody, 1, at % 2 ? "odd" : "even"));
    }
    cr_assert(f.th.failed > 3 && set(&f, 1, "fine") == PERF_OK && reads(&f, 1, "fine"));
    tear_down(&f);
}

Test(tier, abandoning_frees_and_does_not_touch_the_store)
{
    struct fixture f;
    set_up(&f, PERF_WRITE_THROUGH);
    open_tier(&f);
    struct test_key own;
    uint64_t ticket;
    perf_store_op op = test_set(&own, 1, "x", 1, 0);
    cr_assert(submit(&f, &op, &ticket) == PERF_OK);
    perf__tier_abandon(f.tier);
    f.tier = NULL;
    cr_assert(f.moody->applies == 0 && f.moody->closes == 0);
    tear_down(&f);
}
