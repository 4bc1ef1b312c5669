/* SPDX-License-Identifier: MIT */
/*
 * 03_loader.c - get_or_load: what PERF_CACHED is made of, with all its means.
 *
 * Shows: a stale value served while the source is down (fail-safe), tags that
 * invalidate across keys, and a batch whose misses are loaded by one call.
 * Time is the program's own, by the clock seam, so nothing has to wait.
 */
#include <libperf/perf.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------ a clock that we can turn */

static atomic_llong now_ms = 1000000;

static int64_t monotonic_ns(void *ctx)
{
    (void)ctx;
    return now_ms * 1000000;
}

static int64_t realtime_ms(void *ctx)
{
    (void)ctx;
    return now_ms;
}

/* ------------------------------------------------------------ a slow source */

struct source {
    int down; /* 1: cannot be reached */
    int calls;
};

/* One price. It is tagged with its supplier, so that a supplier can be invalidated. */
static int load_price(perf_load *load, void *ctx)
{
    struct source *source = ctx;
    char price[32];

    source->calls++;
    if (source->down)
        return PERF_EUNAVAILABLE;
    snprintf(price, sizeof price, "%d.00 EUR", 10 + source->calls);
    perf_load_add_tag(load, "supplier:acme");
    return perf_load_set(load, price, strlen(price));
}

/* Many prices by one question to the source. */
static int load_prices(perf_load *const *loads, size_t count, void *ctx)
{
    struct source *source = ctx;

    source->calls++;
    for (size_t i = 0; i < count; i++) {
        size_t len;
        const char *article = perf_load_key(loads[i], &len);
        char price[64];

        snprintf(price, sizeof price, "price of %.*s", (int)len, article);
        int rc = perf_load_set(loads[i], price, strlen(price));
        if (rc != PERF_OK)
            return rc;
    }
    return PERF_OK;
}

static void show(const char *when, perf_cache *cache, const perf_loader *loader)
{
    PERF_AUTO(perf_value) v = NULL;
    int rc = perf_cache_get_or_load(cache, "prices", NULL, "bolt", 4, loader, &v);

    if (rc == PERF_OK)
        printf("  %-34s %.*s%s\n", when, (int)perf_value_size(v), (const char *)perf_value_data(v),
               perf_value_is_stale(v) ? "  (stale)" : "");
    else
        printf("  %-34s %s\n", when, perf_strerror(rc));
}

int main(void)
{
    perf_clock clock = PERF_CLOCK_INIT;
    perf_host host = PERF_HOST_INIT;
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    perf_namespace_options policy = PERF_NAMESPACE_OPTIONS_INIT;
    perf_loader loader = PERF_LOADER_INIT;
    struct source source = {0, 0};
    PERF_AUTO(perf_cache) cache = NULL;

    clock.monotonic_ns = monotonic_ns;
    clock.realtime_ms = realtime_ms;
    host.clock = &clock;
    options.host = &host;
    if (perf_cache_open(&options, &cache) != PERF_OK)
        return 1;

    policy.ttl_ms = 60000;     /* fresh for a minute */
    policy.stale_ms = 3600000; /* for another hour better than an error */
    if (perf_cache_configure_namespace(cache, "prices", &policy) != PERF_OK)
        return 1;

    loader.load = load_price;
    loader.load_many = load_prices;
    loader.ctx = &source; /* not cloned, so the loader only runs inside our calls */

    puts("one key:");
    show("first call loads", cache, &loader);
    show("then from memory", cache, &loader);
    source.down = 1;
    now_ms += 61000;
    show("a minute later, the source is down", cache, &loader);
    source.down = 0;
    perf_cache_invalidate_tag(cache, "supplier:acme");
    show("its tag was invalidated", cache, &loader);

    puts("a batch:");
    static const char *const articles[] = {"nut", "washer", "rivet"};
    perf_lookup items[3];
    size_t hits = 0;
    memset(items, 0, sizeof items);
    for (size_t i = 0; i < 3; i++) {
        items[i].key = articles[i];
        items[i].key_len = strlen(articles[i]);
    }
    int before = source.calls;
    int rc = perf_cache_get_or_load_many(cache, "prices", NULL, items, 3, &loader, &hits);
    for (size_t i = 0; i < 3; i++) {
        if (items[i].status == PERF_OK)
            printf("  %.*s\n", (int)perf_value_size(items[i].value),
                   (const char *)perf_value_data(items[i].value));
        perf_value_release(items[i].value);
    }
    printf("  %zu keys, %d question(s) to the source\n", hits, source.calls - before);
    return rc != PERF_OK || hits != 3;
}
