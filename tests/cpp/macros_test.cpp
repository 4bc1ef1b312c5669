// SPDX-License-Identifier: MIT
//
// macros_test.cpp - what macros.h does otherwise in C++: overloads instead of _Generic,
// enums with a type of their own, exceptions, namespaces. The rest is unit/macros_test.c.
//
#include <cmath>
#include <cstdint>
#include <cstring>
#include <libperf/perf.h>
#include <limits>
#include <stdexcept>
#include <string>

#include "check.hpp"

enum class shade : std::uint16_t { dark = 7, light = 60000 };
enum tone { low = -3, high = 3 };

struct picture {
    shade s;
    tone t;
    char name[16];
};

static int runs;

namespace gallery
{

PERF_CACHED(find_picture, picture, "pictures", 60000, (shade, s), (tone, t),
            (const char *const, name))
{
    runs++;
    out->s = s;
    out->t = t;
    if (!name)
        throw std::runtime_error("no name");
    std::strncpy(out->name, name, sizeof out->name - 1);
    return PERF_OK;
}

static PERF_CACHED(nothing, int, "nothing", PERF_TTL_FOREVER)
{
    *out = ++runs;
    return PERF_OK;
}

} // namespace gallery

#define ECHO(suffix, type)                                                                 \
    static PERF_CACHED(echo_##suffix, type, "echo", PERF_TTL_FOREVER, (const type, value)) \
    {                                                                                      \
        runs++;                                                                            \
        *out = value;                                                                      \
        return PERF_OK;                                                                    \
    }
ECHO(bool, bool)
ECHO(char, char)
ECHO(int, int)
ECHO(ulong, unsigned long)
ECHO(llong, long long)
ECHO(float, float)
ECHO(double, double)

template <typename T> static void echo(int (*call)(T, T *), std::initializer_list<T> values)
{
    runs = 0;
    for (int i = 0; i < 2; i++)
        for (T value : values) {
            T out;
            CHECK(call(value, &out) == PERF_OK && !std::memcmp(&out, &value, sizeof out));
        }
    CHECK(runs == static_cast<int>(values.size()));
}

static void every_type()
{
    echo<bool>(echo_bool, {false, true});
    echo<char>(echo_char, {'\0', 'a', '\x7f'});
    echo<int>(echo_int, {0, -1, std::numeric_limits<int>::min()});
    echo<unsigned long>(echo_ulong, {0, std::numeric_limits<unsigned long>::max()});
    echo<long long>(echo_llong, {0, -1, std::numeric_limits<long long>::min()});
    echo<float>(echo_float, {0.0f, -0.0f, 1.5f, std::numeric_limits<float>::quiet_NaN()});
    echo<double>(echo_double, {0.0, -0.0, 0.1, std::numeric_limits<double>::infinity()});
}

static void enums_and_namespaces()
{
    picture p;
    int n = 0;
    runs = 0;
    for (int i = 0; i < 2; i++) {
        CHECK(gallery::find_picture(shade::light, low, "x", &p) == PERF_OK);
        CHECK(p.s == shade::light && p.t == low && !std::strcmp(p.name, "x"));
        CHECK(gallery::find_picture(shade::dark, low, "x", &p) == PERF_OK && p.s == shade::dark);
        CHECK(gallery::find_picture(shade::dark, high, "x", &p) == PERF_OK && p.t == high);
    }
    CHECK(runs == 3);
    CHECK(gallery::PERF_FORGET(find_picture)(shade::dark, high, "x") == PERF_OK);
    CHECK(gallery::find_picture(shade::dark, high, "x", &p) == PERF_OK && runs == 4);
    CHECK(gallery::nothing(&n) == PERF_OK && gallery::nothing(&n) == PERF_OK && n == 5);
    CHECK(gallery::PERF_FORGET(nothing)() == PERF_OK);
}

static void exceptions_become_a_code()
{
    picture p;
    CHECK(gallery::find_picture(shade::dark, low, nullptr, &p) == PERF_ELOAD);
    perf_cache *cache = perf_cache_set_default(nullptr);
    CHECK(gallery::find_picture(shade::dark, low, nullptr, &p) == PERF_ELOAD);
    perf_cache_set_default(cache);
}

static void throw_with_a_value(perf_cache *cache)
{
    PERF_AUTO(perf_value) v = nullptr;
    CHECK(perf_cache_get(cache, "ns", nullptr, "k", 1, &v) == PERF_OK);
    throw std::runtime_error("out");
}

static long live;

static void auto_handles_survive_a_throw()
{
    perf_allocator allocator = PERF_ALLOCATOR_INIT;
    allocator.alloc = [](void *, std::size_t size) { return live++, std::malloc(size); };
    allocator.realloc = [](void *, void *block, std::size_t size) {
        live += block == nullptr;
        return std::realloc(block, size);
    };
    allocator.free = [](void *, void *block) {
        live -= block != nullptr;
        std::free(block);
    };
    perf_host host = PERF_HOST_INIT;
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    host.allocator = &allocator;
    options.host = &host;
    {
        PERF_AUTO(perf_cache) cache = nullptr;
        CHECK(perf_cache_open(&options, &cache) == PERF_OK);
        CHECK(perf_cache_set(cache, "ns", nullptr, "k", 1, "v", 1, PERF_TTL_FOREVER) == PERF_OK);
        CHECK_THROWS(throw_with_a_value(cache), std::runtime_error, true);
        CHECK(live > 0);
    }
    CHECK(live == 0);
}

// ------------------------------------------------------------- connections

struct conn {
    int number;
};

static int opened, closed;

static const perf_connection_vtable conns = {
    sizeof conns,
    [](void *, const char *, std::int64_t, void **out) -> int {
        *out = new conn{++opened};
        return PERF_OK;
    },
    [](void *, void *c) {
        closed++;
        delete static_cast<conn *>(c);
    },
    nullptr,
    nullptr,
    nullptr};

static std::uint64_t in_use(perf_pool *pool)
{
    perf_pool_stats stats = PERF_POOL_STATS_INIT;
    CHECK(perf_pool_get_stats(pool, &stats) == PERF_OK);
    return stats.in_use;
}

static void throw_with_a_connection(perf_pool *pool, bool broken)
{
    PERF_BORROW(pool, conn *, outer, 1000) {
        PERF_BORROW_KEY(pool, "other", conn *, inner, 1000) {
            CHECK(in_use(pool) == 2 && outer != inner);
            if (broken)
                PERF_BORROW_BROKEN(inner);
            throw std::runtime_error("out");
        }
    }
}

static void borrowed_connections_survive_a_throw()
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    options.vtable = &conns;
    options.max_size = 1;
    {
        PERF_AUTO(perf_pool) pool = nullptr;
        CHECK(perf_pool_open(&options, &pool) == PERF_OK);
        CHECK_THROWS(throw_with_a_connection(pool, false), std::runtime_error, true);
        CHECK(in_use(pool) == 0 && opened == 2 && closed == 0);
        CHECK_THROWS(throw_with_a_connection(pool, true), std::runtime_error, true);
        CHECK(in_use(pool) == 0);
        int busy = 0;
        PERF_BORROW(pool, conn *, c, 1000) {
            CHECK(c->number > 0);
            PERF_BORROW(pool, conn *, d, 0)
                CHECK(d == nullptr);
            else
                busy = PERF_BORROW_STATUS(d);
        }
        CHECK(busy == PERF_ETIMEDOUT);
    }
    CHECK(opened == 2 && closed == 2);
}

