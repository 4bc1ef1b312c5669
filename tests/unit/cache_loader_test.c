/* SPDX-License-Identifier: MIT */
/* cache_loader_test.c - get_or_load: single flight, deadlines, staleness, failures, batches. */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "cache_fixture.h"

/* A loader that tests steer: it says when it is in, and waits at a gate if there is one. */
struct source {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool gated, open;
    int inside;        /* loaders that have come in, ever */
    int status;        /* to be returned */
    const char *value; /* to be set; NULL: none */
    int64_t takes_ms;  /* on the test clock */
    struct test_host *th;
    bool await_cancel, saw_cancel;
    bool keep_stale;
    const char *tag;
    int64_t ttl_ms;
    char stale[32]; /* what perf_load_stale showed */
};
#define SOURCE(...)                                                        \
    {                                                                      \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, ##__VA_ARGS__ \
    }

static int load(perf_load *l, void *ctx)
{
    struct source *s = ctx;
    size_t len;
    pthread_mutex_lock(&s->mutex);
    s->inside++;
    const char *stale = perf_load_stale(l, &len);
    snprintf(s->stale, sizeof s->stale, "%.*s", (int)len, stale ? stale : "");
    pthread_cond_broadcast(&s->changed);
    while (s->gated && !s->open)
        pthread_cond_wait(&s->changed, &s->mutex);
    int status = s->status;
    const char *value = s->value;
    pthread_mutex_unlock(&s->mutex);
    if (s->th && s->takes_ms)
        test_host_advance(s->th, s->takes_ms);
    while (s->await_cancel && !perf_load_cancelled(l))
        sched_yield();
    s->saw_cancel = perf_load_cancelled(l);
    if (s->tag)
        perf_load_add_tag(l, s->tag);
    if (s->ttl_ms)
        perf_load_set_ttl(l, s->ttl_ms, 0);
    if (s->keep_stale)
        return perf_load_keep_stale(l);
    if (value)
        perf_load_set(l, value, strlen(value));
    return status;
}

static void await_inside(struct source *s, int n)
{
    pthread_mutex_lock(&s->mutex);
    while (s->inside < n)
        pthread_cond_wait(&s->changed, &s->mutex);
    pthread_mutex_unlock(&s->mutex);
}

static void open_gate(struct source *s)
{
    pthread_mutex_lock(&s->mutex);
    s->open = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

static perf_loader loader_of(struct source *s)
{
    perf_loader loader = PERF_LOADER_INIT;
    loader.load = load;
    loader.ctx = s;
    loader.ctx_is_static = 1;
    return loader;
}

static const char *ask_with(perf_cache *cache, const char *key, const perf_loader *loader, int *rc,
                            int *stale)
{
    static _Thread_local char text[64];
    perf_value *value = NULL;
    int status = perf_cache_get_or_load(cache, "ns", NULL, key, strlen(key), loader, &value);
    if (rc)
        *rc = status;
    if (status != PERF_OK)
        return NULL;
    snprintf(text, sizeof text, "%.*s", (int)perf_value_size(value),
             (const char *)perf_value_data(value));
    if (stale)
        *stale = perf_value_is_stale(value);
    perf_value_release(value);
    return text;
}

static const char *ask(perf_cache *cache, const char *key, struct source *s, int *rc)
{
    perf_loader loader = loader_of(s);
    return ask_with(cache, key, &loader, rc, NULL);
}

/* Waits for what a background thread is about to do; tests have a time limit of their own. */
#define eventually(condition) \
    do {                      \
        while (!(condition))  \
            sched_yield();    \
    } while (0)

static void configure(perf_cache *cache, perf_namespace_options o)
{
    o.struct_size = sizeof o;
    cr_assert_eq(perf_cache_configure_namespace(cache, "ns", &o), PERF_OK, "%s", perf_last_error());
}

struct asker {
    pthread_t thread;
    perf_cache *cache;
    struct source *source;
    const char *key;
    int64_t wait_ms;
    int rc;
    char got[64];
};

static void *run_asker(void *ctx)
{
    struct asker *a = ctx;
    perf_loader loader = loader_of(a->source);
    loader.wait_ms = a->wait_ms;
    const char *got = ask_with(a->cache, a->key, &loader, &a->rc, NULL);
    snprintf(a->got, sizeof a->got, "%s", got ? got : "");
    return NULL;
}

static void start(struct asker *a, perf_cache *cache, struct source *s, const char *key,
                  int64_t wait_ms)
{
    *a = (struct asker){.cache = cache, .source = s, .key = key, .wait_ms = wait_ms};
    cr_assert_eq(pthread_create(&a->thread, NULL, run_asker, a), 0);
}

Test(loader, one_load_for_all_who_ask)
{
    enum { THREADS = 64 };
    struct fixture f;
    struct source s = SOURCE(.gated = true, .value = "made");
    struct asker askers[THREADS];
    fixture_open(&f, NULL);
    for (int i = 0; i < THREADS; i++)
        start(&askers[i], f.cache, &s, "cold", 0);
    await_inside(&s, 1);
    for (int i = 0; i < 1000; i++)
        sched_yield(); /* lets the others reach the flight; right without it too */
    open_gate(&s);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(askers[i].thread, NULL);
        cr_assert_eq(askers[i].rc, PERF_OK);
        cr_assert_str_eq(askers[i].got, "made");
    }
    cr_assert_eq(s.inside, 1);
    perf_cache_stats st = stats_of(f.cache, "ns");
    cr_assert_eq(st.loads, 1);
    cr_assert_eq(st.misses, 1);
    cr_assert_eq(st.loads_suppressed + st.memory_hits, THREADS - 1);
    cr_assert_gt(st.loads_suppressed, 0);
    fixture_close(&f);
}

