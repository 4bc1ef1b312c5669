/* SPDX-License-Identifier: MIT */
/*
 * macros_test.c - PERF_CACHED, PERF_AUTO, PERF_BORROW and PERF_TASK, through a real cache, a real
 * pool and a real executor.
 *
 * The functions under test count how often their bodies run, so that a test
 * can tell a hit from a run.
 */
#include <libperf/perf.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache_fixture.h"
#include "pool_fixture.h"

static _Atomic int runs;

static void begin(struct fixture *f)
{
    fixture_open(f, NULL);
    perf_cache_set_default(f->cache);
    runs = 0;
}

static void end(struct fixture *f)
{
    perf_cache_set_default(NULL);
    fixture_close(f);
}

/* ------------------------------------------------------------ the examples */

struct course {
    uint64_t id;
    char lang; /* padding follows */
    double price;
};

PERF_CACHED(get_course, struct course, "courses", 300000, (uint64_t, id), (const char *, lang))
{
    runs++;
    if (id == 0)
        return PERF_MISS;
    if (id == 1)
        return PERF_EIO;
    out->id = id;
    out->lang = lang ? lang[0] : '0';
    return PERF_OK;
}

Test(macros, a_body_runs_once_for_the_same_arguments)
{
    struct fixture f;
    struct course c;
    begin(&f);
    for (int i = 0; i < 3; i++) {
        memset(&c, 0xee, sizeof c);
        cr_assert_eq(get_course(42, "en", &c), PERF_OK);
        cr_assert_eq(c.id, 42);
        cr_assert_eq(c.lang, 'e');
    }
    cr_assert_eq(runs, 1);
    cr_assert_eq(get_course(43, "en", &c), PERF_OK);
    cr_assert_eq(get_course(42, "de", &c), PERF_OK);
    cr_assert_eq(c.lang, 'd');
    cr_assert_eq(runs, 3);
    end(&f);
}

Test(macros, the_whole_result_is_defined_with_its_padding)
{
    struct fixture f;
    struct course a, b;
    begin(&f);
    memset(&a, 0x11, sizeof a);
    memset(&b, 0x22, sizeof b);
    get_course(42, "en", &a);
    get_course(42, "en", &b);
    cr_assert_arr_eq((char *)&a, (char *)&b, sizeof a);
    cr_assert(a.price >= 0 && a.price <= 0); /* the body did not set it */
    perf_cache_set_default(NULL);
    memset(&b, 0x33, sizeof b);
    get_course(42, "en", &b);
    cr_assert_arr_eq((char *)&a, (char *)&b, sizeof a);
    end(&f);
}

Test(macros, what_the_body_returns_reaches_the_caller_and_failures_are_not_kept)
{
    struct fixture f;
    struct course c;
    begin(&f);
    cr_assert_eq(get_course(0, "en", &c), PERF_MISS);
    cr_assert_eq(get_course(0, "en", &c), PERF_MISS);
    cr_assert_eq(get_course(1, "en", &c), PERF_EIO);
    cr_assert_eq(get_course(1, "en", &c), PERF_EIO);
    cr_assert_eq(runs, 4);
    perf_namespace_options policy = PERF_NAMESPACE_OPTIONS_INIT;
    policy.negative_ttl_ms = policy.error_ttl_ms = 1000;
    cr_assert_eq(perf_cache_configure_namespace(f.cache, "courses", &policy), PERF_OK);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(get_course(0, "en", &c), PERF_MISS);
        cr_assert_eq(get_course(1, "en", &c), PERF_EIO);
    }
    cr_assert_eq(runs, 6);
    end(&f);
}

Test(macros, results_die_at_their_ttl)
{
    struct fixture f;
    struct course c;
    begin(&f);
    get_course(42, "en", &c);
    test_host_advance(&f.th, 299999);
    get_course(42, "en", &c);
    cr_assert_eq(runs, 1);
    test_host_advance(&f.th, 2);
    get_course(42, "en", &c);
    cr_assert_eq(runs, 2);
    end(&f);
}

Test(macros, without_a_cache_the_body_runs)
{
    struct course c;
    runs = 0;
    perf_cache_set_default(NULL);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(get_course(42, "en", &c), PERF_OK);
    cr_assert_eq(get_course(0, "en", &c), PERF_MISS);
    cr_assert_eq(runs, 4);
    cr_assert_eq(PERF_FORGET(get_course)(42, "en"), PERF_MISS);
}

Test(macros, in_a_forked_child_the_body_runs)
{
    struct fixture f;
    struct course c;
    begin(&f);
    get_course(42, "en", &c);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        int rc = get_course(42, "en", &c);
        _exit(rc == PERF_OK && c.id == 42 && runs == 2 ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    end(&f);
}

Test(macros, one_result_and_all_results_can_be_forgotten)
{
    struct fixture f;
    struct course c;
    begin(&f);
    get_course(42, "en", &c);
    get_course(43, "en", &c);
    cr_assert_eq(PERF_FORGET(get_course)(42, "en"), PERF_OK);
    cr_assert_eq(PERF_FORGET(get_course)(42, "en"), PERF_MISS);
    get_course(42, "en", &c);
    get_course(43, "en", &c);
    cr_assert_eq(runs, 3);
    cr_assert_eq(perf_cache_invalidate_pattern(f.cache, "courses", "get_course:*"), PERF_OK);
    get_course(42, "en", &c);
    get_course(43, "en", &c);
    cr_assert_eq(runs, 5);
    end(&f);
}

Test(macros, results_survive_a_restart)
{
    struct course c;
    char *path = test_temp_file("cache.db");
    runs = 0;
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        fixture_open(&f, path);
        perf_cache_set_default(f.cache);
        memset(&c, 0, sizeof c);
        cr_assert_eq(get_course(42, "en", &c), PERF_OK);
        cr_assert_eq(c.id, 42);
        end(&f);
    }
    cr_assert_eq(runs, 1);
    test_remove_dir_of(path);
}

