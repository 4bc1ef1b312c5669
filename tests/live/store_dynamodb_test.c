/* SPDX-License-Identifier: MIT */
/*
 * store_dynamodb_test.c - the DynamoDB backend against DynamoDB Local, and what every store must do
 * against moto, too: sizes, chunks, expiry, leases, threads, processes, foreign items, trouble.
 * One server serves all: it takes seconds to start.
 */
#include <inttypes.h>
#include <libperf/aws_tables.h>
#include <libperf/cache.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../src/store/dynamodb.h"
#include "leaks.h"
#include "seams.h"
#include "server.h"
#include "store_conformance.h"
#include "test.h"

static const perf_host own = PERF_HOST_INIT;

static perf_aws *open_at(const char *url, const char *id, const char *secret)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *aws = NULL;
    test_unset_all("AWS_");
    setenv("AWS_ACCESS_KEY_ID", *id ? id : "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", *secret ? secret : "wJalrSECRETKEY", 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    o.service = "dynamodb";
    o.region = "us-east-1";
    o.endpoint_url = url;
    o.timeout_ms = o.attempt_timeout_ms = TEST_PATIENCE_MS;
    o.host = &own;
    cr_assert_eq(perf_aws_open(&o, &aws), PERF_OK, "%s", perf_last_error());
    return aws;
}

static void must(perf_aws *aws, const char *operation, const char *json, char *to, size_t size)
{
    perf_aws_reply *reply = NULL;
    int rc = perf_aws_call(aws, operation, json, strlen(json), 20000, &reply);
    cr_assert_eq(rc, PERF_OK, "%s: %s", operation, perf_last_error());
    if (to)
        snprintf(to, size, "%s", (const char *)perf_aws_reply_body(reply));
    perf_aws_reply_release(reply);
}

static int64_t ms_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void make_table(perf_aws *aws, const char *name)
{
    perf_aws_tables_options o = PERF_AWS_TABLES_OPTIONS_INIT;
    o.aws = aws;
    o.tables = PERF_AWS_TABLE_CACHE;
    o.cache_table = name;
    cr_assert_eq(perf_aws_tables_ensure(&o, NULL), PERF_OK, "%s", perf_last_error());
}

/* A store with the clock of a test, and how it is asked. */
struct fixture {
    struct test_host th;
    struct perf__host host;
    struct perf__store *store;
    perf_tier_options tier;
};

static void open_store(struct fixture *f, perf_aws *aws, const char *location)
{
    f->tier = (perf_tier_options)PERF_TIER_OPTIONS_INIT;
    f->tier.backend = "dynamodb";
    f->tier.location = location;
    f->tier.store_ctx = aws;
    f->tier.timeout_ms = 15000;
    cr_assert_eq(perf__host_take(test_host_init(&f->th), &f->host), PERF_OK);
    cr_assert_eq(perf__store_open(&f->tier, &f->host, &f->store), PERF_OK, "%s", perf_last_error());
}

static void close_store(struct fixture *f)
{
    perf__store_close(f->store);
    cr_assert_eq(f->th.live, 0);
}

static int put(struct fixture *f, uint64_t n, const void *data, size_t len)
{
    struct test_key key;
    perf_store_op op = test_set(&key, n, data, len, 0);
    return perf__store_apply(f->store, &op, 1);
}

static int get(struct fixture *f, uint64_t n, size_t *len)
{
    struct test_key key;
    perf_store_key at = test_key(&key, n);
    perf_store_reply reply = {.allocator = &f->host.allocator};
    int rc = perf__store_get(f->store, &at, &reply);
    if (len)
        *len = reply.len;
    perf__reply_free(&reply);
    return rc;
}

static bool has(struct fixture *f, uint64_t n, const void *data, size_t len)
{
    return test_has(f->store, &f->host.allocator, n, data, len);
}

static perf_store_usage usage_of(struct fixture *f)
{
    perf_store_usage usage;
    cr_assert_eq(perf__store_usage(f->store, &usage), PERF_OK, "%s", perf_last_error());
    return usage;
}

/* How many items of a key there are besides its head. */
static int chunks_of(perf_aws *aws, const char *table, const char *pk)
{
    char request[512];
    int count = 0, one = 0, rc;
    perf_aws_pages *pages;
    perf_aws_reply *page;
    int len = snprintf(request, sizeof request,
                       "{\"TableName\":\"%s\",\"Select\":\"COUNT\",\"KeyConditionExpression\":"
                       "\"pk = :p AND begins_with(sk, :s)\",\"ExpressionAttributeValues\":{\":p\":"
                       "{\"S\":\"%s\"},\":s\":{\"S\":\"1|\"}}}",
                       table, pk);
    cr_assert_eq(perf_aws_pages_open(aws, "Query", request, (size_t)len, NULL, NULL, &pages),
                 PERF_OK);
    while (!(rc = perf_aws_pages_next(pages, 20000, &page))) {
        const char *at = strstr(perf_aws_reply_body(page), "\"Count\":");
        cr_assert_eq(sscanf(at, "\"Count\":%d", &one), 1);
        count += one;
        perf_aws_reply_release(page);
    }
    cr_assert_eq(rc, PERF_MISS, "%s", perf_last_error());
    perf_aws_pages_close(pages);
    return count;
}

/* -------------------------------------------------------------------- sizes */