Test(loader, a_caller_gives_up_and_the_load_goes_on)
{
    struct fixture f;
    struct source s = SOURCE(.gated = true, .value = "late");
    fixture_open(&f, NULL);
    perf_loader loader = loader_of(&s);
    loader.wait_ms = 20;
    int rc;
    cr_assert_null(ask_with(f.cache, "k", &loader, &rc, NULL));
    cr_assert_eq(rc, PERF_ETIMEDOUT);
    open_gate(&s);
    eventually(stats_of(f.cache, "ns").loads == 1);
    eventually(get(f.cache, "k"));
    assert_value(f.cache, "k", "late");
    cr_assert_eq(s.inside, 1);
    fixture_close(&f);
}

Test(loader, a_waiter_gives_up_while_the_leader_stays)
{
    struct fixture f;
    struct source s = SOURCE(.gated = true, .value = "v");
    struct asker leader, waiter;
    fixture_open(&f, NULL);
    start(&leader, f.cache, &s, "k", 0);
    await_inside(&s, 1);
    start(&waiter, f.cache, &s, "k", 10);
    pthread_join(waiter.thread, NULL);
    cr_assert_eq(waiter.rc, PERF_ETIMEDOUT);
    open_gate(&s);
    pthread_join(leader.thread, NULL);
    cr_assert_str_eq(leader.got, "v");
    cr_assert_eq(s.saw_cancel, false);
    fixture_close(&f);
}

Test(loader, is_cancelled_when_nobody_waits)
{
    struct fixture f;
    struct source s = SOURCE(.await_cancel = true, .status = PERF_ECANCELED);
    fixture_open(&f, NULL);
    perf_loader loader = loader_of(&s);
    loader.wait_ms = 10;
    int rc;
    ask_with(f.cache, "k", &loader, &rc, NULL);
    cr_assert_eq(rc, PERF_ETIMEDOUT);
    eventually(stats_of(f.cache, "ns").load_failures == 1); /* or the test hangs */
    fixture_close(&f);
    cr_assert(s.saw_cancel);
}

Test(loader, hard_limit_ends_the_wait)
{
    struct fixture f;
    struct source s = SOURCE(.gated = true, .value = "v");
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.hard_timeout_ms = 15});
    int rc;
    cr_assert_null(ask(f.cache, "k", &s, &rc));
    cr_assert_eq(rc, PERF_ETIMEDOUT);
    open_gate(&s);
    fixture_close(&f);
    cr_assert(s.saw_cancel);
}

Test(loader, serves_stale_while_one_refreshes)
{
    struct fixture f;
    struct source s = SOURCE(.gated = true, .value = "new");
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.ttl_ms = 1000, .stale_ms = 5000});
    set(f.cache, "k", "old", 0);
    test_host_advance(&f.th, 1500);
    perf_loader loader = loader_of(&s);
    int rc, stale = -1;
    for (int i = 0; i < 10; i++) { /* the gate is shut: a reader that waited would hang */
        const char *got = ask_with(f.cache, "k", &loader, &rc, &stale);
        cr_assert_eq(rc, PERF_OK);
        cr_assert_str_eq(got, "old");
        cr_assert_eq(stale, 1);
    }
    await_inside(&s, 1);
    open_gate(&s);
    eventually(get(f.cache, "k"));
    cr_assert_str_eq(ask_with(f.cache, "k", &loader, &rc, &stale), "new");
    cr_assert_eq(stale, 0);
    cr_assert_str_eq(s.stale, "old");
    cr_assert_eq(s.inside, 1);
    perf_cache_stats st = stats_of(f.cache, "ns");
    cr_assert_eq(st.refreshes, 1);
    cr_assert_eq(st.stale_hits, 10);
    cr_assert_eq(st.hits, 12); /* 10 stale, a get, an ask */
    fixture_close(&f);
}