/* ------------------------------------------------------------------- keys */

enum color { RED, GREEN };
enum signed_color { BELOW = -1, ABOVE = 1 };

/* One echo for each type: the result is what the body saw. */
#define ECHO(suffix, type)                                                           \
    static PERF_CACHED(echo_##suffix, type, "echo", PERF_TTL_FOREVER, (type, value)) \
    {                                                                                \
        runs++;                                                                      \
        *out = value;                                                                \
        return PERF_OK;                                                              \
    }
ECHO(bool, bool)
ECHO(char, char)
ECHO(schar, signed char)
ECHO(uchar, unsigned char)
ECHO(short, short)
ECHO(ushort, unsigned short)
ECHO(int, int)
ECHO(uint, unsigned int)
ECHO(long, long)
ECHO(ulong, unsigned long)
ECHO(llong, long long)
ECHO(ullong, unsigned long long)
ECHO(size, size_t)
ECHO(color, enum color)
ECHO(signed_color, enum signed_color)
ECHO(float, float)
ECHO(double, double)

/* Each value comes out as it went in, from the body and from the cache, and all are keys of
 * their own. Compared as bytes, for the sake of NaN and -0. */
#define ROUND_TRIP(suffix, type, ...)                                                         \
    do {                                                                                      \
        const type values[] = {__VA_ARGS__};                                                  \
        const int count = (int)(sizeof values / sizeof *values), before = runs;               \
        for (int i = 0; i < 2 * count; i++) {                                                 \
            type out;                                                                         \
            memset(&out, 0x5a, sizeof out);                                                   \
            cr_assert_eq(echo_##suffix(values[i % count], &out), PERF_OK);                    \
            cr_assert(!memcmp(&out, &values[i % count], sizeof out), "%s, value %d", #type,   \
                      i % count);                                                             \
        }                                                                                     \
        cr_assert_eq(runs - before, count, "%s: %d runs for %d values", #type, runs - before, \
                     count);                                                                  \
    } while (0)

Test(macros, every_type_of_number_is_a_key)
{
    struct fixture f;
    begin(&f);
    ROUND_TRIP(bool, bool, false, true);
    ROUND_TRIP(char, char, 0, 'a', CHAR_MIN == 0 ? 1 : CHAR_MIN, CHAR_MAX);
    ROUND_TRIP(schar, signed char, 0, 1, -1, SCHAR_MIN, SCHAR_MAX);
    ROUND_TRIP(uchar, unsigned char, 0, 1, UCHAR_MAX);
    ROUND_TRIP(short, short, 0, 1, -1, SHRT_MIN, SHRT_MAX);
    ROUND_TRIP(ushort, unsigned short, 0, 1, USHRT_MAX);
    ROUND_TRIP(int, int, 0, 1, -1, INT_MIN, INT_MAX);
    ROUND_TRIP(uint, unsigned int, 0, 1, UINT_MAX);
    ROUND_TRIP(long, long, 0, 1, -1, LONG_MIN, LONG_MAX);
    ROUND_TRIP(ulong, unsigned long, 0, 1, ULONG_MAX);
    ROUND_TRIP(llong, long long, 0, 1, -1, LLONG_MIN, LLONG_MAX);
    ROUND_TRIP(ullong, unsigned long long, 0, 1, ULLONG_MAX);
    ROUND_TRIP(size, size_t, 0, 1, SIZE_MAX);
    ROUND_TRIP(color, enum color, RED, GREEN);
    ROUND_TRIP(signed_color, enum signed_color, BELOW, ABOVE);
    ROUND_TRIP(float, float, 0.0f, -0.0f, 1.5f, -1.5f, INFINITY, NAN);
    ROUND_TRIP(double, double, 0.0, -0.0, 1.5, -1.5, HUGE_VAL, (double)NAN, 0.1);
    end(&f);
}

struct text {
    char seen[64];
    int is_null;
};

PERF_CACHED(two_texts, struct text, "texts", PERF_TTL_FOREVER, (const char *, a), (const char *, b))
{
    runs++;
    snprintf(out->seen, sizeof out->seen, "%s|%s", a ? a : "", b ? b : "");
    out->is_null = (a == NULL) + 2 * (b == NULL);
    return PERF_OK;
}

Test(macros, strings_are_keys_by_content_and_null_is_not_empty)
{
    static const struct {
        const char *a, *b, *seen;
        int is_null;
    } cases[] = {{"ab", "c", "ab|c", 0}, {"a", "bc", "a|bc", 0},    {"abc", "", "abc|", 0},
                 {"", "abc", "|abc", 0}, {NULL, "", "|", 1},        {"", NULL, "|", 2},
                 {NULL, NULL, "|", 3},   {"", "", "|", 0},          {"n", "", "n|", 0},
                 {"", "n", "|n", 0},     {"s\001", "", "s\001|", 0}};
    const int count = (int)(sizeof cases / sizeof *cases);
    struct fixture f;
    begin(&f);
    for (int i = 0; i < 2 * count; i++) {
        char a[16], b[16]; /* content counts, not the address */
        struct text t;
        snprintf(a, sizeof a, "%s", cases[i % count].a ? cases[i % count].a : "");
        snprintf(b, sizeof b, "%s", cases[i % count].b ? cases[i % count].b : "");
        cr_assert_eq(two_texts(cases[i % count].a ? a : NULL, cases[i % count].b ? b : NULL, &t),
                     PERF_OK);
        cr_assert_str_eq(t.seen, cases[i % count].seen);
        cr_assert_eq(t.is_null, cases[i % count].is_null);
    }
    cr_assert_eq(runs, count);
    end(&f);
}

PERF_CACHED(sum_bytes, unsigned, "bytes", PERF_TTL_FOREVER, (perf_bytes, data), (bool, twice))
{
    const unsigned char *at = data.data;
    runs++;
    for (size_t i = 0; i < data.len; i++)
        *out += (twice ? 2u : 1u) * at[i];
    return PERF_OK;
}

static perf_bytes bytes_of(const void *data, size_t len)
{
    return (perf_bytes){data, len};
}

Test(macros, bytes_may_hold_anything)
{
    struct fixture f;
    unsigned sum;
    begin(&f);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(sum_bytes(bytes_of("\0\1\2", 3), false, &sum), PERF_OK);
        cr_assert_eq(sum, 3);
        cr_assert_eq(sum_bytes(bytes_of("\0\1\2", 2), false, &sum), PERF_OK);
        cr_assert_eq(sum, 1);
        cr_assert_eq(sum_bytes(bytes_of("\0\1\2", 3), true, &sum), PERF_OK);
        cr_assert_eq(sum, 6);
        cr_assert_eq(sum_bytes(bytes_of(NULL, 0), true, &sum), PERF_OK);
        cr_assert_eq(sum_bytes(bytes_of("x", 0), true, &sum), PERF_OK);
        cr_assert_eq(sum, 0);
    }
    cr_assert_eq(runs, 4);
    end(&f);
}

Test(macros, keys_of_all_lengths_work_and_too_long_ones_just_run)
{
    struct fixture f;
    unsigned char data[33000];
    unsigned expected = 0, sum;
    /* name, ':', 8 bytes, then 'b' and a length, then 'u' and 8 bytes */
    const size_t around = sizeof "sum_bytes" + 8 + 5 + 9;
    const size_t longest = 32767 - around;
    static const size_t near[] = {1, 200, 256, 257, 1000, 5000, 20000};
    begin(&f);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 7);
    for (size_t i = 0; i < sizeof near / sizeof *near + 20; i++) {
        size_t len = i < sizeof near / sizeof *near ? near[i] : 240 - around + i * 2;
        int before = runs;
        cr_assert_eq(perf_cache_clear(f.cache), PERF_OK);
        expected = 0;
        for (size_t j = 0; j < len; j++)
            expected += data[j];
        for (int twice = 0; twice < 2; twice++) {
            cr_assert_eq(sum_bytes(bytes_of(data, len), false, &sum), PERF_OK);
            cr_assert_eq(sum, expected, "%zu bytes", len);
        }
        cr_assert_eq(runs - before, 1, "%zu bytes", len);
    }
    for (size_t len = longest - 10; len <= longest + 10; len++) {
        int before = runs;
        cr_assert_eq(sum_bytes(bytes_of(data, len), false, &sum), PERF_OK);
        cr_assert_eq(sum_bytes(bytes_of(data, len), false, &sum), PERF_OK);
        cr_assert_eq(runs - before, len <= longest ? 1 : 2, "%zu bytes", len);
    }
    cr_assert_eq(sum_bytes(bytes_of(data, sizeof data), false, &sum), PERF_OK);
    cr_assert_eq(PERF_FORGET(sum_bytes)(bytes_of(data, sizeof data), false), PERF_MISS);
    end(&f);
}

