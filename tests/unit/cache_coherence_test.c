/* SPDX-License-Identifier: MIT */
/*
 * cache_coherence_test.c - two caches on shared tiers, as two processes would be: what one of them
 * does the other must not contradict, at whatever moment it happens.
 */
#include "cache_fixture.h"
#include "shared_store.h"

#include <libperf/resilience.h>
#include <time.h>

struct pair {
    struct test_host th;
    struct shared_world world, below; /* below: a second tier, where there is one */
    perf_cache *a, *b;
};

static perf_cache *open_on(struct pair *p, const perf_tier_options *tiers, size_t count)
{
    perf_cache_options o = PERF_CACHE_OPTIONS_INIT;
    perf_cache *cache;
    o.memory_max_bytes = 8 << 20;
    o.tiers = tiers;
    o.tier_count = count;
    o.host = &p->th.host;
    int rc = perf_cache_open(&o, &cache);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return cache;
}

static void pair_open(struct pair *p, bool mute)
{
    test_host_init(&p->th);
    shared_world_init(&p->world, &p->th.clock);
    shared_world_init(&p->below, &p->th.clock);
    perf_tier_options tier = mute ? shared_mute_tier(&p->world) : shared_tier(&p->world);
    p->a = open_on(p, &tier, 1);
    p->b = open_on(p, &tier, 1);
}

static void pair_close(struct pair *p)
{
    cr_assert_eq(perf_cache_close(p->a), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_cache_close(p->b), PERF_OK, "%s", perf_last_error());
    shared_world_end(&p->world);
    shared_world_end(&p->below);
    cr_assert_eq(atomic_load(&p->th.live), 0, "%lld blocks leaked",
                 (long long)atomic_load(&p->th.live));
}

static perf_tier_stats tier_of(perf_cache *cache)
{
    perf_tier_stats s = PERF_TIER_STATS_INIT;
    cr_assert_eq(perf_cache_get_tier_stats(cache, 0, &s), PERF_OK);
    return s;
}

/* The tier works again: goes on until it has been told what it missed. The thread of the cache may
 * be in the middle of a call that fails, and so open the breaker once more. */