Test(loader, without_a_context_to_keep_the_reader_refreshes)
{
    struct fixture f;
    struct source s = SOURCE(.value = "new");
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.ttl_ms = 1000, .stale_ms = 5000});
    set(f.cache, "k", "old", 0);
    test_host_advance(&f.th, 1500);
    perf_loader loader = loader_of(&s);
    loader.ctx_is_static = 0;
    cr_assert_str_eq(ask_with(f.cache, "k", &loader, NULL, NULL), "new");
    fixture_close(&f);
}

static _Atomic int clones, frees;
static void *clone_ctx(void *ctx)
{
    clones++;
    return ctx;
}
static void free_ctx(void *ctx)
{
    (void)ctx;
    frees++;
}

Test(loader, a_background_load_has_its_own_context)
{
    struct fixture f;
    struct source s = SOURCE(.value = "new");
    clones = frees = 0;
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.ttl_ms = 1000, .stale_ms = 5000});
    set(f.cache, "k", "old", 0);
    test_host_advance(&f.th, 1500);
    perf_loader loader = loader_of(&s);
    loader.ctx_is_static = 0;
    loader.ctx_clone = clone_ctx;
    loader.ctx_free = free_ctx;
    cr_assert_str_eq(ask_with(f.cache, "k", &loader, NULL, NULL), "old");
    eventually(get(f.cache, "k"));
    fixture_close(&f);
    cr_assert_eq(clones, 1);
    cr_assert_eq(frees, 1);
}

Test(loader, a_failing_source_leaves_the_stale_value)
{
    struct fixture f;
    struct source s = SOURCE(.status = PERF_EIO);
    fixture_open(&f, NULL);
    configure(f.cache,
              (perf_namespace_options){.ttl_ms = 1000, .stale_ms = 5000, .error_ttl_ms = 100});
    set(f.cache, "k", "old", 0);
    test_host_advance(&f.th, 1500);
    perf_loader loader = loader_of(&s);
    loader.ctx_is_static = 0; /* the reader refreshes, so that it is over when it returns */
    int rc, stale = -1;
    for (int i = 0; i < 5; i++) {
        const char *got = ask_with(f.cache, "k", &loader, &rc, &stale);
        cr_assert_eq(rc, PERF_OK);
        cr_assert_str_eq(got, "old");
    }
    cr_assert_eq(s.inside, 1); /* the failure is remembered, so the source was asked once */
    test_host_advance(&f.th, 100);
    cr_assert_str_eq(ask_with(f.cache, "k", &loader, &rc, &stale), "old");
    cr_assert_eq(s.inside, 2);
    test_host_advance(&f.th, 5000); /* the stale window is over */
    cr_assert_null(ask_with(f.cache, "k", &loader, &rc, NULL));
    cr_assert_eq(rc, PERF_EIO);
    cr_assert_eq(stats_of(f.cache, "ns").load_failures, 3);
    fixture_close(&f);
}

Test(loader, soft_limit_serves_stale_after_a_moment)
{
    struct fixture f;
    struct source s = SOURCE(.gated = true, .value = "new");
    fixture_open(&f, NULL);
    configure(f.cache,
              (perf_namespace_options){.ttl_ms = 1000, .stale_ms = 5000, .soft_timeout_ms = 15});
    set(f.cache, "k", "old", 0);
    test_host_advance(&f.th, 1500);
    perf_loader loader = loader_of(&s);
    int stale = -1;
    cr_assert_str_eq(ask_with(f.cache, "k", &loader, NULL, &stale), "old");
    cr_assert_eq(stale, 1);
    open_gate(&s);
    eventually(get(f.cache, "k"));
    assert_value(f.cache, "k", "new");
    fixture_close(&f);
}

Test(loader, soft_limit_waits_for_a_quick_source)
{
    struct fixture f;
    struct source s = SOURCE(.value = "new");
    fixture_open(&f, NULL);
    configure(f.cache,
              (perf_namespace_options){.ttl_ms = 1000, .stale_ms = 5000, .soft_timeout_ms = 20000});
    set(f.cache, "k", "old", 0);
    test_host_advance(&f.th, 1500);
    cr_assert_str_eq(ask(f.cache, "k", &s, NULL), "new");
    fixture_close(&f);
}