static PERF_CACHED(no_arguments, int, "few", PERF_TTL_DEFAULT)
{
    *out = ++runs;
    return PERF_OK;
}

static PERF_CACHED(eight_arguments, double, "many", 1000, (const char *const, a), (const int, b),
                   (enum color, c), (bool, d), (char *, e), (float, g), (perf_bytes, h),
                   (long long, i))
{
    runs++;
    *out = a[0] + b + (int)c + d + e[0] + (double)g + (double)h.len + (double)i;
    e[0] = 'X'; /* into a copy: neither the caller's string nor the key changes */
    return PERF_OK;
}

Test(macros, none_to_eight_arguments)
{
    struct fixture f;
    int n;
    double x, y;
    char e[] = "e";
    begin(&f);
    cr_assert_eq(no_arguments(&n), PERF_OK);
    cr_assert_eq(no_arguments(&n), PERF_OK);
    cr_assert_eq(n, 1);
    cr_assert_eq(PERF_FORGET(no_arguments)(), PERF_OK);
    cr_assert_eq(no_arguments(&n), PERF_OK);
    cr_assert_eq(n, 2);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(eight_arguments("a", 1, GREEN, true, e, 0.5f, bytes_of("hh", 2), -7, &x),
                     PERF_OK);
        cr_assert_str_eq(e, "e");
    }
    cr_assert_eq(runs, 3);
    cr_assert(x > 196.49 && x < 196.51);
    cr_assert_eq(eight_arguments("a", 1, GREEN, true, e, 0.5f, bytes_of("hh", 2), -8, &y), PERF_OK);
    cr_assert_eq(runs, 4);
    cr_assert(x > y);
    end(&f);
}