static bool repaired(struct pair *p, perf_cache *cache)
{
    atomic_store(&p->world.fails, false);
    for (int i = 0; i < 5000 && tier_of(cache).repairs; i++) {
        test_host_advance(&p->th, 100);
        perf_cache_maintain(cache, 1);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return tier_of(cache).repairs == 0;
}

static int del(perf_cache *cache, const char *key)
{
    return perf_cache_delete(cache, "ns", NULL, key, strlen(key));
}

Test(coherence, others_see_writes_and_deletes)
{
    struct pair p;
    pair_open(&p, false);
    cr_assert_eq(set(p.a, "k", "1", 60000), PERF_OK);
    assert_value(p.b, "k", "1");
    int asked = atomic_load(&p.world.gets);
    assert_value(p.b, "k", "1"); /* from memory */
    cr_assert_eq(atomic_load(&p.world.gets), asked);
    cr_assert_eq(set(p.a, "k", "2", 60000), PERF_OK);
    assert_value(p.b, "k", "2");
    cr_assert_eq(del(p.b, "k"), PERF_OK);
    assert_missing(p.a, "k");
    assert_missing(p.b, "k");
    cr_assert_eq(tier_of(p.b).heard, 2); /* one's own are not reported */
    cr_assert_eq(tier_of(p.a).heard, 1);
    pair_close(&p);
}

Test(coherence, marks_are_heard)
{
    struct pair p;
    pair_open(&p, false);
    perf_set_options o = PERF_SET_OPTIONS_INIT;
    const char *tag = "red";
    o.tags = &tag;
    o.tag_count = 1;
    for (int kind = 0; kind < 5; kind++) {
        cr_assert_eq(perf_cache_put(p.a, "ns", "ann", "k", 1, "v", 1, &o, NULL), PERF_OK);
        cr_assert_not_null(get_as(p.b, "ns", "ann", "k", NULL), "kind %d", kind);
        int rc = kind == 0   ? perf_cache_invalidate_tag(p.a, "red")
                 : kind == 1 ? perf_cache_invalidate_user(p.a, "ann")
                 : kind == 2 ? perf_cache_invalidate_namespace(p.a, "ns")
                 : kind == 3 ? perf_cache_invalidate_pattern(p.a, NULL, "k*")
                             : perf_cache_clear(p.a);
        cr_assert_eq(rc, PERF_OK);
        cr_assert_null(get_as(p.b, "ns", "ann", "k", NULL), "kind %d", kind);
        cr_assert_null(get_as(p.a, "ns", "ann", "k", NULL), "kind %d", kind);
        /* What is written after the mark lives, wherever it was written, without time passing. */
        cr_assert_eq(perf_cache_put(p.b, "ns", "ann", "k", 1, "w", 1, &o, NULL), PERF_OK);
        cr_assert_not_null(get_as(p.a, "ns", "ann", "k", NULL), "kind %d", kind);
    }
    pair_close(&p);
}

/* A machine whose clock is ahead by less than NTP allows wrote before the mark. */
Test(coherence, a_mark_kills_what_a_clock_ahead_wrote)
{
    struct pair p;
    struct test_host ahead;
    pair_open(&p, false);
    test_host_init(&ahead);
    ahead.realtime_ms += 90;
    perf_tier_options tier = shared_tier(&p.world);
    perf_cache_options o = PERF_CACHE_OPTIONS_INIT;
    perf_cache *c;
    o.tiers = &tier;
    o.tier_count = 1;
    o.host = &ahead.host;
    cr_assert_eq(perf_cache_open(&o, &c), PERF_OK);
    cr_assert_eq(set(c, "k", "1", 60000), PERF_OK);
    assert_value(p.a, "k", "1");
    cr_assert_eq(perf_cache_invalidate_namespace(p.a, "ns"), PERF_OK);
    assert_missing(c, "k");
    assert_missing(p.a, "k");
    assert_missing(p.b, "k");
    cr_assert_eq(perf_cache_close(c), PERF_OK);
    pair_close(&p);
}

/* ------------------------------------------------------------------ loads */

struct source {
    _Atomic int loads;
    perf_cache *meanwhile; /* deletes the key while it is being loaded */
    const char *value;
    _Atomic bool *go; /* waits for it */
};

static int load_it(perf_load *load, void *ctx)
{
    struct source *s = ctx;
    atomic_fetch_add(&s->loads, 1);
    if (s->meanwhile)
        cr_assert_geq(del(s->meanwhile, "k"), PERF_OK);
    while (s->go && !atomic_load(s->go))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return perf_load_set(load, s->value, strlen(s->value));
}

static const char *get_or_load(perf_cache *cache, struct source *s)
{
    static _Thread_local char text[64];
    perf_loader loader = PERF_LOADER_INIT;
    size_t len = 0;
    loader.load = load_it;
    loader.ctx = s;
    int rc = perf_cache_get_or_load_copy(cache, "ns", NULL, "k", 1, &loader, text, sizeof text - 1,
                                         &len);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    text[len] = '\0';
    return text;
}

Test(coherence, a_load_does_not_undo_what_another_did_meanwhile)
{
    struct pair p;
    pair_open(&p, false);
    struct source s = {.meanwhile = p.b, .value = "old"};
    cr_assert_str_eq(get_or_load(p.a, &s), "old"); /* who asked before may have it */
    assert_missing(p.a, "k");
    assert_missing(p.b, "k");
    /* The same when the report of the deletion is lost: the store leaves the write out. */
    atomic_store(&p.world.deaf, true);
    cr_assert_str_eq(get_or_load(p.a, &s), "old");
    cr_assert_eq(atomic_load(&p.world.left_out), 1);
    assert_missing(p.b, "k");
    atomic_store(&p.world.deaf, false);
    pair_close(&p);
}

struct asker {
    perf_cache *cache;
    struct source *source;
    pthread_t thread;
    char got[64];
};

static void *ask(void *ctx)
{
    struct asker *a = ctx;
    strcpy(a->got, get_or_load(a->cache, a->source));
    return NULL;
}

Test(coherence, one_load_for_all_processes)
{
    enum { ASKERS = 16 };
    struct pair p;
    _Atomic bool go = false;
    pair_open(&p, false);
    struct source s = {.value = "made", .go = &go};
    struct asker askers[ASKERS];
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){.cache = i % 2 ? p.a : p.b, .source = &s};
        cr_assert_eq(pthread_create(&askers[i].thread, NULL, ask, &askers[i]), 0);
    }
    while (!atomic_load(&s.loads))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); /* the others come to wait, or load */
    atomic_store(&go, true);
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i].thread, NULL);
        cr_assert_str_eq(askers[i].got, "made");
    }
    cr_assert_eq(atomic_load(&s.loads), 1);
    pair_close(&p);
}