Test(loader, remembers_that_there_is_no_such_thing)
{
    struct fixture f;
    struct source s = SOURCE(.status = PERF_MISS);
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.negative_ttl_ms = 1000});
    int rc;
    for (int i = 0; i < 5; i++) {
        cr_assert_null(ask(f.cache, "k", &s, &rc));
        cr_assert_eq(rc, PERF_MISS);
    }
    cr_assert_eq(s.inside, 1);
    cr_assert_null(get_as(f.cache, "ns", NULL, "k", &rc));
    cr_assert_eq(rc, PERF_MISS);
    cr_assert_eq(stats_of(f.cache, "ns").negative_hits, 5);
    test_host_advance(&f.th, 1000);
    s.status = PERF_OK;
    s.value = "born";
    cr_assert_str_eq(ask(f.cache, "k", &s, &rc), "born");
    cr_assert_eq(s.inside, 2);
    fixture_close(&f);
}

Test(loader, remembers_failures)
{
    struct fixture f;
    struct source s = SOURCE(.status = PERF_EIO);
    fixture_open(&f, NULL);
    int rc;
    for (int i = 1; i <= 3; i++) { /* not by default */
        ask(f.cache, "j", &s, &rc);
        cr_assert_eq(rc, PERF_EIO);
        cr_assert_eq(s.inside, i);
    }
    configure(f.cache, (perf_namespace_options){.error_ttl_ms = 1000});
    for (int i = 0; i < 5; i++) {
        ask(f.cache, "k", &s, &rc);
        cr_assert_eq(rc, PERF_EIO);
    }
    cr_assert_eq(s.inside, 4);
    /* To a get without a loader, alone or in a batch, it is simply not there. */
    get_as(f.cache, "ns", NULL, "k", &rc);
    cr_assert_eq(rc, PERF_MISS);
    perf_lookup item = {.key = "k", .key_len = 1};
    cr_assert_eq(perf_cache_get_many(f.cache, "ns", NULL, &item, 1, NULL), PERF_OK);
    cr_assert_eq(item.status, PERF_MISS);
    test_host_advance(&f.th, 1000);
    s.status = PERF_OK;
    s.value = "well";
    cr_assert_str_eq(ask(f.cache, "k", &s, &rc), "well");
    fixture_close(&f);
}

Test(loader, no_such_thing_ends_the_stale_value_below_too)
{
    char *path = test_temp_file("cache.db");
    struct fixture f;
    struct source s = SOURCE(.status = PERF_MISS);
    fixture_open(&f, path);
    configure(f.cache,
              (perf_namespace_options){.ttl_ms = 1000, .stale_ms = 50000, .negative_ttl_ms = 100});
    set(f.cache, "k", "old", 0);
    perf_tier_stats t = PERF_TIER_STATS_INIT;
    perf_cache_get_tier_stats(f.cache, 0, &t);
    cr_assert_eq(t.records, 1);
    test_host_advance(&f.th, 1500);
    perf_loader loader = loader_of(&s);
    loader.ctx_is_static = 0;
    int rc;
    ask_with(f.cache, "k", &loader, &rc, NULL);
    cr_assert_eq(rc, PERF_MISS);
    perf_cache_get_tier_stats(f.cache, 0, &t);
    cr_assert_eq(t.records, 0);
    fixture_close(&f);
    test_remove_dir_of(path);
}

/* Asks 400 fresh keys at a moment of their life; returns how many were refreshed. */
static uint64_t refreshed_at(perf_namespace_options policy, int64_t age_ms)
{
    struct fixture f;
    struct source s = SOURCE(.value = "v");
    char key[16];
    fixture_open(&f, NULL);
    policy.ttl_ms = 10000;
    configure(f.cache, policy);
    s.th = &f.th;
    perf_loader loader = loader_of(&s);
    loader.ctx_is_static = 0;
    s.takes_ms = 100;
    uint64_t before, after;
    ask_with(f.cache, "one", &loader, NULL, NULL); /* took 100 ms on the test clock */
    s.takes_ms = 0;
    uint64_t n = 0;
    for (int i = 0; i < 400; i++) {
        snprintf(key, sizeof key, "k%d", i);
        s.takes_ms = 100;
        ask_with(f.cache, key, &loader, NULL, NULL);
        s.takes_ms = 0;
        test_host_advance(&f.th, age_ms);
        before = stats_of(f.cache, "ns").refreshes;
        cr_assert_str_eq(ask_with(f.cache, key, &loader, NULL, NULL), "v");
        after = stats_of(f.cache, "ns").refreshes;
        n += after - before;
    }
    fixture_close(&f);
    return n;
}