static void sizes(perf_aws *aws, bool compresses)
{
    static const size_t sizes[] = {1,      1023,   1024,   4096,        100000, 401407,
                                   401408, 401409, 786432, 1024 * 1024, 5 << 20};
    struct fixture f;
    uint64_t x = 88172645463325252u;
    unsigned char *noise = malloc(5 << 20), *text = malloc(5 << 20);
    for (size_t i = 0; i < 5 << 20; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        noise[i] = (unsigned char)x;
        text[i] = (unsigned char)("a course about "[i % 15] + (i % 4099 == 0));
    }
    open_store(&f, aws, compresses ? "records" : "records?compress=0");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        perf_store_usage before = usage_of(&f);
        cr_assert_eq(put(&f, 10, noise, sizes[i]), PERF_OK, "%s", perf_last_error());
        cr_assert(has(&f, 10, noise, sizes[i]), "%zu bytes of noise", sizes[i]);
        cr_assert_eq(chunks_of(aws, "records", "ns|user|key-10"),
                     sizes[i] > 401408 ? (int)((sizes[i] + 393215) / 393216) : 0,
                     "%zu bytes: chunks of what was before are removed", sizes[i]);
        uint64_t noise_units = usage_of(&f).write_units_milli - before.write_units_milli;
        before = usage_of(&f);
        cr_assert_eq(put(&f, 11, text, sizes[i]), PERF_OK, "%s", perf_last_error());
        cr_assert(has(&f, 11, text, sizes[i]), "%zu bytes of text", sizes[i]);
        uint64_t text_units = usage_of(&f).write_units_milli - before.write_units_milli;
        if (sizes[i] >= 4096)
            cr_assert_eq(text_units * 2 < noise_units, compresses, "%zu bytes: %d and %d", sizes[i],
                         (int)text_units, (int)noise_units);
        cr_assert_geq(noise_units, sizes[i] / 1024 * 1000);
        /* small again: the chunks of the long ones stay until their time is over */
        if (sizes[i] > 401408) {
            cr_assert_eq(put(&f, 10, "small", 5), PERF_OK);
            cr_assert(has(&f, 10, "small", 5));
            cr_assert_eq(put(&f, 10, noise, sizes[i]), PERF_OK, "%s", perf_last_error());
            char request[300];
            for (int n = 0; n < 40; n++) { /* by hand, so that the count above is right */
                char reply[4096], sk[64];
                must(aws, "Query",
                     "{\"TableName\":\"records\",\"ProjectionExpression\":\"sk\",\"Limit\":1,"
                     "\"KeyConditionExpression\":\"pk = :p AND begins_with(sk, :s)\","
                     "\"ExpressionAttributeValues\":{\":p\":{\"S\":\"ns|user|key-10\"},"
                     "\":s\":{\"S\":\"1|\"}}}",
                     reply, sizeof reply);
                const char *at = strstr(reply, "\"1|");
                if (!at)
                    break;
                cr_assert_eq(sscanf(at, "\"%63[^\"]", sk), 1);
                snprintf(request, sizeof request,
                         "{\"TableName\":\"records\",\"Key\":{\"pk\":{\"S\":\"ns|user|key-10\"},"
                         "\"sk\":{\"S\":\"%s\"}}}",
                         sk);
                must(aws, "DeleteItem", request, NULL, 0);
            }
            cr_assert_eq(get(&f, 10, NULL), PERF_MISS, "a head without its chunks");
            cr_assert_eq(put(&f, 10, "small", 5), PERF_OK);
        }
    }
    perf_store_op op;
    struct test_key key;
    op = test_set(&key, 12, noise, (size_t)(32 << 20) + 1, 0);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_ETOOBIG, "%s", perf_last_error());
    close_store(&f);
    /* who does not pack reads what was packed */
    open_store(&f, aws, "records?compress=0&consistent=0");
    cr_assert(has(&f, 11, text, 5 << 20));
    close_store(&f);
    free(noise);
    free(text);
}

/* A reader never sees parts of two writes, however long they take. */
struct rewriter {
    struct fixture *f;
    _Atomic bool stop;
    _Atomic int writes;
};

static void *rewrite(void *arg)
{
    struct rewriter *r = arg;
    enum { LEN = 900000 };
    unsigned char *data = malloc(LEN);
    uint64_t x = 1;
    for (unsigned char n = 0; !atomic_load(&r->stop); n++) {
        for (size_t i = 0; i < LEN; i += 8) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            memcpy(data + i, &x, 8);
            data[i] = n;
        }
        atomic_fetch_add(&r->writes, put(r->f, 20, data, LEN) == PERF_OK);
    }
    free(data);
    return NULL;
}

static void never_a_mixture(perf_aws *aws)
{
    struct fixture f;
    pthread_t thread;
    int found = 0;
    open_store(&f, aws, "records");
    struct rewriter r = {.f = &f};
    struct test_key key;
    perf_store_key at = test_key(&key, 20);
    cr_assert(!pthread_create(&thread, NULL, rewrite, &r));
    int64_t enough = ms_now() + 2000, end = enough + 40000;
    while (ms_now() < enough || (ms_now() < end && (found < 5 || atomic_load(&r.writes) < 5))) {
        perf_store_reply reply = {.allocator = &f.host.allocator};
        int rc = perf__store_get(f.store, &at, &reply);
        cr_assert_geq(rc, 0, "%s", perf_last_error());
        if (rc == PERF_OK) {
            cr_assert_eq(reply.len, 900000);
            for (size_t i = 0; i < reply.len; i += 8)
                cr_assert_eq(reply.data[i], reply.data[0], "byte %zu", i);
            found++;
        }
        perf__reply_free(&reply);
    }
    atomic_store(&r.stop, true);
    pthread_join(thread, NULL);
    cr_assert_geq(found, 5);
    cr_assert_geq(r.writes, 5);
    close_store(&f);
}

/* --------------------------------------------------------------------- time */

static void time_is_over(perf_aws *aws)
{
    struct fixture f;
    struct test_key key;
    open_store(&f, aws, "records");
    int64_t now = f.th.realtime_ms;
    perf_store_op op = test_set(&key, 30, "short", 5, now + 5000);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK, "%s", perf_last_error());
    cr_assert(has(&f, 30, "short", 5));
    test_host_advance(&f.th, 4900);
    cr_assert(has(&f, 30, "short", 5));
    test_host_advance(&f.th, 1200);
    cr_assert_eq(get(&f, 30, NULL), PERF_MISS, "the service has not deleted it yet");
    perf_store_reply reply = {.allocator = &f.host.allocator}, *replies[1] = {&reply};
    perf_store_key keys[1] = {test_key(&key, 30)};
    cr_assert_eq(perf__store_get_many(f.store, keys, 1, replies), PERF_OK);
    cr_assert(!reply.found);
    /* what has no end has one, a year from now; marks outlive it */
    char item[2048], request[256];
    long long expires;
    cr_assert_eq(put(&f, 31, "for ever", 8), PERF_OK);
    snprintf(request, sizeof request,
             "{\"TableName\":\"records\",\"Key\":{\"pk\":{\"S\":\"ns|user|key-31\"},\"sk\":{\"S\":"
             "\"0\"}}}");
    must(aws, "GetItem", request, item, sizeof item);
    cr_assert_eq(sscanf(strstr(item, "\"expires\":"), "\"expires\":{\"N\":\"%lld", &expires), 1);
    cr_assert_eq(expires, f.th.realtime_ms / 1000 + INT64_C(365) * 86400);
    cr_assert(strstr(item, "\"ns\":{\"S\":\"ns\"}") && strstr(item, "\"user\":{\"S\":\"user\"}"),
              "%s", item);
    close_store(&f);
}