Test(coherence, a_lease_whose_holder_is_gone_ends)
{
    struct pair p;
    pair_open(&p, false);
    _Atomic bool go = false;
    struct source slow = {.value = "slow", .go = &go}, quick = {.value = "quick"};
    struct asker a = {.cache = p.a, .source = &slow}, b = {.cache = p.b, .source = &quick};
    cr_assert_eq(pthread_create(&a.thread, NULL, ask, &a), 0);
    while (!atomic_load(&slow.loads))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    cr_assert_eq(pthread_create(&b.thread, NULL, ask, &b), 0);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    cr_assert_eq(atomic_load(&quick.loads), 0); /* it waits for the other */
    test_host_advance(&p.th, 5000);
    pthread_join(b.thread, NULL);
    cr_assert_str_eq(b.got, "quick");
    atomic_store(&go, true);
    pthread_join(a.thread, NULL);
    cr_assert_str_eq(a.got, "slow");
    assert_value(p.a, "k", "quick"); /* what came late was left out */
    assert_value(p.b, "k", "quick");
    pair_close(&p);
}

struct long_load {
    struct pair *pair;
    int rounds;
    int64_t step_ms;
    bool renews;
};

/* Time passes in a load, in steps; upkeep comes by after each. */
static int load_long(perf_load *load, void *ctx)
{
    struct long_load *l = ctx;
    for (int i = 0; i < l->rounds; i++) {
        test_host_advance(&l->pair->th, l->step_ms);
        if (l->renews)
            perf_cache_maintain(l->pair->a, 1);
    }
    return perf_load_set(load, "made", 4);
}

static int load_long_many(perf_load *const *loads, size_t count, void *ctx)
{
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(load_long(loads[i], ctx), PERF_OK);
    return PERF_OK;
}

static int load_k_long(struct long_load *l, bool many)
{
    perf_loader loader = PERF_LOADER_INIT;
    char text[8];
    size_t len;
    perf_lookup item = {.key = "k", .key_len = 1, .buf = text, .cap = sizeof text};
    loader.load = load_long;
    loader.load_many = load_long_many;
    loader.ctx = l;
    int rc = many ? perf_cache_get_or_load_many(l->pair->a, "ns", NULL, &item, 1, &loader, &len)
                  : perf_cache_get_or_load_copy(l->pair->a, "ns", NULL, "k", 1, &loader, text,
                                                sizeof text, &len);
    return many && !rc ? item.status : rc;
}

Test(coherence, a_lease_lasts_as_long_as_its_load)
{
    for (int many = 0; many < 2; many++) {
        struct pair p;
        pair_open(&p, false);
        struct long_load l = {.pair = &p, .rounds = 10, .step_ms = 3000, .renews = true};
        cr_assert_eq(load_k_long(&l, many), PERF_OK, "%s", perf_last_error());
        cr_assert_eq(atomic_load(&p.world.left_out), 0);
        cr_assert_geq(atomic_load(&p.world.renewals), 9);
        assert_value(p.b, "k", "made"); /* it came into the tier after 30 s */
        int renewals = atomic_load(&p.world.renewals);
        test_host_advance(&p.th, 3000);
        perf_cache_maintain(p.a, 1);
        cr_assert_eq(atomic_load(&p.world.renewals), renewals, "and no longer");
        /* One that has hung for ten times as long is given up: another may try. */
        cr_assert_geq(del(p.b, "k"), PERF_OK);
        l.rounds = 30;
        cr_assert_eq(load_k_long(&l, many), PERF_OK, "%s", perf_last_error());
        cr_assert_eq(atomic_load(&p.world.left_out), 1);
        pair_close(&p);
    }
}

/* The thread of the cache does it without upkeep by the host: it looks each quarter of a second. */
Test(coherence, leases_are_renewed_without_upkeep)
{
    struct pair p;
    pair_open(&p, false);
    _Atomic bool go = false;
    struct source slow = {.value = "slow", .go = &go};
    struct asker a = {.cache = p.a, .source = &slow};
    cr_assert_eq(pthread_create(&a.thread, NULL, ask, &a), 0);
    while (!atomic_load(&slow.loads))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    for (int round = 1; round <= 3; round++) {
        test_host_advance(&p.th, 3000);
        for (int i = 0; i < 5000 && atomic_load(&p.world.renewals) < round; i++)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        cr_assert_eq(atomic_load(&p.world.renewals), round);
    }
    atomic_store(&go, true);
    pthread_join(a.thread, NULL);
    assert_value(p.b, "k", "slow");
    pair_close(&p);
}

/* --------------------------------------------------------------- loads of batches */

enum { BATCH = 100 };

struct batch_source {
    _Atomic int calls, loaded;
    _Atomic bool *go;
    perf_cache *deletes; /* all of them, while they are being loaded */
};