/* ------------------------------------------------------ the other variants */

PERF_CACHED_SCHEMA(1, old_layout, int, "layouts", PERF_TTL_FOREVER, (int, x))
{
    *out = ++runs + x;
    return PERF_OK;
}

static int schema_now;

PERF_CACHED_SCHEMA((unsigned)schema_now, layout, int, "layouts", PERF_TTL_FOREVER, (int, x))
{
    *out = ++runs + x;
    return PERF_OK;
}

Test(macros, another_schema_number_and_another_function_are_other_keys)
{
    struct fixture f;
    int n;
    begin(&f);
    old_layout(0, &n);
    old_layout(0, &n);
    cr_assert_eq(runs, 1);
    layout(0, &n);
    cr_assert_eq(runs, 2);
    schema_now = 1;
    layout(0, &n);
    cr_assert_eq(runs, 3);
    schema_now = 0;
    layout(0, &n);
    cr_assert_eq(runs, 3);
    end(&f);
}

static perf_cache *mine;

PERF_CACHED_IN(mine, in_mine, int, "in", PERF_TTL_FOREVER, (int, x))
{
    *out = ++runs + x;
    return PERF_OK;
}

Test(macros, a_function_may_name_its_cache)
{
    struct fixture f;
    int n;
    begin(&f);
    perf_cache_set_default(NULL);
    mine = f.cache;
    in_mine(1, &n);
    in_mine(1, &n);
    cr_assert_eq(runs, 1);
    mine = NULL;
    in_mine(1, &n);
    cr_assert_eq(runs, 2);
    end(&f);
}

static PERF_CACHED_FULL(perf_cache_default(), login, 0, get_mail, int, space, page * 1000,
                        (const char *, space), (const char *, login), (int, page))
{
    *out = ++runs + page + (space == login);
    return PERF_OK;
}

Test(macros, arguments_may_make_namespace_user_and_ttl)
{
    struct fixture f;
    int n;
    begin(&f);
    get_mail("inbox", "anna", 1, &n);
    get_mail("inbox", "ben", 10, &n);
    get_mail("sent", "ben", 10, &n);
    get_mail("sent", NULL, 10, &n);
    cr_assert_eq(runs, 4);
    cr_assert_eq(stats_of(f.cache, "inbox").loads, 2);
    cr_assert_eq(perf_cache_invalidate_user(f.cache, "anna"), PERF_OK);
    get_mail("inbox", "ben", 10, &n);
    cr_assert_eq(runs, 4);
    get_mail("inbox", "anna", 1, &n);
    cr_assert_eq(runs, 5);
    test_host_advance(&f.th, 5000);
    get_mail("inbox", "ben", 10, &n);
    cr_assert_eq(runs, 5);
    get_mail("inbox", "anna", 1, &n);
    cr_assert_eq(runs, 6);
    cr_assert_eq(PERF_FORGET(get_mail)("inbox", "ben", 10), PERF_OK);
    end(&f);
}

PERF_CACHED(fib, uint64_t, "fib", PERF_TTL_FOREVER, (int, n))
{
    uint64_t a = 0, b = 1;
    int rc = PERF_OK;
    runs++;
    if (n >= 2 && !(rc = fib(n - 1, &a)))
        rc = fib(n - 2, &b);
    *out = n < 2 ? (uint64_t)n : a + b;
    return rc;
}

Test(macros, a_body_may_call_itself)
{
    struct fixture f;
    uint64_t n;
    begin(&f);
    cr_assert_eq(fib(80, &n), PERF_OK);
    cr_assert_eq(n, 23416728348467685u);
    cr_assert_eq(runs, 81);
    end(&f);
}

PERF_CACHED(ask_itself, int, "loop", PERF_TTL_FOREVER, (int, x))
{
    return ask_itself(x, out);
}

Test(macros, a_body_that_waits_for_itself_is_told)
{
    struct fixture f;
    int n;
    begin(&f);
    cr_assert_eq(ask_itself(1, &n), PERF_EDEADLK);
    end(&f);
}

/* ---------------------------------------------------------- other threads */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    int entered, may_leave;
    pthread_t last;
    char seen[600];
} gate = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static void gate_wait_for(const int *flag, int least)
{
    pthread_mutex_lock(&gate.mutex);
    while (*flag < least)
        pthread_cond_wait(&gate.cond, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);
}

static void gate_raise(int *flag)
{
    pthread_mutex_lock(&gate.mutex);
    ++*flag;
    pthread_cond_broadcast(&gate.cond);
    pthread_mutex_unlock(&gate.mutex);
}