// ------------------------------------------------------------------- tasks

struct size {
    int width, height;
};

namespace gallery
{

PERF_TASK(paint, (shade, s), (const char *, name), (const size, wanted), (perf_bytes, data),
          (std::string *, out))
{
    if (!name)
        throw std::runtime_error("no name to paint");
    if (data.len == 0)
        throw 42;
    *out = std::string(name) + " " + std::to_string(static_cast<int>(s)) + " " +
           std::to_string(wanted.width * wanted.height) + " " +
           std::string(static_cast<const char *>(data.data), data.len);
    return perf_run_cancelled(run);
}

} // namespace gallery

static void tasks_copy_and_catch()
{
    perf_executor *executor = nullptr;
    CHECK(perf_executor_open(nullptr, &executor) == PERF_OK);
    std::string out;
    {
        PERF_AUTO(perf_task) good = nullptr;
        PERF_AUTO(perf_task) thrown = nullptr;
        PERF_AUTO(perf_task) odd = nullptr;
        {
            std::string name = "a name long enough not to be in the string itself";
            CHECK(PERF_ASYNC(executor, &good, gallery::paint, shade::dark, name.c_str(), size{3, 4},
                             perf_bytes{"xyz", 3}, &out) == PERF_OK);
            name.assign(name.size(), '?');
        }
        CHECK(PERF_ASYNC(executor, &thrown, gallery::paint, shade::dark, nullptr, size{1, 1},
                         perf_bytes{"xyz", 3}, &out) == PERF_OK);
        CHECK(PERF_ASYNC(executor, &odd, gallery::paint, shade::dark, "", size{1, 1},
                         perf_bytes{nullptr, 0}, &out) == PERF_OK);
        CHECK(perf_task_wait(good, 10000, nullptr) == PERF_OK);
        CHECK(perf_task_wait(thrown, 10000, nullptr) == PERF_ELOAD);
        CHECK(std::string(perf_task_error(thrown)) == "no name to paint");
        CHECK(perf_task_wait(odd, 10000, nullptr) == PERF_ELOAD);
        CHECK(std::string(perf_task_error(odd)) == "an exception left the function");
    }
    CHECK(out == "a name long enough not to be in the string itself 7 12 xyz");
    CHECK(perf_executor_close(executor, -1) == PERF_OK);
}