static int load_batch(perf_load *const *loads, size_t count, void *ctx)
{
    struct batch_source *s = ctx;
    atomic_fetch_add(&s->calls, 1);
    atomic_fetch_add(&s->loaded, (int)count);
    for (size_t i = 0; i < count; i++) {
        size_t len;
        const char *key = perf_load_key(loads[i], &len);
        char text[32];
        snprintf(text, sizeof text, "%.*s", (int)len, key);
        if (s->deletes)
            cr_assert_geq(del(s->deletes, text), PERF_OK);
        cr_assert_eq(perf_load_set(loads[i], key, len), PERF_OK);
    }
    while (s->go && !atomic_load(s->go))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return PERF_OK;
}

/* Keys first to first + BATCH - 1: each is its own value. */
static void load_many(perf_cache *cache, int first, struct batch_source *s)
{
    perf_lookup items[BATCH] = {0};
    char keys[BATCH][16], values[BATCH][16];
    perf_loader loader = PERF_LOADER_INIT;
    size_t hits;
    loader.load_many = load_batch;
    loader.ctx = s;
    for (int i = 0; i < BATCH; i++) {
        snprintf(keys[i], sizeof keys[i], "b%d", first + i);
        items[i] = (perf_lookup){
            .key = keys[i], .key_len = strlen(keys[i]), .buf = values[i], .cap = sizeof values[i]};
    }
    int rc = perf_cache_get_or_load_many(cache, "ns", NULL, items, BATCH, &loader, &hits);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(hits, BATCH);
    for (int i = 0; i < BATCH; i++)
        cr_assert(items[i].len == strlen(keys[i]) && !memcmp(values[i], keys[i], items[i].len));
}

struct batch_asker {
    pthread_t thread;
    perf_cache *cache;
    int first;
    struct batch_source *source;
};

static void *ask_batch(void *ctx)
{
    struct batch_asker *a = ctx;
    load_many(a->cache, a->first, a->source);
    return NULL;
}

Test(coherence, batches_of_two_processes_load_each_key_once)
{
    struct pair p;
    _Atomic bool go = false;
    pair_open(&p, false);
    struct batch_source slow = {.go = &go}, quick = {0};
    struct batch_asker a = {.cache = p.a, .first = 0, .source = &slow};
    struct batch_asker b = {.cache = p.b, .first = BATCH / 2, .source = &quick};
    cr_assert_eq(pthread_create(&a.thread, NULL, ask_batch, &a), 0);
    while (!atomic_load(&slow.calls))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    cr_assert_eq(atomic_load(&p.world.leases), BATCH);
    cr_assert_eq(pthread_create(&b.thread, NULL, ask_batch, &b), 0);
    while (!atomic_load(&quick.calls)) /* its own half, at once */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    cr_assert_eq(atomic_load(&quick.loaded), BATCH / 2);
    atomic_store(&go, true);
    pthread_join(a.thread, NULL);
    pthread_join(b.thread, NULL);
    cr_assert_eq(atomic_load(&slow.loaded), BATCH);
    cr_assert_eq(atomic_load(&quick.loaded), BATCH / 2, "the others were brought by a");
    cr_assert_eq(atomic_load(&p.world.left_out), 0);
    pair_close(&p);
}

Test(coherence, a_batch_whose_other_loader_is_gone_loads_the_rest)
{
    struct pair p;
    _Atomic bool go = false;
    pair_open(&p, false);
    struct source slow = {.value = "slow", .go = &go};
    struct asker a = {.cache = p.a, .source = &slow};
    cr_assert_eq(pthread_create(&a.thread, NULL, ask, &a), 0); /* has the lease of "k" */
    while (!atomic_load(&slow.loads))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    struct long_load l = {.pair = &p, .rounds = 0};
    perf_lookup items[2] = {{.key = "k", .key_len = 1}, {.key = "own", .key_len = 3}};
    perf_loader loader = PERF_LOADER_INIT;
    size_t hits;
    test_host_advance(&p.th, 5000); /* and loses it: its process is as good as dead */
    loader.load_many = load_long_many;
    loader.ctx = &l;
    cr_assert_eq(perf_cache_get_or_load_many(p.b, "ns", NULL, items, 2, &loader, &hits), PERF_OK);
    cr_assert_eq(hits, 2);
    perf_value_release(items[0].value);
    perf_value_release(items[1].value);
    atomic_store(&go, true);
    pthread_join(a.thread, NULL);
    assert_value(p.b, "k", "made"); /* what came late was left out */
    pair_close(&p);
}