Test(loader, early_refresh_is_likelier_toward_the_end)
{
    perf_namespace_options off = {.early_refresh_permille = 0};
    perf_namespace_options paper = {.early_refresh_permille = 1000};
    cr_assert_eq(refreshed_at(off, 9999), 0);
    cr_assert_eq(refreshed_at(paper, 5000), 0); /* left = 50 loads: e^-50 */
    uint64_t late = refreshed_at(paper, 9900);  /* left = 1 load: e^-1 = 147 of 400 */
    cr_assert(late > 90 && late < 210, "%llu", (unsigned long long)late);
    uint64_t eager = refreshed_at((perf_namespace_options){.early_refresh_permille = 10000}, 9900);
    cr_assert(eager > 330 && eager < 390, "%llu", (unsigned long long)eager); /* e^-0.1 = 362 */
}

Test(loader, refreshes_ahead_at_a_share_of_life)
{
    perf_namespace_options ahead = {.refresh_ahead_percent = 80};
    cr_assert_eq(refreshed_at(ahead, 7999), 0);
    cr_assert_eq(refreshed_at(ahead, 8000), 400);
}

Test(loader, sets_its_own_life_and_tags)
{
    struct fixture f;
    struct source s = SOURCE(.value = "v", .ttl_ms = 70, .tag = "red");
    fixture_open(&f, NULL);
    int64_t ttl = 0;
    ask(f.cache, "k", &s, NULL);
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "k", 1, &ttl), PERF_OK);
    cr_assert_eq(ttl, 70);
    cr_assert_eq(perf_cache_invalidate_tag(f.cache, "blue"), PERF_OK);
    assert_value(f.cache, "k", "v");
    cr_assert_eq(perf_cache_invalidate_tag(f.cache, "red"), PERF_OK);
    assert_missing(f.cache, "k");
    ask(f.cache, "k", &s, NULL);
    assert_value(f.cache, "k", "v");
    test_host_advance(&f.th, 70);
    assert_missing(f.cache, "k");
    fixture_close(&f);
}

Test(loader, takes_life_and_tags_from_its_options)
{
    struct fixture f;
    struct source s = SOURCE(.value = "v");
    const char *tags[] = {"red"};
    perf_set_options set_options = PERF_SET_OPTIONS_INIT;
    set_options.ttl_ms = 300;
    set_options.tags = tags;
    set_options.tag_count = 1;
    fixture_open(&f, NULL);
    perf_loader loader = loader_of(&s);
    loader.set = &set_options;
    int64_t ttl = 0;
    ask_with(f.cache, "k", &loader, NULL, NULL);
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "k", 1, &ttl), PERF_OK);
    cr_assert_eq(ttl, 300);
    perf_cache_invalidate_tag(f.cache, "red");
    assert_missing(f.cache, "k");
    fixture_close(&f);
}

Test(loader, not_modified_keeps_the_value_with_a_new_life)
{
    struct fixture f;
    struct source s = SOURCE(.keep_stale = true);
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.ttl_ms = 1000, .stale_ms = 5000});
    int rc, stale = -1;
    ask(f.cache, "cold", &s, &rc);
    cr_assert_eq(rc, PERF_MISS); /* there is nothing to keep */
    set(f.cache, "k", "same", 0);
    test_host_advance(&f.th, 1500);
    perf_loader loader = loader_of(&s);
    loader.ctx_is_static = 0;
    cr_assert_str_eq(ask_with(f.cache, "k", &loader, NULL, &stale), "same");
    cr_assert_eq(stale, 0);
    int64_t ttl = 0;
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "k", 1, &ttl), PERF_OK);
    cr_assert_eq(ttl, 1000);
    fixture_close(&f);
}

struct nested {
    perf_cache *cache;
    const char *wants;
    pthread_barrier_t *barrier;
    int inner;
};

static int load_nested(perf_load *l, void *ctx)
{
    struct nested *n = ctx;
    perf_loader loader = PERF_LOADER_INIT;
    struct nested next = {.cache = n->cache, .wants = NULL};
    if (n->barrier)
        pthread_barrier_wait(n->barrier);
    loader.load = load_nested;
    loader.ctx = &next;
    if (n->wants)
        ask_with(n->cache, n->wants, &loader, &n->inner, NULL);
    return perf_load_set(l, "v", 1);
}

Test(loader, asking_for_its_own_key_is_refused)
{
    struct fixture f;
    struct nested n = {.wants = "k"};
    perf_loader loader = PERF_LOADER_INIT;
    fixture_open(&f, NULL);
    n.cache = f.cache;
    loader.load = load_nested;
    loader.ctx = &n;
    cr_assert_str_eq(ask_with(f.cache, "k", &loader, NULL, NULL), "v");
    cr_assert_eq(n.inner, PERF_EDEADLK);
    n.wants = "other"; /* another key is fine */
    cr_assert_str_eq(ask_with(f.cache, "k2", &loader, NULL, NULL), "v");
    cr_assert_eq(n.inner, PERF_OK);
    assert_value(f.cache, "other", "v");
    fixture_close(&f);
}