struct seen {
    int count;
    int64_t stamp;
};

static int see(void *ctx, int64_t kind, perf_bytes name, int64_t stamp_ms)
{
    struct seen *seen = ctx;
    (void)kind, (void)name;
    seen->count++;
    seen->stamp = stamp_ms > seen->stamp ? stamp_ms : seen->stamp;
    return 0;
}

/* More marks than a page has; those of another prefix are others; old ones are gone. */
static void many_marks(perf_aws *aws)
{
    enum { MARKS = 1200, NAME = 1250, BATCH = 400 };
    struct fixture f;
    struct seen seen = {0};
    static char names[BATCH][NAME];
    static perf_store_op ops[BATCH];
    open_store(&f, aws, "records?prefix=marks");
    memset(names, 'm', sizeof names);
    for (int from = 0; from < MARKS; from += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            int n = from + i;
            memcpy(names[i], &n, sizeof n); /* any bytes */
            ops[i] = (perf_store_op){.kind = PERF_STORE_MARK,
                                     .mark_kind = 5,
                                     .mark_name = {names[i], NAME},
                                     .mark_stamp_ms = 1000 + n};
        }
        cr_assert_eq(perf__store_apply(f.store, ops, BATCH), PERF_OK, "%s", perf_last_error());
    }
    cr_assert_eq(perf__store_marks(f.store, 0, see, &seen), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(seen.count, MARKS);
    cr_assert_eq(seen.stamp, 1000 + MARKS - 1);
    test_host_advance(&f.th, INT64_C(401) * 86400000);
    seen.count = 0;
    cr_assert_eq(perf__store_marks(f.store, 0, see, &seen), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(seen.count, 0, "no record that they speak of can be left");
    close_store(&f);
}

/* ------------------------------------------------------------------- leases */

static perf_store_op leased(struct test_key *key, uint64_t n, const char *text, uint64_t lease)
{
    perf_store_op op = test_set(key, n, text, strlen(text), 0);
    op.lease = lease;
    return op;
}

static void leases(perf_aws *aws)
{
    struct fixture f;
    struct test_key key, k2, k3;
    uint64_t one = 0, two = 0, three = 0;
    open_store(&f, aws, "records");
    perf_store_key at = test_key(&key, 40);
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &one), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &two), PERF_EBUSY);
    cr_assert_eq(get(&f, 40, NULL), PERF_MISS, "a lease is no record");
    perf_store_op op = leased(&k2, 40, "made", one);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK, "%s", perf_last_error());
    cr_assert(has(&f, 40, "made", 4));
    op = leased(&k2, 40, "again", one);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK);
    cr_assert(has(&f, 40, "made", 4), "what was kept ended the lease");

    /* with a record there; it stays readable meanwhile */
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &two), PERF_OK, "%s", perf_last_error());
    cr_assert_gt(two, one);
    cr_assert(has(&f, 40, "made", 4));
    cr_assert_eq(put(&f, 40, "by another", 10), PERF_OK);
    op = leased(&k2, 40, "late", two);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK);
    cr_assert(has(&f, 40, "by another", 10), "a set ends the lease");
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &three), PERF_OK);
    cr_assert_gt(three, two);
    op = test_remove(&k2, 40);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK);
    op = leased(&k2, 40, "late", three);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK);
    cr_assert_eq(get(&f, 40, NULL), PERF_MISS, "so does a remove");

    /* time, and giving back */
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &one), PERF_OK);
    test_host_advance(&f.th, 1001);
    op = leased(&k2, 40, "late", one);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK);
    cr_assert_eq(get(&f, 40, NULL), PERF_MISS, "it is over");
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &two), PERF_OK);
    cr_assert_gt(two, one);
    cr_assert_eq(perf__store_unlease(f.store, &at, one), PERF_OK, "not held any more");
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &three), PERF_EBUSY);
    cr_assert_eq(perf__store_unlease(f.store, &at, two), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &three), PERF_OK);
    cr_assert_gt(three, two);

    /* several changes of one key in one apply are as if one after the other */
    perf_store_op ops[3] = {leased(&key, 40, "leased", three), test_set(&k2, 40, "plain", 5, 0),
                            leased(&k3, 40, "after", three)};
    cr_assert_eq(perf__store_apply(f.store, ops, 3), PERF_OK, "%s", perf_last_error());
    cr_assert(has(&f, 40, "plain", 5));
    cr_assert_eq(perf__store_lease(f.store, &ops[0].key, 1000, &one), PERF_OK);
    ops[0] = leased(&key, 40, "wrong", one + 1);
    ops[1] = leased(&k2, 40, "right", one);
    ops[2] = leased(&k3, 40, "late", one);
    cr_assert_eq(perf__store_apply(f.store, ops, 3), PERF_OK, "%s", perf_last_error());
    cr_assert(has(&f, 40, "right", 5));

    /* many at once: those that are held are kept */
    enum { MANY = 60 };
    static struct test_key many[MANY];
    static perf_store_op sets[MANY];
    for (uint64_t i = 0; i < MANY; i++) {
        sets[i] = leased(&many[i], 200 + i, "kept", 0);
        cr_assert_eq(perf__store_lease(f.store, &sets[i].key, 60000, &sets[i].lease), PERF_OK);
        sets[i].lease += i % 3 == 0;
    }
    cr_assert_eq(perf__store_apply(f.store, sets, MANY), PERF_OK, "%s", perf_last_error());
    for (uint64_t i = 0; i < MANY; i++)
        cr_assert_eq(has(&f, 200 + i, "kept", 4), i % 3 != 0);

    /* a long record under a lease */
    static char big[600000];
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * i >> 3 ^ i * 2654435761u >> 11);
    cr_assert_eq(perf__store_lease(f.store, &ops[0].key, 1000, &one), PERF_OK);
    op = test_set(&k2, 40, big, sizeof big, 0);
    op.lease = one;
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK, "%s", perf_last_error());
    cr_assert(has(&f, 40, big, sizeof big));
    cr_assert_eq(perf__store_lease(f.store, &ops[0].key, 0, &one), PERF_EINVAL);
    /* Renewed, at a time when it would have ended; and not when it has. */
    cr_assert_eq(perf__store_lease(f.store, &ops[0].key, 1000, &one), PERF_OK);
    test_host_advance(&f.th, 900);
    cr_assert_eq(perf__store_renew(f.store, &ops[0].key, 1000, one), PERF_OK, "%s",
                 perf_last_error());
    test_host_advance(&f.th, 900);
    cr_assert_eq(perf__store_lease(f.store, &ops[0].key, 1000, &two), PERF_EBUSY);
    cr_assert_eq(perf__store_renew(f.store, &ops[0].key, 1000, one + 1), PERF_EBUSY);
    test_host_advance(&f.th, 100);
    cr_assert_eq(perf__store_renew(f.store, &ops[0].key, 1000, one), PERF_EBUSY);
    /* Many at once, of which some are taken. */
    struct test_key own[10];
    perf_store_key keys[10];
    uint64_t tokens[10] = {0}, again[10] = {0};
    for (uint64_t i = 0; i < 10; i++)
        keys[i] = test_key(&own[i], 9000 + i);
    cr_assert_eq(perf__store_lease_many(f.store, keys, 5, 1000, tokens), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_eq(perf__store_lease_many(f.store, keys, 10, 1000, again), PERF_OK);
    for (size_t i = 0; i < 10; i++)
        cr_assert((i < 5) == (tokens[i] != 0) && (i < 5) == (again[i] == 0), "%zu", i);
    cr_assert_eq(perf__store_lease_many(f.store, keys, 5, 1000, tokens), PERF_OK);
    cr_assert(tokens[0] && tokens[4], "renewed");
    cr_assert_eq(perf__store_lease_many(f.store, keys, 5, 0, tokens), PERF_EINVAL);
    close_store(&f);
}