Test(coherence, a_batch_does_not_undo_what_another_did_meanwhile)
{
    struct pair p;
    pair_open(&p, false);
    struct batch_source s = {.deletes = p.b};
    load_many(p.a, 0, &s);
    assert_missing(p.a, "b0");
    assert_missing(p.b, "b99");
    atomic_store(&p.world.deaf, true); /* the same when the reports are lost */
    load_many(p.a, 0, &s);
    cr_assert_eq(atomic_load(&p.world.left_out), BATCH);
    assert_missing(p.b, "b0");
    atomic_store(&p.world.deaf, false);
    /* Leases that were not used are given back: the next one need not wait. */
    atomic_store(&p.world.fails, true);
    s.deletes = NULL;
    load_many(p.a, 0, &s);
    atomic_store(&p.world.fails, false);
    pair_close(&p);
}

Test(coherence, without_leases_each_loads)
{
    struct pair p;
    pair_open(&p, false);
    perf_namespace_options o = PERF_NAMESPACE_OPTIONS_INIT;
    o.lease_ms = -1;
    cr_assert_eq(perf_cache_configure_namespace(p.a, "ns", &o), PERF_OK);
    struct source s = {.value = "v"};
    cr_assert_str_eq(get_or_load(p.a, &s), "v");
    cr_assert_eq(atomic_load(&p.world.leases), 0);
    o.lease_ms = -2;
    cr_assert_eq(perf_cache_configure_namespace(p.a, "ns", &o), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "lease_ms"));
    pair_close(&p);
}

/* ------------------------------------------------------------- not being told */

Test(coherence, after_a_gap_memory_is_asked_anew)
{
    struct pair p;
    pair_open(&p, false);
    cr_assert_eq(set(p.a, "k", "1", 60000), PERF_OK);
    cr_assert_eq(set(p.a, "other", "1", 60000), PERF_OK);
    assert_value(p.b, "k", "1");
    assert_value(p.b, "other", "1");
    shared_world_deafen(&p.world, true);
    cr_assert_eq(set(p.a, "k", "2", 60000), PERF_OK);
    cr_assert_eq(perf_cache_invalidate_pattern(p.a, "ns", "oth*"), PERF_OK);
    assert_value(p.b, "k", "1"); /* while it is deaf it serves what it has */
    shared_world_deafen(&p.world, false);
    perf_cache_maintain(p.b, 1);
    assert_value(p.b, "k", "2");
    assert_missing(p.b, "other");
    cr_assert_eq(tier_of(p.b).gaps, 1);
    pair_close(&p);
}

Test(coherence, a_tier_that_cannot_tell_is_asked)
{
    struct pair p;
    pair_open(&p, true);
    cr_assert_eq(set(p.a, "k", "1", 60000), PERF_OK);
    assert_value(p.b, "k", "1");
    cr_assert_eq(set(p.a, "k", "2", 60000), PERF_OK);
    assert_value(p.b, "k", "1");
    test_host_advance(&p.th, 4999);
    assert_value(p.b, "k", "1");
    test_host_advance(&p.th, 1);
    assert_value(p.b, "k", "2"); /* never further behind than coherence_ms */
    cr_assert_eq(perf_cache_touch(p.b, "ns", NULL, "k", 1, 60000), PERF_OK);
    cr_assert_eq(set(p.a, "k", "3", 60000), PERF_OK);
    test_host_advance(&p.th, 5000);
    assert_value(p.b, "k", "3");
    test_host_advance(&p.th, 200);
    cr_assert_eq(perf_cache_invalidate_namespace(p.a, "ns"), PERF_OK);
    test_host_advance(&p.th, 2500); /* marks are asked for twice in coherence_ms */
    perf_cache_maintain(p.b, 1);
    assert_missing(p.b, "k");
    pair_close(&p);
}