struct crossing {
    struct nested nested;
    const char *key;
    perf_cache *cache; /* of key; the nested load may be in another one */
};

static void *run_crossing(void *ctx)
{
    struct crossing *c = ctx;
    perf_loader loader = PERF_LOADER_INIT;
    loader.load = load_nested;
    loader.ctx = &c->nested;
    ask_with(c->cache, c->key, &loader, NULL, NULL);
    return NULL;
}

Test(loader, crossing_loads_do_not_wait_forever)
{
    struct fixture f;
    perf_cache *second;
    fixture_open(&f, NULL);
    cr_assert_eq(perf_cache_open(NULL, &second), PERF_OK);
    for (int round = 0; round < 100; round++) {
        perf_cache *other = round % 2 ? second : f.cache;
        pthread_barrier_t barrier;
        pthread_t thread;
        char a[16], b[16];
        snprintf(a, sizeof a, "a%d", round);
        snprintf(b, sizeof b, "b%d", round);
        pthread_barrier_init(&barrier, NULL, 2);
        struct crossing one = {{other, b, &barrier, 0}, a, f.cache};
        struct crossing two = {{f.cache, a, &barrier, 0}, b, other};
        pthread_create(&thread, NULL, run_crossing, &one);
        run_crossing(&two);
        pthread_join(thread, NULL);
        cr_assert((one.nested.inner == PERF_EDEADLK) + (two.nested.inner == PERF_EDEADLK) == 1);
        pthread_barrier_destroy(&barrier);
    }
    perf_cache_close(second);
    fixture_close(&f);
}

/* Joiners ask whether a mark has killed what is loaded, by its tags, while the loader adds some. */
static int load_tagged(perf_load *l, void *ctx)
{
    (void)ctx;
    for (int i = 0; i < 8; i++) {
        char tag[16];
        snprintf(tag, sizeof tag, "t%d", i);
        cr_assert_eq(perf_load_add_tag(l, tag), PERF_OK);
        sched_yield();
    }
    return perf_load_set(l, "v", 1);
}

static void *ask_tagged(void *ctx)
{
    perf_loader loader = PERF_LOADER_INIT;
    loader.load = load_tagged;
    for (int i = 0; i < 300; i++) {
        ask_with(ctx, "k", &loader, NULL, NULL);
        perf_cache_invalidate_tag(ctx, i % 2 ? "t3" : "unused");
        perf_cache_delete(ctx, "ns", NULL, "k", 1);
    }
    return NULL;
}

Test(loader, tags_are_added_while_others_join)
{
    struct fixture f;
    fixture_open(&f, NULL);
    pthread_t thread[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&thread[i], NULL, ask_tagged, f.cache);
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    fixture_close(&f);
}

enum { BY_DELETE, BY_SET, BY_NAMESPACE, BY_USER, BY_TAG, BY_PATTERN, BY_CLEAR, BY_KINDS };

static void overtake(perf_cache *cache, int by)
{
    int rc = PERF_OK;
    switch (by) {
    case BY_DELETE:
        perf_cache_delete(cache, "ns", "ann", "k", 1); /* memory has it not: PERF_MISS */
        break;
    case BY_SET:
        rc = perf_cache_set(cache, "ns", "ann", "k", 1, "written", 7, 0);
        break;
    case BY_NAMESPACE:
        rc = perf_cache_invalidate_namespace(cache, "ns");
        break;
    case BY_USER:
        rc = perf_cache_invalidate_user(cache, "ann");
        break;
    case BY_TAG:
        rc = perf_cache_invalidate_tag(cache, "red");
        break;
    case BY_PATTERN:
        rc = perf_cache_invalidate_pattern(cache, "ns", "[a-k]*");
        break;
    case BY_CLEAR:
        rc = perf_cache_clear(cache);
        break;
    }
    cr_assert_eq(rc, PERF_OK);
}

static void *ask_as_ann(void *ctx)
{
    struct asker *a = ctx;
    const char *tags[] = {"red"};
    perf_set_options options = PERF_SET_OPTIONS_INIT;
    perf_loader loader = loader_of(a->source);
    size_t len = 0;
    options.tags = tags;
    options.tag_count = 1;
    loader.set = &options;
    a->rc = perf_cache_get_or_load_copy(a->cache, "ns", "ann", a->key, strlen(a->key), &loader,
                                        a->got, sizeof a->got - 1, &len);
    a->got[a->rc == PERF_OK ? len : 0] = '\0';
    return NULL;
}