PERF_CACHED(gated, int, "gated", 1000, (const char *, text), (perf_bytes, data))
{
    int run = ++runs;
    pthread_mutex_lock(&gate.mutex);
    gate.last = pthread_self();
    snprintf(gate.seen, sizeof gate.seen, "%s|%.*s", text, (int)data.len, (const char *)data.data);
    pthread_mutex_unlock(&gate.mutex);
    gate_raise(&gate.entered);
    gate_wait_for(&gate.may_leave, run);
    *out = run;
    return PERF_OK;
}

static void *call_gated(void *arg)
{
    int n = 0;
    int rc = gated("text", bytes_of("data", 4), &n);
    (void)arg;
    return (void *)(intptr_t)(rc == PERF_OK ? n : rc);
}

Test(macros, one_run_for_all_who_wait)
{
    struct fixture f;
    pthread_t threads[8];
    begin(&f);
    gate.entered = gate.may_leave = 0;
    for (int i = 0; i < 8; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, call_gated, NULL), 0);
    gate_wait_for(&gate.entered, 1);
    gate_raise(&gate.may_leave);
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        cr_assert_eq((intptr_t)result, 1);
    }
    cr_assert_eq(runs, 1);
    end(&f);
}

Test(macros, a_refresh_in_the_background_has_arguments_of_its_own)
{
    struct fixture f;
    perf_namespace_options policy = PERF_NAMESPACE_OPTIONS_INIT;
    char text[512], data[] = "bytes", expected[600];
    int n;
    begin(&f);
    gate.entered = 0;
    gate.may_leave = 1;
    memset(text, 'l', sizeof text - 1); /* long: the key does not fit the inline buffer */
    text[sizeof text - 1] = '\0';
    snprintf(expected, sizeof expected, "%s|%s", text, data);
    policy.stale_ms = 60000;
    cr_assert_eq(perf_cache_configure_namespace(f.cache, "gated", &policy), PERF_OK);

    cr_assert_eq(gated(text, bytes_of(data, 5), &n), PERF_OK);
    cr_assert_eq(n, 1);
    cr_assert(pthread_equal(gate.last, pthread_self()));
    test_host_advance(&f.th, 2000);
    cr_assert_eq(gated(text, bytes_of(data, 5), &n), PERF_OK);
    cr_assert_eq(n, 1);                 /* stale, at once: the refresh waits at the gate */
    memset(text, 'x', sizeof text - 1); /* the caller goes on with its buffers */
    memset(data, 'y', 5);
    gate_wait_for(&gate.entered, 2);
    pthread_mutex_lock(&gate.mutex);
    cr_assert_str_eq(gate.seen, expected);
    cr_assert_not(pthread_equal(gate.last, pthread_self()));
    pthread_mutex_unlock(&gate.mutex);
    gate_raise(&gate.may_leave);
    end(&f);
}

/* ----------------------------------------------------------------- scopes */

static int leave_by_return(perf_cache *cache)
{
    PERF_AUTO(perf_value) v = NULL;
    return perf_cache_get(cache, "ns", NULL, "k", 1, &v);
}

Test(macros, auto_handles_let_go_however_the_scope_ends)
{
    struct fixture f;
    int seen = 0;
    fixture_open(&f, NULL);
    cr_assert_eq(set(f.cache, "k", "value", PERF_TTL_FOREVER), PERF_OK);
    for (int i = 0; i < 4; i++) {
        PERF_AUTO(perf_value) v = NULL;
        if (i == 0)
            continue; /* NULL is let go too */
        cr_assert_eq(perf_cache_get(f.cache, "ns", NULL, "k", 1, &v), PERF_OK);
        seen++;
        if (i == 1)
            continue;
        if (i == 2)
            goto next;
        break;
    next:;
    }
    cr_assert_eq(seen, 3);
    cr_assert_eq(leave_by_return(f.cache), PERF_OK);
    {
        PERF_AUTO(perf_cache_iter) iter = NULL;
        perf_cache_entry entry = PERF_CACHE_ENTRY_INIT;
        cr_assert_eq(perf_cache_iter_open(f.cache, NULL, &iter), PERF_OK);
        cr_assert_eq(perf_cache_iter_next(iter, &entry), PERF_OK);
    }
    fixture_close(&f); /* fails if a value, held or not, is not freed by now */

    struct test_host th;
    {
        perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
        PERF_AUTO(perf_cache) cache = NULL;
        options.host = test_host_init(&th);
        cr_assert_eq(perf_cache_open(&options, &cache), PERF_OK);
        cr_assert_gt(th.live, 0);
    }
    cr_assert_eq(th.live, 0);
}

/* ------------------------------------------------------------- connections */

/* The ways out of a PERF_BORROW, each of them with a connection in hand. */
enum way { BY_END, BY_RETURN, BY_BREAK, BY_CONTINUE, BY_GOTO, WAYS };

static int leave(struct backend *b, enum way way, bool broken)
{
    int passed = 0;
    for (int i = 0; i < 2; i++) {
        PERF_BORROW(b->pool, struct link *, link, 1000) {
            cr_assert_eq(backend_stats(b).in_use, 1);
            atomic_fetch_add(&link->users, 1);
            if (broken)
                PERF_BORROW_BROKEN(link);
            if (way == BY_RETURN)
                return 1;
            if (way == BY_BREAK)
                break;
            if (way == BY_CONTINUE)
                continue;
            if (way == BY_GOTO)
                goto out;
            passed += 10;
        } else {
            cr_assert(0, "%s", perf_last_error());
        }
        passed++; /* break and continue left the scope and not the loop */
    }
out:
    return passed;
}