static bool read_by_the_thread(struct pair *p, int n)
{
    for (int i = 0; i < 5000 && atomic_load(&p->world.marks_asked) < n; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return atomic_load(&p->world.marks_asked) == n;
}

Test(coherence, marks_that_were_read_are_not_read_again)
{
    struct pair p;
    pair_open(&p, true);
    cr_assert(read_by_the_thread(&p, 4)); /* at the opening, and once for the bound, in both */
    int64_t read_at = p.th.realtime_ms;
    for (int i = 0; i < 100; i++)
        perf_cache_maintain(i % 2 ? p.a : p.b, 1);
    cr_assert_eq(atomic_load(&p.world.marks_asked), 4, "the bound was not half over");
    test_host_advance(&p.th, 100000);
    perf_cache_maintain(p.a, 1);
    cr_assert(read_by_the_thread(&p, 6));
    cr_assert_eq(atomic_load(&p.world.marks_since), read_at - 60000,
                 "young ones, and some overlap");

    /* A mark that could not be written for long is found all the same. */
    cr_assert_eq(set(p.b, "k", "old", 600000), PERF_OK);
    test_host_advance(&p.th, 1000);
    atomic_store(&p.world.fails, true);
    cr_assert_neq(perf_cache_invalidate_namespace(p.a, "ns"), PERF_OK);
    for (int i = 0; i < 20; i++) {
        test_host_advance(&p.th, 10000);
        perf_cache_maintain(p.b, 1);
    }
    cr_assert(repaired(&p, p.a));
    test_host_advance(&p.th, 4000);
    perf_cache_maintain(p.b, 1);
    test_host_advance(&p.th, 4000);
    perf_cache_maintain(p.b, 1);
    assert_missing(p.b, "k");
    pair_close(&p);
}

/* A tier that is left alone is not asked for marks either. */
Test(coherence, marks_are_behind_the_breaker)
{
    struct pair p;
    perf_cache_options o = PERF_CACHE_OPTIONS_INIT;
    perf_cache *c;
    pair_open(&p, true);
    perf_tier_options tier = shared_mute_tier(&p.world);
    o.tiers = &tier;
    o.tier_count = 1;
    o.coherence_ms = 20; /* it is asked long before the breaker lets a call through */
    o.host = &p.th.host;
    cr_assert_eq(perf_cache_open(&o, &c), PERF_OK);
    cr_assert(read_by_the_thread(&p, 6));
    atomic_store(&p.world.fails, true);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(set(c, "k", "1", 60000), PERF_EUNAVAILABLE);
    cr_assert_eq(tier_of(c).breaker, PERF_BREAKER_OPEN);
    uint64_t skipped = tier_of(c).skipped;
    test_host_advance(&p.th, 20);
    perf_cache_maintain(c, 1);
    for (int i = 0; i < 5000 && tier_of(c).skipped == skipped; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    cr_assert_gt(tier_of(c).skipped, skipped, "it was due");
    cr_assert_eq(atomic_load(&p.world.marks_asked), 6, "and not done");
    atomic_store(&p.world.fails, false);
    (void)!perf_cache_close(c);
    pair_close(&p);
}

/* Asking costs money: a thread of its own asks twice in the bound, not at each of its ticks. */
Test(coherence, marks_are_asked_for_seldom)
{
    struct pair p;
    pair_open(&p, true);
    int at_open = atomic_load(&p.world.marks_asked);
    nanosleep(&(struct timespec){.tv_nsec = 900000000}, NULL); /* several ticks */
    cr_assert_leq(atomic_load(&p.world.marks_asked) - at_open, 2, "each cache once, when it began");
    pair_close(&p);
}

/* A tier that was down when the cache was opened must not empty its memory again and again. */
Test(coherence, memory_goes_on_while_a_gap_cannot_be_closed)
{
    struct pair p;
    pair_open(&p, false);
    atomic_store(&p.world.fails, true);
    perf_tier_options tier = shared_tier(&p.world);
    perf_cache *c = open_on(&p, &tier, 1);
    cr_assert_eq(set(c, "k", "1", 60000), PERF_EUNAVAILABLE);
    perf_cache_maintain(c, 1);
    assert_value(c, "k", "1");
    cr_assert(repaired(&p, c));
    cr_assert_eq(perf_cache_close(c), PERF_OK);
    pair_close(&p);
}

/* ------------------------------------------------------------------- failures */

Test(coherence, a_tier_that_is_down_costs_no_calls_and_is_repaired)
{
    struct pair p;
    pair_open(&p, false);
    cr_assert_eq(set(p.a, "k", "1", 60000), PERF_OK);
    cr_assert_eq(set(p.a, "kept", "1", 60000), PERF_OK);
    atomic_store(&p.world.fails, true);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(set(p.a, "k", "2", 60000), PERF_EUNAVAILABLE);
    assert_value(p.a, "k", "2"); /* memory goes on */
    assert_value(p.a, "kept", "1");
    cr_assert_eq(tier_of(p.a).breaker, PERF_BREAKER_OPEN);
    int asked = atomic_load(&p.world.gets), rc;
    cr_assert_null(get_as(p.a, "ns", NULL, "absent", &rc));
    cr_assert_eq(rc, PERF_EUNAVAILABLE);
    cr_assert_eq(atomic_load(&p.world.gets), asked); /* nobody was asked */
    cr_assert_gt(tier_of(p.a).skipped, 0);
    struct source s = {.value = "v"};
    cr_assert_eq(del(p.a, "k"), PERF_EUNAVAILABLE);
    cr_assert_str_eq(get_or_load(p.a, &s), "v"); /* the source still has it */
    cr_assert_eq(tier_of(p.a).repairs, 1);
    atomic_store(&p.world.fails, false);
    perf_cache_maintain(p.a, 1); /* too early: the breaker is open */
    cr_assert_eq(tier_of(p.a).repairs, 1);
    cr_assert(repaired(&p, p.a));
    cr_assert_eq(tier_of(p.a).repaired, 1);
    cr_assert_eq(tier_of(p.a).breaker, PERF_BREAKER_CLOSED);
    assert_missing(p.b, "k"); /* the old value never comes back */
    assert_value(p.b, "kept", "1");
    pair_close(&p);
}

Test(coherence, too_many_repairs_become_one_mark)
{
    enum { KEYS = 1000 };
    struct pair p;
    char key[32];
    test_host_init(&p.th);
    shared_world_init(&p.world, &p.th.clock);
    shared_world_init(&p.below, &p.th.clock);
    perf_tier_options tier = shared_tier(&p.world);
    tier.queue_max_bytes = 16384;
    p.a = open_on(&p, &tier, 1);
    p.b = open_on(&p, &tier, 1);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%d", i);
        cr_assert_eq(set(p.a, key, "old", 60000), PERF_OK);
    }
    test_host_advance(&p.th, 1000);
    atomic_store(&p.world.fails, true);
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%d", i);
        cr_assert_lt(del(p.a, key), PERF_OK);
    }
    cr_assert_lt(tier_of(p.a).repairs, KEYS);
    cr_assert(repaired(&p, p.a));
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_missing(p.a, key);
        assert_missing(p.b, key);
    }
    cr_assert_eq(set(p.a, "new", "1", 60000), PERF_OK);
    assert_value(p.b, "new", "1");
    pair_close(&p);
}