// ---------------------------------------------------------------- requests

static void throw_in_a_request(perf_monitor *monitor)
{
    PERF_TRACK(monitor, "/throws", "GET", nullptr)
    {
        PERF_SPAN("outer")
        {
            PERF_SPAN("inner")
            throw std::runtime_error("out");
        }
    }
}

static void requests_end_by_a_throw()
{
    PERF_AUTO(perf_monitor) monitor = nullptr;
    PERF_AUTO(perf_request_list) list = nullptr;
    PERF_AUTO(perf_snapshot) snapshot = nullptr;
    perf_request_stats stats = PERF_REQUEST_STATS_INIT;
    perf_request_record record = PERF_REQUEST_RECORD_INIT;
    CHECK(perf_monitor_open(nullptr, &monitor) == PERF_OK);
    CHECK_THROWS(throw_in_a_request(monitor), std::runtime_error, true);
    CHECK(perf_request_current() == nullptr);
    CHECK(perf_monitor_get_stats(monitor, "/throws", "GET", PERF_WINDOW_ALL, &stats) == PERF_OK);
    CHECK(stats.requests == 1 && stats.in_flight == 0);
    CHECK(perf_monitor_slowest(monitor, "/throws", "GET", &list) == PERF_OK);
    CHECK(perf_request_list_get(list, 0, &record) == PERF_OK && record.spans == 2);
    CHECK(perf_metrics_snapshot(perf_monitor_metrics(monitor), &snapshot) == PERF_OK);
    CHECK(perf_snapshot_count(snapshot) > 0);
}

int main()
{
    PERF_AUTO(perf_cache) cache = nullptr;
    CHECK(perf_cache_open(nullptr, &cache) == PERF_OK);
    perf_cache_set_default(cache);
    int rc = run_tests({
#define TEST(name) {#name, name}
        TEST(every_type),
        TEST(enums_and_namespaces),
        TEST(exceptions_become_a_code),
        TEST(auto_handles_survive_a_throw),
        TEST(borrowed_connections_survive_a_throw),
        TEST(tasks_copy_and_catch),
        TEST(requests_end_by_a_throw),
    });
    perf_cache_set_default(nullptr);
    return rc;
}