enum { THREADS = 8, ROUNDS = 6 };

struct racer {
    struct fixture *f;
    pthread_barrier_t *barrier;
    _Atomic int *winners; /* of each round */
    _Atomic uint64_t *tokens;
    int wrong;
    char why[320];
};

static void went_wrong(struct racer *r, bool wrong, const char *what)
{
    if (wrong && !r->wrong++)
        snprintf(r->why, sizeof r->why, "%s: %.280s", what, perf_last_error());
}

static void *race(void *arg)
{
    struct racer *r = arg;
    struct test_key key, k2;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        perf_store_key at = test_key(&key, 50);
        uint64_t token = 0;
        pthread_barrier_wait(r->barrier);
        int rc = perf__store_lease(r->f->store, &at, 60000, &token);
        went_wrong(r, rc != PERF_OK && rc != PERF_EBUSY, "lease");
        if (rc == PERF_OK) {
            atomic_fetch_add(&r->winners[round], 1);
            went_wrong(r, token <= atomic_exchange(r->tokens, token), "token");
        }
        pthread_barrier_wait(r->barrier);
        /* all write with what they have; one may */
        char text[32];
        snprintf(text, sizeof text, "round %d", (int)round);
        perf_store_op op = leased(&k2, 50, text, token ? token : 12345);
        went_wrong(r, perf__store_apply(r->f->store, &op, 1) != PERF_OK, "apply");
        pthread_barrier_wait(r->barrier);
        went_wrong(r, !has(r->f, 50, text, strlen(text)), "read");
    }
    return NULL;
}

static void leases_under_threads(perf_aws *aws)
{
    struct fixture f;
    pthread_t threads[THREADS];
    struct racer racers[THREADS];
    pthread_barrier_t barrier;
    _Atomic int winners[ROUNDS] = {0};
    _Atomic uint64_t tokens = 0;
    open_store(&f, aws, "records");
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        racers[i] = (struct racer){&f, &barrier, winners, &tokens, 0, ""};
        cr_assert(!pthread_create(&threads[i], NULL, race, &racers[i]));
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(racers[i].wrong, 0, "%s", racers[i].why);
    }
    for (int i = 0; i < ROUNDS; i++)
        cr_assert_eq(winners[i], 1, "round %d", i);
    pthread_barrier_destroy(&barrier);
    close_store(&f);
}

/* ------------------------------------------------------------------ foreign */