/* --------------------------------------------------------------- two shared tiers */

static void delete_k(void *ctx)
{
    cr_assert_geq(del(ctx, "k"), PERF_OK);
}

Test(coherence, what_comes_from_below_does_not_undo_a_change_above)
{
    struct pair p;
    test_host_init(&p.th);
    shared_world_init(&p.world, &p.th.clock);
    shared_world_init(&p.below, &p.th.clock);
    perf_tier_options tiers[2] = {shared_tier(&p.world), shared_mute_tier(&p.below)};
    p.a = open_on(&p, tiers, 2);
    p.b = open_on(&p, tiers, 2);
    cr_assert_eq(set(p.a, "k", "1", 60000), PERF_OK);
    perf_cache *only_above = open_on(&p, tiers, 1);
    cr_assert_geq(del(only_above, "k"), PERF_OK);           /* the upper tier has lost it */
    assert_value(p.b, "k", "1");                            /* and gets it back from below */
    for (int i = 0; i < 5000 && !get(only_above, "k"); i++) /* in the background */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_value(only_above, "k", "1");
    cr_assert_geq(del(only_above, "k"), PERF_OK);
    cr_assert_eq(atomic_load(&p.world.leases), 1);
    /* Now it is deleted in both while b's answer from below is on its way. */
    p.below.hook_ctx = p.a;
    p.below.in_get = delete_k;
    int rc;
    get_as(p.b, "ns", NULL, "k", &rc);
    assert_missing(only_above, "k");
    assert_missing(p.b, "k");
    assert_missing(p.a, "k");
    cr_assert_eq(perf_cache_close(only_above), PERF_OK);
    pair_close(&p);
}

/* ------------------------------------------------------------------- no memory */

static int load_two(perf_load *const *loads, size_t count, void *ctx)
{
    int rc = PERF_OK;
    (void)ctx;
    for (size_t i = 0; i < count && !rc; i++)
        rc = perf_load_set(loads[i], "v", 1);
    return rc;
}