Test(macros, a_borrowed_connection_goes_back_however_the_block_ends)
{
    static const int passes[WAYS] = {22, 1, 2, 2, 0}, borrowed[WAYS] = {2, 1, 2, 2, 1};
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    struct backend b;
    uint64_t lent = 0;
    backend_open(&b, &link_full, options, false);
    for (int way = 0; way < WAYS; way++) {
        cr_assert_eq(leave(&b, way, false), passes[way], "way %d", way);
        cr_assert_eq(backend_stats(&b).in_use, 0, "way %d", way);
        lent += (uint64_t)borrowed[way];
        cr_assert_eq(backend_stats(&b).acquires, lent, "way %d", way);
    }
    cr_assert_eq(atomic_load(&b.opened), 1);
    for (int way = 0; way < WAYS; way++) {
        uint64_t discarded = backend_stats(&b).closed_discarded;
        cr_assert_eq(leave(&b, way, true), passes[way], "way %d", way);
        cr_assert_eq(backend_stats(&b).in_use, 0, "way %d", way);
        cr_assert_eq(backend_stats(&b).closed_discarded - discarded, (uint64_t)borrowed[way],
                     "way %d", way);
    }
    backend_close(&b);
}

Test(macros, the_other_block_runs_when_no_connection_comes)
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    struct backend b;
    int status = 1;
    options.max_size = 1;
    backend_open(&b, &link_full, options, false);
    PERF_BORROW(b.pool, struct link *, held, -1) {
        cr_assert_eq(PERF_BORROW_STATUS(held), PERF_OK);
        for (int64_t timeout = 0; timeout < 20; timeout += 10) {
            int busy = 0;
            PERF_BORROW(b.pool, struct link *, link, timeout) {
                cr_assert(0, "max_size is 1");
            } else {
                busy++;
                cr_assert_eq(link, NULL);
                cr_assert_eq(PERF_BORROW_STATUS(link), PERF_ETIMEDOUT);
            }
            cr_assert_eq(busy, 1);
        }
        PERF_BORROW(b.pool, struct link *, link, 0)
            cr_assert(0, "max_size is 1"); /* without an else nothing happens */
        PERF_BORROW(b.pool, struct link *, link, -7)
            cr_assert(0, "no such time");
        else
            status = PERF_BORROW_STATUS(link);
        cr_assert_eq(status, PERF_EINVAL);
    }
    cr_assert_eq(backend_stats(&b).acquires, 1);
    cr_assert_eq(backend_stats(&b).timeouts, 3);
    backend_close(&b);
    PERF_BORROW(NULL, struct link *, link, 0)
        cr_assert(0, "there is no pool");
    else
        status = PERF_BORROW_STATUS(link) + 1;
    cr_assert_eq(status, PERF_EINVAL + 1);
}

Test(macros, borrowed_connections_nest_and_may_be_kept)
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    struct link *kept = NULL, *taken = NULL;
    struct backend b;
    int runs_of_both = 0;
    backend_open(&b, &link_full, options, false);
    PERF_BORROW(b.pool, struct link *, outer, 1000)
        PERF_BORROW_KEY(b.pool, "replica", struct link *, inner, 1000) {
            runs_of_both++;
            cr_assert_neq(outer, inner);
            cr_assert_str_eq(outer->key, "");
            cr_assert_str_eq(inner->key, "replica");
            cr_assert_eq(backend_stats(&b).in_use, 2);
            PERF_BORROW_BROKEN(inner); /* of the two, this one */
        }
    cr_assert_eq(runs_of_both, 1);
    cr_assert_eq(backend_stats(&b).in_use, 0);
    EVENTUALLY(backend_stats(&b).size == 1);
    PERF_BORROW(b.pool, struct link *, link, 1000) {
        PERF_BORROW_KEEP(link);
        kept = link;
    }
    cr_assert_eq(backend_stats(&b).in_use, 1);
    give(&b, kept);
    PERF_BORROW(b.pool, struct link *, link, 1000) {
        cr_assert_eq(perf_pool_detach(b.pool, link), PERF_OK);
        PERF_BORROW_KEEP(link);
        taken = link;
    }
    cr_assert_eq(backend_stats(&b).size, 0);
    link_close(&b, taken);
    backend_close(&b);
}

Test(macros, the_borrower_is_a_place_in_the_source)
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    perf_pool_holder holder = PERF_POOL_HOLDER_INIT;
    struct backend b;
    char here[300];
    backend_open(&b, &link_full, options, false);
    snprintf(here, sizeof here, "%s:%d", __FILE__, __LINE__ + 1);
    PERF_BORROW(b.pool, struct link *, link, 1000) {
        cr_assert_eq(perf_pool_get_holder(b.pool, 0, &holder), PERF_OK);
        cr_assert_str_eq(holder.who, here);
        cr_assert_eq(holder.conn, link);
    }
    cr_assert_eq(perf_pool_get_holder(b.pool, 0, &holder), PERF_MISS);
    backend_close(&b);
}