static void foreign_items(perf_aws *aws)
{
#define ITEM(rest) "\"sk\":{\"S\":\"0\"}" rest
    static const struct {
        const char *rest;
        int rc; /* PERF_OK and no bytes: damaged */
    } items[] = {
        {ITEM(""), PERF_MISS},
        {ITEM(",\"other\":{\"S\":\"x\"}"), PERF_MISS},
        {ITEM(",\"record\":{\"B\":\"YWJj\"}"), PERF_OK},
        {ITEM(",\"record\":{\"B\":\"YWJj\"},\"size\":{\"N\":\"3\"}"), PERF_OK},
        {ITEM(",\"record\":{\"B\":\"YWJj\"},\"size\":{\"N\":\"3\"},\"format\":{\"N\":\"2\"}"),
         PERF_OK},
        {ITEM(",\"record\":{\"B\":\"YWJj\"},\"size\":{\"N\":\"4\"},\"format\":{\"N\":\"1\"}"),
         PERF_OK},
        {ITEM(",\"record\":{\"S\":\"abc\"},\"size\":{\"N\":\"3\"},\"format\":{\"N\":\"1\"}"),
         PERF_OK},
        {ITEM(",\"record\":{\"B\":\"YWJj\"},\"size\":{\"N\":\"3\"},\"format\":{\"N\":\"1\"},"
              "\"packed\":{\"S\":\"zstd\"}"),
         PERF_OK},
        {ITEM(",\"record\":{\"B\":\"YWJj\"},\"size\":{\"N\":\"3\"},\"format\":{\"N\":\"1\"},"
              "\"packed\":{\"S\":\"rot13\"}"),
         PERF_OK},
        {ITEM(",\"record\":{\"B\":\"YWJj\"},\"size\":{\"N\":\"3\"},\"format\":{\"N\":\"1\"},"
              "\"expires\":{\"S\":\"never\"}"),
         PERF_OK},
        {ITEM(",\"size\":{\"N\":\"3\"},\"format\":{\"N\":\"1\"},\"chunks\":{\"N\":\"97\"},"
              "\"packed_size\":{\"N\":\"300\"},\"version\":{\"S\":\"0123456789abcdef\"}"),
         PERF_OK},
        {ITEM(",\"size\":{\"N\":\"3\"},\"format\":{\"N\":\"1\"},\"chunks\":{\"N\":\"1\"},"
              "\"packed_size\":{\"N\":\"3\"},\"version\":{\"S\":\"0123456789abcde\"}"),
         PERF_OK},
        {ITEM(",\"size\":{\"N\":\"99999999999\"},\"format\":{\"N\":\"1\"},\"chunks\":{\"N\":\"1\"},"
              "\"packed_size\":{\"N\":\"3\"},\"version\":{\"S\":\"0123456789abcdef\"}"),
         PERF_OK},
        {ITEM(",\"size\":{\"N\":\"3\"},\"format\":{\"N\":\"1\"},\"chunks\":{\"N\":\"2\"},"
              "\"packed_size\":{\"N\":\"3\"},\"version\":{\"S\":\"0123456789abcdef\"}"),
         PERF_MISS},
    };
    struct fixture f;
    char request[1024];
    size_t len;
    open_store(&f, aws, "records");
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        snprintf(request, sizeof request,
                 "{\"TableName\":\"records\",\"Item\":{\"pk\":{\"S\":\"ns|user|key-60\"},%s}}",
                 items[i].rest);
        must(aws, "PutItem", request, NULL, 0);
        len = 77;
        cr_assert_eq(get(&f, 60, &len), items[i].rc, "item %zu: %s", i, perf_last_error());
        cr_assert_eq(len, 0);
        struct test_key key;
        perf_store_reply reply = {.allocator = &f.host.allocator}, *replies[1] = {&reply};
        perf_store_key keys[1] = {test_key(&key, 60)};
        cr_assert_eq(perf__store_get_many(f.store, keys, 1, replies), PERF_OK);
        cr_assert_eq(reply.found, items[i].rc == PERF_OK);
        perf__reply_free(&reply);
    }
    /* the right record, foreign attributes beside it */
    must(aws, "PutItem",
         "{\"TableName\":\"records\",\"Item\":{\"pk\":{\"S\":\"ns|user|key-60\"}," ITEM(
             ",\"record\":{\"B\":\"YWJj\"},\"size\":{\"N\":\"3\"},\"format\":{\"N\":\"1\"},"
             "\"note\":{\"M\":{\"record\":{\"B\":\"eA==\"}}}") "}}",
         NULL, 0);
    cr_assert(has(&f, 60, "abc", 3));
    /* a mark of nobody's */
    must(
        aws, "PutItem",
        "{\"TableName\":\"records\",\"Item\":{\"pk\":{\"S\":\"odd|!marks\"},\"sk\":{\"S\":\"x\"}}}",
        NULL, 0);
    struct seen seen = {0};
    close_store(&f);
    open_store(&f, aws, "records?prefix=odd");
    cr_assert_eq(perf__store_marks(f.store, 0, see, &seen), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(seen.count, 0);
    close_store(&f);
}

/* Keys of any bytes and any length, those of a prefix apart, and twice in one batch. */
static void keys_of_any_kind(perf_aws *aws)
{
    struct fixture f, g;
    static char longest[32767];
    uint8_t id[16] = {0};
    memset(longest, '\x80', sizeof longest);
    static const char quotes[] = "a|b\\c\"d%e\x7f\xff \n";
    const perf_bytes names[] = {{"k", 1},
                                {"k|", 2},
                                {"|k", 2},
                                {"%", 1},
                                {"\0", 1},
                                {quotes, sizeof quotes},
                                {longest, 600},
                                {longest, 700},
                                {longest, sizeof longest},
                                {longest, sizeof longest - 1}};
    enum { COUNT = sizeof names / sizeof *names };
    perf_store_op ops[COUNT];
    perf_store_key keys[COUNT + 2];
    perf_store_reply replies[COUNT + 2] = {{0}}, *pointers[COUNT + 2];
    open_store(&f, aws, "records?prefix=a");
    open_store(&g, aws, "records?prefix=b");
    for (size_t i = 0; i < COUNT; i++)
        ops[i] = (perf_store_op){
            .kind = PERF_STORE_SET,
            .key = {id, {"n|", 2}, {i % 2 ? "" : "\xc3\xbc", i % 2 ? 0 : 2}, names[i]},
            .record = {&names[i], sizeof names[i]}};
    cr_assert_eq(perf__store_apply(f.store, ops, COUNT), PERF_OK, "%s", perf_last_error());
    for (size_t i = 0; i < COUNT + 2; i++) {
        keys[i] = ops[i % COUNT].key;
        replies[i].allocator = &f.host.allocator;
        pointers[i] = &replies[i];
    }
    cr_assert_eq(perf__store_get_many(f.store, keys, COUNT + 2, pointers), PERF_OK, "%s",
                 perf_last_error());
    for (size_t i = 0; i < COUNT + 2; i++) {
        cr_assert(replies[i].found && replies[i].len == sizeof *names &&
                      !memcmp(replies[i].data, &names[i % COUNT], sizeof *names),
                  "key %zu", i);
        perf__reply_free(&replies[i]);
    }
    cr_assert_eq(perf__store_get_many(g.store, keys, COUNT, pointers), PERF_OK);
    for (size_t i = 0; i < COUNT; i++)
        cr_assert(!replies[i].found, "another prefix");
    char item[512];
    must(aws, "GetItem",
         "{\"TableName\":\"records\",\"Key\":{\"pk\":{\"S\":\"a|n%7C|%C3%BC|k\"},\"sk\":{\"S\":"
         "\"0\"}},\"ProjectionExpression\":\"ns\"}",
         item, sizeof item);
    cr_assert(strstr(item, "\"a|n%7C\""), "%s", item);
    close_store(&f);
    close_store(&g);
}

/* ------------------------------------------------------------------ trouble */