static void overtaken(const char *durable)
{
    for (int by = 0; by < BY_KINDS; by++) {
        char *path = durable ? test_temp_file(durable) : NULL;
        struct fixture f;
        struct source s = SOURCE(.gated = true, .value = "before");
        struct source again = SOURCE(.value = "after");
        struct asker asker, later;
        fixture_open(&f, path);
        asker = (struct asker){.cache = f.cache, .source = &s, .key = "k"};
        pthread_create(&asker.thread, NULL, ask_as_ann, &asker);
        await_inside(&s, 1);
        overtake(f.cache, by);
        later = (struct asker){.cache = f.cache, .source = &again, .key = "k"};
        ask_as_ann(&later); /* does not wait for the load that began before: the gate is shut */
        cr_assert_eq(later.rc, PERF_OK);
        const char *expected = by == BY_SET ? "written" : "after";
        cr_assert_str_eq(later.got, expected, "by %d: %s", by, later.got);
        open_gate(&s);
        pthread_join(asker.thread, NULL);
        cr_assert_str_eq(asker.got, "before"); /* who asked before still gets it */
        ask_as_ann(&later);
        cr_assert_str_eq(later.got, expected, "by %d: %s", by, later.got);
        cr_assert_eq(stats_of(f.cache, "ns").loads_discarded, 1, "by %d", by);
        fixture_close(&f);
        if (!path)
            continue;
        fixture_open(&f, path);
        test_host_advance(&f.th, 10); /* stamps run ahead of a clock that stands still */
        cr_assert_str_eq(get_as(f.cache, "ns", "ann", "k", NULL), expected, "by %d", by);
        fixture_close(&f);
        test_remove_dir_of(path);
    }
}

Test(loader, brings_back_nothing_that_was_invalidated_meanwhile)
{
    overtaken(NULL);
}

Test(loader, brings_back_nothing_to_disk_either)
{
    overtaken("cache.db");
}

Test(loader, ok_without_a_value_is_an_error)
{
    struct fixture f;
    struct source s = SOURCE(.status = PERF_OK);
    fixture_open(&f, NULL);
    int rc;
    ask(f.cache, "k", &s, &rc);
    cr_assert_eq(rc, PERF_ELOAD);
    s.status = 7; /* no status either */
    ask(f.cache, "k", &s, &rc);
    cr_assert_eq(rc, PERF_ELOAD);
    cr_assert_eq(stats_of(f.cache, "ns").load_failures, 2);
    fixture_close(&f);
}

Test(loader, a_small_buffer_is_told_the_length)
{
    struct fixture f;
    struct source s = SOURCE(.value = "twelve bytes");
    char small[4], large[12];
    size_t len = 0;
    fixture_open(&f, NULL);
    perf_loader loader = loader_of(&s);
    for (int i = 0; i < 2; i++) { /* from the load, then from memory */
        cr_assert_eq(perf_cache_get_or_load_copy(f.cache, "ns", NULL, "k", 1, &loader, small,
                                                 sizeof small, &len),
                     PERF_ETOOSMALL);
        cr_assert_eq(len, 12);
    }
    cr_assert_eq(perf_cache_get_or_load_copy(f.cache, "ns", NULL, "k", 1, &loader, large,
                                             sizeof large, &len),
                 PERF_OK);
    cr_assert_eq(s.inside, 1);
    fixture_close(&f);
}

Test(loader, a_value_too_large_to_keep_is_returned)
{
    struct fixture f;
    struct source s = SOURCE(.value = "twelve bytes");
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.max_value_bytes = 11});
    cr_assert_str_eq(ask(f.cache, "k", &s, NULL), "twelve bytes");
    cr_assert_str_eq(ask(f.cache, "k", &s, NULL), "twelve bytes");
    cr_assert_eq(s.inside, 2);
    assert_missing(f.cache, "k");
    cr_assert_eq(stats_of(f.cache, "ns").rejections, 2);
    fixture_close(&f);
}

Test(loader, bad_arguments_are_named)
{
    struct fixture f;
    struct source s = SOURCE(.value = "v");
    perf_value *value;
    fixture_open(&f, NULL);
    perf_loader loader = loader_of(&s);
    cr_assert_eq(perf_cache_get_or_load(f.cache, "ns", NULL, "k", 1, NULL, &value), PERF_EINVAL);
    cr_assert_eq(perf_cache_get_or_load(f.cache, "ns", NULL, "k", 1, &loader, NULL), PERF_EINVAL);
    loader.load = NULL;
    cr_assert_eq(perf_cache_get_or_load(f.cache, "ns", NULL, "k", 1, &loader, &value), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "load is NULL"));
    fixture_close(&f);
}

/* ------------------------------------------------------------------- batch */