Test(coherence, every_allocation_fails_once)
{
    for (int at = 1;; at++) {
        struct pair p;
        test_host_init(&p.th);
        shared_world_init(&p.world, &p.th.clock);
        perf_tier_options tier = shared_tier(&p.world);
        perf_cache_options o = PERF_CACHE_OPTIONS_INIT;
        perf_cache *cache;
        o.memory_max_bytes = 1 << 20;
        o.memory_shards = 1;
        o.tiers = &tier;
        o.tier_count = 1;
        o.host = &p.th.host;
        int64_t failed = atomic_load(&p.th.failed);
        atomic_store(&p.th.fail_at, at);
        if (perf_cache_open(&o, &cache) == PERF_OK) {
            struct source s = {.value = "v"};
            perf_loader loader = PERF_LOADER_INIT;
            char text[8];
            size_t len;
            loader.load = load_it;
            loader.ctx = &s;
            int rc = perf_cache_get_or_load_copy(cache, "ns", NULL, "k", 1, &loader, text,
                                                 sizeof text, &len);
            cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "%s", perf_last_error());
            struct batch_source many = {0};
            perf_lookup items[2] = {{.key = "x", .key_len = 1}, {.key = "y", .key_len = 1}};
            loader.load_many = load_two;
            loader.ctx = &many;
            rc = perf_cache_get_or_load_many(cache, "ns", NULL, items, 2, &loader, &len);
            cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "%s", perf_last_error());
            perf_value_release(items[0].value);
            perf_value_release(items[1].value);
            rc = perf_cache_invalidate_tag(cache, "t");
            cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "%s", perf_last_error());
            shared_world_deafen(&p.world, true);
            shared_world_deafen(&p.world, false);
            perf_cache_maintain(cache, 10);
            (void)!perf_cache_close(cache);
        }
        atomic_store(&p.th.fail_at, 0);
        bool none_failed = atomic_load(&p.th.failed) == failed;
        cr_assert_eq(atomic_load(&p.th.live), 0, "allocation %d: %lld blocks leaked", at,
                     (long long)atomic_load(&p.th.live));
        shared_world_end(&p.world);
        if (none_failed) {
            cr_assert_gt(at, 10);
            return;
        }
    }
}

/* -------------------------------------------------------------------- explaining */

Test(coherence, explain_says_where_and_why)
{
    struct pair p;
    char text[2048];
    size_t len;
    pair_open(&p, false);
    cr_assert_eq(perf_cache_set(p.a, "ns", "ann", "k\"\n", 3, "value", 5, 60000), PERF_OK);
    test_host_advance(&p.th, 1000);
    cr_assert_eq(perf_cache_explain(p.a, "ns", "ann", "k\"\n", 3, text, sizeof text, &len),
                 PERF_OK);
    cr_assert_eq(strlen(text), len);
    cr_assert(strstr(text, "\"user\":\"ann\",\"key\":\"k\\u0022\\u000a\""), "%s", text);
    cr_assert(strstr(text, "\"loading\":false,\"memory\":{\"state\":\"fresh\",\"bytes\":5,"), "%s",
              text);
    cr_assert(strstr(text, "\"ttl_ms\":59000,\"age_ms\":1000}"), "%s", text);
    cr_assert(strstr(text, "{\"backend\":\"shared\",\"state\":\"found\",\"bytes\":"), "%s", text);
    cr_assert(strstr(text, "\"marks\":[]}"), "%s", text);
    cr_assert_eq(perf_cache_explain(p.a, "ns", "ann", "k\"\n", 3, text, len, &len), PERF_ETOOSMALL);
    cr_assert_eq(perf_cache_explain(p.a, "ns", "ann", "k\"\n", 3, NULL, 0, &len), PERF_ETOOSMALL);
    cr_assert_eq(perf_cache_invalidate_user(p.a, "ann"), PERF_OK);
    cr_assert_eq(perf_cache_invalidate_user(p.a, "bob"), PERF_OK);
    cr_assert_eq(perf_cache_invalidate_pattern(p.a, NULL, "k*"), PERF_OK);
    cr_assert_eq(perf_cache_explain(p.a, "ns", "ann", "k\"\n", 3, text, sizeof text, &len),
                 PERF_OK);
    cr_assert(strstr(text, "\"memory\":{\"state\":\"absent\"}"), "%s", text);
    cr_assert(strstr(text, "\"state\":\"invalidated\""), "%s", text);
    cr_assert(strstr(text, "{\"kind\":\"user\",\"name\":\"ann\","), "%s", text);
    cr_assert(strstr(text, "{\"kind\":\"pattern\",\"name\":\"\\u0000k*\","), "%s", text);
    cr_assert_null(strstr(text, "bob"));
    atomic_store(&p.world.fails, true);
    cr_assert_eq(perf_cache_explain(p.b, "ns", NULL, "x", 1, text, sizeof text, &len), PERF_OK);
    cr_assert(strstr(text, "\"user\":null"), "%s", text);
    cr_assert(strstr(text, "\"state\":\"failing\",\"error\":\""), "%s", text);
    cr_assert_eq(perf_cache_explain(p.b, "ns", NULL, "x", 1, text, sizeof text, NULL), PERF_EINVAL);
    atomic_store(&p.world.fails, false);
    pair_close(&p);
}