static void no_memory(perf_aws *aws)
{
    struct fixture f;
    struct test_key k1, k2, k3;
    static char big[700000];
    int refused = 0;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * i >> 5 ^ i * 2654435761u >> 13);
    open_store(&f, aws, "records");
    enum { COUNT = 35 }; /* more than one request */
    static struct test_key more[COUNT];
    perf_store_op ops[COUNT] = {test_set(&k1, 70, "small", 5, 0),
                                test_set(&k2, 71, big, sizeof big, 0), test_remove(&k3, 72),
                                test_mark(4, "t", 5), test_mark(4, "u", 5)};
    for (uint64_t i = 5; i < COUNT; i++)
        ops[i] = test_set(&more[i], 4000 + i, "more", 4, 0);
    perf_store_key keys[3] = {ops[0].key, ops[1].key, ops[2].key};
    for (int64_t at = 1;; at++) {
        perf_store_reply replies[3] = {{0}}, *pointers[3];
        for (int i = 0; i < 3; i++) {
            replies[i].allocator = &f.host.allocator;
            pointers[i] = &replies[i];
        }
        uint64_t token;
        int64_t live = f.th.live;
        atomic_store(&f.th.fail_at, at);
        int rc[5] = {perf__store_apply(f.store, ops, COUNT), 0, 0, 0, 0};
        bool over = f.th.fail_at > 0;
        if (rc[0] == PERF_OK) {
            atomic_store(&f.th.fail_at, at);
            rc[1] = perf__store_get_many(f.store, keys, 3, pointers);
            atomic_store(&f.th.fail_at, at);
            rc[2] = perf__store_lease(f.store, &keys[2], 1, &token);
            test_host_advance(&f.th, 10);
            struct seen seen = {0};
            atomic_store(&f.th.fail_at, at);
            rc[3] = perf__store_marks(f.store, 0, see, &seen);
            atomic_store(&f.th.fail_at, at);
            rc[4] = perf__store_unlease(f.store, &keys[2], 1);
        }
        over = over && f.th.fail_at > 0;
        atomic_store(&f.th.fail_at, 0);
        for (int i = 0; i < 5; i++) {
            cr_assert(rc[i] == PERF_OK || rc[i] == PERF_ENOMEM, "%d: %s", i, perf_last_error());
            refused += rc[i] == PERF_ENOMEM;
        }
        for (int i = 0; i < 3; i++)
            perf__reply_free(&replies[i]);
        cr_assert_eq(f.th.live, live, "at %d", (int)at);
        if (over && rc[0] == PERF_OK)
            break;
        cr_assert_lt(at, 300);
    }
    cr_assert_gt(refused, 8);
    cr_assert(has(&f, 71, big, sizeof big));
    close_store(&f);
}

static void missing_table(perf_aws *aws)
{
    struct fixture f;
    open_store(&f, aws, "not-there");
    cr_assert_eq(put(&f, 1, "x", 1), PERF_EREMOTE);
    cr_assert(strstr(perf_last_error(), "there is no table not-there in us-east-1 at http://") &&
                  strstr(perf_last_error(), "perf_aws_tables_ensure()"),
              "%s", perf_last_error());
    cr_assert_eq(get(&f, 1, NULL), PERF_EREMOTE);
    cr_assert(strstr(perf_last_error(), "perf_aws_tables_ensure()"), "%s", perf_last_error());
    struct seen seen = {0};
    cr_assert_eq(perf__store_marks(f.store, 0, see, &seen), PERF_EREMOTE);
    cr_assert(strstr(perf_last_error(), "perf_aws_tables_ensure()"), "%s", perf_last_error());
    close_store(&f);
}

/* A proxy that throttles: what the service leaves out is sent again. */
static void throttled(struct test_server *server)
{
    struct test_server *proxy = test_server_throttle(server->port, "20r/s", 2);
    cr_assert_not_null(proxy, "%s", test_server_why());
    struct fixture f;
    perf_aws *aws = open_at(proxy->url, "", "");
    enum { COUNT = 300 };
    static struct test_key own_keys[COUNT];
    static perf_store_op ops[COUNT];
    open_store(&f, aws, "records");
    for (uint64_t i = 0; i < COUNT; i++)
        ops[i] = test_set(&own_keys[i], 1000 + i, &i, sizeof i, 0);
    for (uint64_t i = 0; i < COUNT; i++)
        ops[i].record = (perf_bytes){own_keys[i].name, strlen(own_keys[i].name)};
    cr_assert_eq(perf__store_apply(f.store, ops, COUNT), PERF_OK, "%s", perf_last_error());
    for (uint64_t i = 0; i < COUNT; i += 37)
        cr_assert(has(&f, 1000 + i, own_keys[i].name, strlen(own_keys[i].name)), "%s",
                  perf_last_error());
    close_store(&f);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(proxy);

    proxy = test_server_throttle(server->port, "1r/m", 0);
    aws = open_at(proxy->url, "", "");
    open_store(&f, aws, "records");
    close_store(&f);
    f.tier.timeout_ms = 600;
    cr_assert_eq(perf__store_open(&f.tier, &f.host, &f.store), PERF_OK);
    int64_t from = ms_now();
    int rc = perf__store_apply(f.store, ops, COUNT);
    cr_assert(rc == PERF_ETHROTTLED || rc == PERF_ETIMEDOUT, "%d: %s", rc, perf_last_error());
    cr_assert_lt(ms_now() - from, 1200, "within timeout_ms");
    close_store(&f);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(proxy);
}

/* Of several batches at once, the proxy lets one a second through; to the others it says that an
 * item was left out. It is sent again. */