Test(macros, pools_and_requests_let_go_of_themselves)
{
    struct backend b;
    memset(&b, 0, sizeof b);
    {
        perf_pool_options options = PERF_POOL_OPTIONS_INIT;
        void *conn = NULL;
        PERF_AUTO(perf_pool) pool = NULL;
        options.vtable = &link_full;
        options.ctx = &b;
        options.max_size = 1;
        options.host = test_host_init(&b.th);
        b.th.host.clock = NULL;
        cr_assert_eq(perf_pool_open(&options, &pool), PERF_OK, "%s", perf_last_error());
        cr_assert_eq(perf_pool_acquire(pool, 1000, &conn), PERF_OK);
        {
            PERF_AUTO(perf_pool_request) request = NULL;
            PERF_AUTO(perf_pool_request) none = NULL;
            (void)none;
            cr_assert_eq(perf_pool_start(pool, NULL, NULL, -1, NULL, NULL, &request), PERF_OK);
            cr_assert_eq(perf_pool_request_take(request, &conn), PERF_MISS);
        }
        cr_assert_eq(perf_pool_release(pool, conn), PERF_OK);
    } /* close would refuse while a request is held */
    cr_assert_eq(atomic_load(&b.open_now), 0);
    cr_assert_eq(atomic_load(&b.th.live), 0);
}

/* ----------------------------------------------------------------- memory */

Test(macros, any_allocation_may_fail)
{
    struct fixture f;
    struct course c;
    begin(&f);
    for (int64_t at = 1;; at++) {
        cr_assert_lt(at, 1000);
        atomic_store(&f.th.failed, 0);
        atomic_store(&f.th.fail_at, at);
        memset(&c, 0, sizeof c);
        int rc = get_course(1000 + (uint64_t)at, "en", &c);
        bool failed = atomic_load(&f.th.failed) > 0;
        atomic_store(&f.th.fail_at, 0);
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "allocation %d: %s", (int)at,
                  perf_strerror(rc));
        cr_assert(rc != PERF_OK || c.id == 1000 + (uint64_t)at);
        cr_assert_eq(get_course(1000 + (uint64_t)at, "en", &c), PERF_OK);
        cr_assert_eq(c.id, 1000 + (uint64_t)at);
        if (!failed)
            break;
    }
    end(&f);
}

/* -------------------------------------------------------------------- tasks */

/* An executor of one thread, which a task holds until the gate opens. */
struct gate {
    perf_executor *executor;
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    bool open;
};