struct many {
    int calls, status;
    size_t asked;
    char keys[64]; /* the first byte of each */
};

/* Makes "V" and the key; keys that begin with 'x' do not exist. */
static int load_many(perf_load *const *loads, size_t count, void *ctx)
{
    struct many *m = ctx;
    m->calls++;
    m->asked = count;
    for (size_t i = 0; i < count; i++) {
        size_t len;
        char text[32];
        const char *key = perf_load_key(loads[i], &len);
        m->keys[i] = *key;
        cr_assert_str_eq(perf_load_namespace(loads[i]), "ns");
        cr_assert_null(perf_load_user(loads[i]));
        int n = snprintf(text, sizeof text, "V%.*s", (int)len, key);
        if (*key != 'x' && m->status == PERF_OK)
            perf_load_set(loads[i], text, (size_t)n);
    }
    m->keys[count] = '\0';
    return m->status;
}

static perf_loader many_loader(struct many *m)
{
    perf_loader loader = PERF_LOADER_INIT;
    loader.load_many = load_many;
    loader.ctx = m;
    return loader;
}

Test(loader, a_batch_loads_once_what_is_missing)
{
    struct fixture f;
    struct many m = {0};
    char buf[8];
    size_t hits = 0;
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.negative_ttl_ms = 1000});
    set(f.cache, "b", "kept", 0);
    perf_loader loader = many_loader(&m);
    for (int round = 0; round < 2; round++) {
        perf_lookup items[] = {
            {.key = "a", .key_len = 1},
            {.key = "b", .key_len = 1},
            {.key = "c", .key_len = 1, .buf = buf, .cap = sizeof buf},
            {.key = "x", .key_len = 1},
            {.key = "a", .key_len = 1},
            {.key = "dd", .key_len = 2, .buf = buf, .cap = 1},
        };
        cr_assert_eq(perf_cache_get_or_load_many(f.cache, "ns", NULL, items, 6, &loader, &hits),
                     PERF_OK);
        cr_assert_eq(hits, 4);
        cr_assert_eq(m.calls, 1);
        cr_assert_eq(m.asked, 4);
        cr_assert_str_eq(m.keys, "acxd");
        const char *expected[] = {"Va", "kept", "Vc", NULL, "Va", NULL};
        for (int i = 0; i < 6; i++) {
            if (!expected[i])
                continue;
            cr_assert_eq(items[i].status, PERF_OK);
            cr_assert_eq(items[i].len, strlen(expected[i]));
            cr_assert(!memcmp(items[i].buf ? items[i].buf : perf_value_data(items[i].value),
                              expected[i], items[i].len));
            perf_value_release(items[i].value);
        }
        cr_assert_eq(items[3].status, PERF_MISS);
        cr_assert_eq(items[5].status, PERF_ETOOSMALL);
        cr_assert_eq(items[5].len, 3);
    }
    perf_cache_stats st = stats_of(f.cache, "ns");
    cr_assert_eq(st.loads, 4);
    cr_assert_eq(st.negative_hits, 1);
    fixture_close(&f);
}

Test(loader, a_failed_batch_is_remembered)
{
    struct fixture f;
    struct many m = {.status = PERF_EIO};
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.error_ttl_ms = 1000});
    perf_loader loader = many_loader(&m);
    for (int round = 0; round < 2; round++) {
        perf_lookup items[] = {{.key = "a", .key_len = 1}, {.key = "b", .key_len = 1}};
        size_t hits = 9;
        perf_cache_get_or_load_many(f.cache, "ns", NULL, items, 2, &loader, &hits);
        cr_assert_eq(hits, 0);
        cr_assert_eq(items[0].status, PERF_EIO);
        cr_assert_eq(items[1].status, PERF_EIO);
    }
    cr_assert_eq(m.calls, 1);
    fixture_close(&f);
}

Test(loader, a_failed_batch_falls_back_to_stale_values)
{
    struct fixture f;
    struct many m = {.status = PERF_EIO};
    fixture_open(&f, NULL);
    configure(f.cache, (perf_namespace_options){.ttl_ms = 1000, .stale_ms = 5000});
    set(f.cache, "a", "old", 0);
    test_host_advance(&f.th, 1500);
    perf_loader loader = many_loader(&m);
    perf_lookup items[] = {{.key = "a", .key_len = 1}, {.key = "b", .key_len = 1}};
    perf_cache_get_or_load_many(f.cache, "ns", NULL, items, 2, &loader, NULL);
    cr_assert_eq(items[0].status, PERF_OK);
    cr_assert_eq(perf_value_is_stale(items[0].value), 1);
    cr_assert_eq(items[1].status, PERF_EIO);
    perf_value_release(items[0].value);
    fixture_close(&f);
}