static void left_out(struct test_server *server, perf_aws *direct)
{
    static const char http[] =
        "limit_req_zone \"all\" zone=all:64k rate=1r/s;\n"
        "limit_req_status 429;\n"
        "client_max_body_size 64m;\n"
        "server {\n"
        "    listen 127.0.0.1:@PORT@;\n"
        "    location / {\n"
        "        limit_req zone=all;\n"
        "        error_page 429 = @left;\n"
        "        proxy_pass http://127.0.0.1:@UPSTREAM@;\n"
        "        proxy_set_header Host $http_host;\n"
        "    }\n"
        "    location @left {\n"
        "        default_type application/x-amz-json-1.0;\n"
        "        return 200 '{\"UnprocessedItems\":{\"records\":[{\"PutRequest\":{\"Item\":{"
        "\"pk\":{\"S\":\"left|out|0\"},\"sk\":{\"S\":\"0\"},\"format\":{\"N\":\"1\"},"
        "\"size\":{\"N\":\"3\"},\"record\":{\"B\":\"YWJj\"}}}}]}}';\n"
        "    }\n"
        "}\n";
    enum { COUNT = 50 }; /* two requests */
    static struct test_key own_keys[COUNT];
    static perf_store_op ops[COUNT];
    struct fixture f;
    struct test_server *proxy = test_server_nginx(http, server->port);
    cr_assert_not_null(proxy, "%s", test_server_why());
    perf_aws *aws = open_at(proxy->url, "", "");
    open_store(&f, aws, "records");
    for (uint64_t i = 0; i < COUNT; i++)
        ops[i] = test_set(&own_keys[i], 3000 + i, "left", 4, 0);
    cr_assert_eq(perf__store_apply(f.store, ops, COUNT), PERF_OK, "%s", perf_last_error());
    close_store(&f);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(proxy);
    open_store(&f, direct, "records");
    const perf_store_key key = {
        (const uint8_t *)"0123456789abcdef", {"left", 4}, {"out", 3}, {"0", 1}};
    perf_store_reply reply = {.allocator = &f.host.allocator};
    cr_assert_eq(perf__store_get(f.store, &key, &reply), PERF_OK, "%s", perf_last_error());
    cr_assert(reply.len == 3 && !memcmp(reply.data, "abc", 3));
    perf__reply_free(&reply);
    close_store(&f);
}

/* The network is cut, stands still, and is back. */
static void cut_off(struct test_server *server)
{
    struct test_server *proxy = test_server_toxiproxy(server->port);
    if (!proxy) {
        fprintf(stderr, "SKIPPED in part: %s\n", test_server_why());
        return;
    }
    char url[64];
    struct fixture f;
    snprintf(url, sizeof url, "http://127.0.0.1:%d", proxy->ports[1]);
    perf_aws *aws = open_at(url, "", "");
    open_store(&f, aws, "records");
    close_store(&f);
    f.tier.timeout_ms = 500;
    cr_assert_eq(perf__store_open(&f.tier, &f.host, &f.store), PERF_OK);
    cr_assert_eq(put(&f, 80, "before", 6), PERF_OK, "%s", perf_last_error());
    cr_assert(test_toxic_enable(proxy, false), "%s", test_server_why());
    int64_t from = ms_now();
    int rc = get(&f, 80, NULL);
    cr_assert(rc == PERF_EUNAVAILABLE || rc == PERF_EIO || rc == PERF_ETIMEDOUT, "%d: %s", rc,
              perf_last_error());
    cr_assert_lt(ms_now() - from, 1000);
    cr_assert(test_toxic_enable(proxy, true));
    cr_assert(test_toxic_add(proxy, "still", "timeout", true, "\"timeout\": 0"));
    from = ms_now();
    rc = put(&f, 80, "meanwhile", 9);
    cr_assert(rc == PERF_ETIMEDOUT || rc == PERF_EREJECTED, "%d: %s", rc, perf_last_error());
    cr_assert_lt(ms_now() - from, 1000);
    cr_assert(test_toxic_remove(proxy, "still"));
    from = ms_now();
    while ((rc = put(&f, 80, "after", 5)) && ms_now() - from < 20000)
        poll(NULL, 0, 20);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert(has(&f, 80, "after", 5), "%s", perf_last_error());
    close_store(&f);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(proxy);
}

/* -------------------------------------------------------------------- cache */

static perf_cache *open_cache(perf_aws *aws, const char *location)
{
    perf_cache_options o = PERF_CACHE_OPTIONS_INIT;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    perf_cache *cache = NULL;
    tier.backend = "dynamodb";
    tier.location = location;
    tier.store_ctx = aws;
    tier.timeout_ms = 10000;
    o.tiers = &tier;
    o.tier_count = 1;
    cr_assert_eq(perf_cache_open(&o, &cache), PERF_OK, "%s", perf_last_error());
    return cache;
}

static int copy_of(perf_cache *cache, const char *user, const char *key, char *text, size_t size)
{
    size_t len = 0;
    int rc = perf_cache_get_copy(cache, "pages", user, key, strlen(key), text, size - 1, &len);
    text[rc ? 0 : len] = 0;
    return rc;
}