static PERF_TASK(hold, (struct gate *, gate))
{
    pthread_mutex_lock(&gate->mutex);
    while (!gate->open)
        pthread_cond_wait(&gate->opened, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
    return PERF_OK;
}

static void shut(struct gate *gate)
{
    perf_executor_options options = PERF_EXECUTOR_OPTIONS_INIT;
    *gate = (struct gate){.mutex = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER};
    options.min_threads = 1;
    cr_assert_eq(perf_executor_open(&options, &gate->executor), PERF_OK);
    cr_assert_eq(PERF_ASYNC(gate->executor, NULL, hold, gate), PERF_OK);
}

static void let(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->open = true;
    pthread_cond_signal(&gate->opened);
    pthread_mutex_unlock(&gate->mutex);
}

enum colour { BLUE = -7 };
struct part {
    char name[8];
    int64_t weight;
};

PERF_TASK(look, (const char *, text), (char *, chars), (const char *const, nothing),
          (perf_bytes, bytes), (struct part, part), (enum colour, colour), (double, number),
          (struct part *, out))
{
    cr_assert_str_eq(text, "text");
    cr_assert_null(nothing);
    cr_assert_eq(bytes.len, 5);
    cr_assert_eq(memcmp(bytes.data, "\0a\0b\0", 5), 0);
    cr_assert_str_eq(part.name, "part");
    cr_assert_eq(part.weight, INT64_MIN);
    cr_assert_eq(colour, BLUE);
    cr_assert_eq(number, 0.1);
    out->weight = chars[0];
    chars[0] = 'x'; /* its own copy */
    return perf_run_result(run, chars, strlen(chars));
}

Test(macros, a_task_has_copies_of_its_arguments)
{
    struct gate gate;
    char text[] = "text", chars[] = "chars", data[] = "\0a\0b";
    struct part part = {"part", INT64_MIN}, out = {"", 0};
    PERF_AUTO(perf_task) task = NULL;
    perf_bytes bytes = {data, sizeof data}, result;
    shut(&gate);
    cr_assert_eq(
        PERF_ASYNC(gate.executor, &task, look, text, chars, NULL, bytes, part, BLUE, 0.1, &out),
        PERF_OK);
    memset(text, '?', sizeof text - 1);
    memset(chars, '?', sizeof chars - 1);
    memset(data, '?', sizeof data);
    memset(&part, '?', sizeof part);
    let(&gate);
    cr_assert_eq(perf_task_wait(task, 10000, &result), PERF_OK);
    cr_assert_eq(result.len, 5);
    cr_assert_eq(memcmp(result.data, "xhars", 5), 0);
    cr_assert_eq(out.weight, 'c');
    cr_assert_str_eq(chars, "?????");
    cr_assert_eq(perf_executor_close(gate.executor, -1), PERF_OK);
}

static _Atomic int ticks;

static PERF_TASK(tick)
{
    ticks++;
    return perf_run_cancelled(run);
}

static PERF_TASK(twice, (int, value), (int *, out))
{
    *out = 2 * value;
    return value < 0 ? perf_run_fail(run, PERF_EINVAL, "value is negative") : PERF_OK;
}

static PERF_TASK(four_times, (int, value), (int *, out))
{
    int rc = twice(run, value, out); /* the body is a function like any other */
    return rc ? rc : twice(run, *out, out);
}

Test(macros, a_task_without_arguments_and_one_inside_another)
{
    perf_executor *executor;
    PERF_AUTO(perf_task) first = NULL;
    PERF_AUTO(perf_task) second = NULL;
    int out = 0, bad = 0;
    ticks = 0;
    cr_assert_eq(perf_executor_open(NULL, &executor), PERF_OK);
    cr_assert_eq(PERF_ASYNC(executor, NULL, tick), PERF_OK);
    cr_assert_eq(PERF_ASYNC(executor, NULL, tick), PERF_OK);
    cr_assert_eq(PERF_ASYNC(executor, &first, four_times, 10, &out), PERF_OK);
    cr_assert_eq(PERF_ASYNC(executor, &second, four_times, -1, &bad), PERF_OK);
    cr_assert_eq(perf_task_wait(first, 10000, NULL), PERF_OK);
    cr_assert_eq(out, 40);
    cr_assert_eq(perf_task_wait(second, 10000, NULL), PERF_EINVAL);
    cr_assert_str_eq(perf_task_error(second), "value is negative");
    cr_assert_eq(perf_executor_drain(executor, 10000), PERF_OK);
    cr_assert_eq(ticks, 2);
    cr_assert_eq(perf_executor_close(executor, -1), PERF_OK);
}

static void never(void *arg)
{
    (void)arg;
    cr_assert(false, "the options' free_arg was called");
}

Test(macros, a_task_takes_options)
{
    struct gate gate;
    perf_task_options options = PERF_TASK_OPTIONS_INIT, bad = PERF_TASK_OPTIONS_INIT;
    PERF_AUTO(perf_task_group) group = NULL;
    PERF_AUTO(perf_task) task = NULL;
    int out[3] = {0};
    shut(&gate);
    cr_assert_eq(perf_task_group_open(gate.executor, &group), PERF_OK);
    options.group = group;
    options.free_arg = never;
    for (int i = 0; i < 3; i++)
        cr_assert_eq(twice_submit(gate.executor, &options, i == 2 ? &task : NULL, i, &out[i]),
                     PERF_OK);
    cr_assert_eq(perf_task_cancel(task), PERF_OK); /* and its block is freed */
    let(&gate);
    cr_assert_eq(perf_task_group_wait(group, 10000), PERF_ECANCELED);
    cr_assert_eq(out[1], 2);
    cr_assert_eq(out[2], 0);
    bad.struct_size = 0;
    cr_assert_eq(twice_submit(gate.executor, &bad, NULL, 1, out), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "struct_size"));
    bad.struct_size = sizeof bad;
    bad.priority = 7;
    cr_assert_eq(twice_submit(gate.executor, &bad, NULL, 1, out), PERF_EINVAL);
    cr_assert_eq(twice_submit(NULL, NULL, NULL, 1, out), PERF_EINVAL);
    cr_assert_eq(perf_executor_close(gate.executor, -1), PERF_OK);
}

static PERF_TASK(weigh, (perf_bytes, a), (const char *, b), (perf_bytes, c))
{
    size_t sum = a.len + (b ? strlen(b) : 0) + c.len;
    return perf_run_result(run, &sum, sizeof sum);
}

Test(macros, what_a_task_copies_is_bounded)
{
    enum { MIB = 1 << 20 };
    perf_executor *executor;
    PERF_AUTO(perf_task) task = NULL;
    char *data = malloc(MIB + 1);
    perf_bytes none = {NULL, 0}, most = {data, MIB - 4}, huge = {data, SIZE_MAX}, result;
    size_t sum;
    memset(data, 'x', MIB + 1);
    cr_assert_eq(perf_executor_open(NULL, &executor), PERF_OK);
    cr_assert_eq(PERF_ASYNC(executor, &task, weigh, most, "abc", none), PERF_OK);
    cr_assert_eq(perf_task_wait(task, 10000, &result), PERF_OK);
    memcpy(&sum, result.data, sizeof sum);
    cr_assert_eq(sum, MIB - 1);
    cr_assert_eq(PERF_ASYNC(executor, NULL, weigh, most, "abcd", none), PERF_ETOOBIG);
    cr_assert_eq(PERF_ASYNC(executor, NULL, weigh, huge, NULL, none), PERF_ETOOBIG);
    cr_assert_eq(PERF_ASYNC(executor, NULL, weigh, huge, "abc", huge), PERF_ETOOBIG); /* no wrap */
    data[MIB] = 0;
    cr_assert_eq(PERF_ASYNC(executor, NULL, weigh, none, data, none), PERF_ETOOBIG);
    cr_assert_eq(perf_executor_close(executor, -1), PERF_OK);
    free(data);
}