static void end_to_end(perf_aws *aws)
{
    char text[64];
    perf_cache *cache = open_cache(aws, "records?prefix=cache");
    cr_assert_eq(perf_cache_set(cache, "pages", "ann", "k", 1, "hers", 4, 60000), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_eq(perf_cache_set(cache, "pages", "bob", "k", 1, "his", 3, 60000), PERF_OK);
    perf_cache *other = open_cache(aws, "records?prefix=cache");
    cr_assert_eq(copy_of(other, "ann", "k", text, sizeof text), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(text, "hers");
    cr_assert_eq(perf_cache_invalidate_user(cache, "ann"), PERF_OK, "%s", perf_last_error());
    perf_cache_close(other);
    other = open_cache(aws, "records?prefix=cache");
    cr_assert_eq(copy_of(other, "ann", "k", text, sizeof text), PERF_MISS, "the mark is there");
    cr_assert_eq(copy_of(other, "bob", "k", text, sizeof text), PERF_OK);

    /* what is damaged is a miss that is counted */
    must(aws, "UpdateItem",
         "{\"TableName\":\"records\",\"Key\":{\"pk\":{\"S\":\"cache|pages|bob|k\"},\"sk\":{\"S\":"
         "\"0\"}},\"UpdateExpression\":\"SET #r = :r\",\"ExpressionAttributeNames\":{\"#r\":"
         "\"record\"},\"ExpressionAttributeValues\":{\":r\":{\"B\":\"AAAA\"}}}",
         NULL, 0);
    perf_cache_close(other);
    other = open_cache(aws, "records?prefix=cache");
    cr_assert_eq(copy_of(other, "bob", "k", text, sizeof text), PERF_MISS);
    perf_tier_stats stats = PERF_TIER_STATS_INIT;
    cr_assert_eq(perf_cache_get_tier_stats(other, 0, &stats), PERF_OK);
    cr_assert_str_eq(stats.backend, "dynamodb");
    cr_assert_eq(stats.damaged, 1);
    cr_assert_gt(stats.read_units_milli, 0);
    cr_assert_gt(stats.records, 0);
    cr_assert_eq(perf_cache_get_tier_stats(cache, 0, &stats), PERF_OK);
    cr_assert_gt(stats.write_units_milli, 0);
    cr_assert_eq(perf_cache_close(other), PERF_OK);
    cr_assert_eq(perf_cache_close(cache), PERF_OK);
}

/* Two processes on one table: each reads what the other wrote, and only one has a lease. */
static __attribute__((unused)) void processes(const char *url)
{
    int to_child[2], to_parent[2];
    char c;
    cr_assert(!pipe(to_child) && !pipe(to_parent));
    pid_t pid = fork();
    if (pid == 0) {
        struct fixture f;
        struct test_key key;
        uint64_t token;
        char location[160];
        snprintf(location, sizeof location, "records?region=us-east-1&endpoint=%s", url);
        memset(&f, 0, sizeof f);
        f.tier = (perf_tier_options)PERF_TIER_OPTIONS_INIT;
        f.tier.backend = "dynamodb";
        f.tier.location = location;
        f.tier.timeout_ms = 15000;
        int bad = perf__host_take(NULL, &f.host) || perf__store_open(&f.tier, &f.host, &f.store);
        perf_store_key at = test_key(&key, 90);
        bad = bad || put(&f, 91, "child", 5) || perf__store_lease(f.store, &at, 600000, &token);
        bad = bad || write(to_parent[1], "x", 1) != 1 || read(to_child[0], &c, 1) != 1;
        bad = bad || !has(&f, 92, "parent", 6);
        perf_store_op op = leased(&key, 90, "by the child", token);
        bad = bad || perf__store_apply(f.store, &op, 1);
        if (!bad)
            perf__store_close(f.store);
        _exit(bad);
    }
    struct fixture f;
    struct test_key key;
    uint64_t token;
    perf_aws *aws = open_at(url, "", "");
    open_store(&f, aws, "records");
    f.th.realtime_ms = (int64_t)time(NULL) * 1000;
    cr_assert_eq(read(to_parent[0], &c, 1), 1, "the child came to its end");
    cr_assert(has(&f, 91, "child", 5));
    perf_store_key at = test_key(&key, 90);
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &token), PERF_EBUSY, "%s",
                 perf_last_error());
    cr_assert_eq(put(&f, 92, "parent", 6), PERF_OK);
    cr_assert_eq(write(to_child[1], "x", 1), 1);
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    cr_assert(has(&f, 90, "by the child", 12));
    cr_assert_eq(perf__store_lease(f.store, &at, 1000, &token), PERF_OK);
    close_store(&f);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    for (int i = 0; i < 2; i++)
        close(to_child[i]), close(to_parent[i]);
}

/* Figures, for whoever reads the log. */
static void measure(perf_aws *aws)
{
    enum { COUNT = 100 };
    struct fixture f;
    static struct test_key own_keys[COUNT];
    static char data[1000];
    perf_store_op ops[COUNT];
    perf_store_key keys[COUNT];
    perf_store_reply replies[COUNT], *pointers[COUNT];
    open_store(&f, aws, "records?prefix=figures");
    for (uint64_t i = 0; i < COUNT; i++) {
        ops[i] = test_set(&own_keys[i], 5000 + i, data, sizeof data, 0);
        keys[i] = ops[i].key;
        replies[i] = (perf_store_reply){.allocator = &f.host.allocator};
        pointers[i] = &replies[i];
    }
    for (int pass = 0; pass < 3; pass++) {
        perf_store_usage before = usage_of(&f);
        int64_t from = ms_now();
        cr_assert_eq(perf__store_apply(f.store, ops, COUNT), PERF_OK);
        int64_t middle = ms_now();
        cr_assert_eq(perf__store_get_many(f.store, keys, COUNT, pointers), PERF_OK);
        int64_t end = ms_now();
        perf_store_usage after = usage_of(&f);
        fprintf(stderr,
                "100 records of 1000 bytes: written in %d ms for %.1f units, read in %d ms for "
                "%.1f units\n",
                (int)(middle - from),
                (double)(after.write_units_milli - before.write_units_milli) / 1000,
                (int)(end - middle),
                (double)(after.read_units_milli - before.read_units_milli) / 1000);
        cr_assert_geq(after.read_units_milli - before.read_units_milli, COUNT * 1000);
    }
    for (int i = 0; i < COUNT; i++) {
        cr_assert(replies[i].found);
        perf__reply_free(&replies[i]);
    }
    close_store(&f);
}

Test(store_dynamodb, local, .timeout = 400)
{
    struct test_server *server = test_server_dynamodb();
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    perf_aws *aws = open_at(server->url, "", "");
    make_table(aws, "conformance");
    make_table(aws, "records");
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    /* How many connections a client keeps depends on the load of the machine, so it is counted
     * without one; what a process opens once has been. */
    struct test_leaks leaks = test_leaks_begin();
    aws = open_at(server->url, "", "");
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.backend = "dynamodb";
    tier.location = "conformance";
    tier.store_ctx = aws;
    tier.timeout_ms = 15000;
    store_conformance(&tier);
    leases_under_threads(aws);
    tier.location = "conformance?prefix=other.one&consistent=0&compress=0";
    store_conformance(&tier);
    missing_table(aws);
    time_is_over(aws);
    many_marks(aws);
    leases(aws);
    foreign_items(aws);
    keys_of_any_kind(aws);
    sizes(aws, PERF_WITH_ZSTD);
    sizes(aws, false);
    never_a_mixture(aws);
    no_memory(aws);
    end_to_end(aws);
    measure(aws);
    throttled(server);
    left_out(server, aws);
    cut_off(server);
#ifndef TEST_WITHOUT_CRITERION /* ThreadSanitizer ends children that start threads */
    processes(server->url);
#endif
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_leaks_end(&leaks);
    test_server_stop(server);
}

Test(store_dynamodb, moto, .timeout = 240)
{
    struct test_server *server = test_server_moto();
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    perf_aws *aws = open_at(server->url, server->access_key, server->secret_key);
    make_table(aws, "conformance");
    make_table(aws, "records");
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.backend = "dynamodb";
    tier.location = "conformance";
    tier.store_ctx = aws;
    tier.timeout_ms = 30000;
    store_conformance(&tier);
    leases(aws);
    keys_of_any_kind(aws);
    end_to_end(aws);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(server);
}
