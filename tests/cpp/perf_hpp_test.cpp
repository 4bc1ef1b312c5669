// SPDX-License-Identifier: MIT
//
// perf_hpp_test.cpp - perf.hpp through a real cache, pool, executor and queue.
//
#include <array>
#include <atomic>
#include <condition_variable>
#include <future>
#include <libperf/perf.hpp>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "check.hpp"

using namespace std::chrono_literals;
using libperf::cache;
using libperf::value;

static_assert(!std::is_copy_constructible_v<cache> && std::is_nothrow_move_constructible_v<cache>);
static_assert(!std::is_copy_constructible_v<value> && std::is_nothrow_move_constructible_v<value>);
static_assert(!std::is_convertible_v<int, libperf::bytes>);
static_assert(!std::is_convertible_v<std::vector<int>, libperf::bytes>);

// A clock of our own, so that no test waits.
static std::atomic<std::int64_t> now_ms{1000000};

static perf_clock still_clock()
{
    perf_clock clock = PERF_CLOCK_INIT;
    clock.monotonic_ns = [](void *) -> std::int64_t { return now_ms * 1000000; };
    clock.realtime_ms = [](void *) -> std::int64_t { return now_ms; };
    return clock;
}

static cache open_with_clock()
{
    static const perf_clock clock = still_clock();
    perf_host host = PERF_HOST_INIT;
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    host.clock = &clock;
    options.host = &host;
    return cache(options);
}

static void set_and_get()
{
    cache c;
    c.set("ns", "key", "value");
    std::optional<value> v = c.get("ns", "key");
    CHECK(v && v->view() == "value" && v->size() == 5 && v->ttl() == libperf::forever);
    CHECK(!v->stale() && v->version() != 0);
    CHECK(!c.get("ns", "other") && !c.get("other", "key"));
    CHECK(c.erase("ns", "key") && !c.erase("ns", "key") && !c.get("ns", "key"));
    CHECK(v->str() == "value"); // held, so still there
}

static void values_and_caches_move()
{
    cache a;
    a.set("ns", "k", "1");
    cache b(std::move(a));
    std::optional<value> v = b.get("ns", "k");
    value w = std::move(*v);
    CHECK(w.view() == "1" && v->size() == 0 && v->data() == nullptr);
    value empty;
    CHECK(empty.size() == 0 && empty.view().empty() && empty.ttl() == 0ms && !empty.stale());
    b.close();
    CHECK(w.view() == "1"); // values outlive their cache
}

static void bytes_come_from_many_types()
{
    cache c;
    std::vector<unsigned char> vector{0, 1, 2};
    std::array<std::byte, 3> array{std::byte{0}, std::byte{1}, std::byte{2}};
    std::string string("\0\1\2", 3);
    c.set("ns", vector, array);
    CHECK(c.get("ns", string)->view() == std::string_view("\0\1\2", 3));
    CHECK(!c.get("ns", std::string_view("\0\1", 2)));
    c.set("ns", "empty", "");
    CHECK(c.get("ns", "empty")->size() == 0);
#if __cplusplus >= 202002L
    std::span<const std::byte> span(array);
    CHECK(c.get("ns", span)->span().size() == 3);
    CHECK(c.get("ns", span)->span()[2] == std::byte{2});
#endif
}

static void users_namespaces_tags_patterns()
{
    cache c;
    std::string ns = "ns", anna = "anna";
    c.set({ns, anna}, "k", "hers");
    c.set({"ns", "ben"}, "k", "his");
    c.set(ns, "k", "nobody's");
    CHECK(c.get({"ns", "anna"}, "k")->view() == "hers");
    c.invalidate_user(anna);
    CHECK(!c.get({"ns", "anna"}, "k") && c.get({"ns", "ben"}, "k") && c.get("ns", "k"));
    libperf::set_options red;
    red.tags = {"red", "warm"};
    CHECK(c.put("a", "1", "x", red) && c.put("b", "2", "x", red));
    c.invalidate_tag("warm");
    CHECK(!c.get("a", "1") && !c.get("b", "2"));
    c.set("a", "x:1", "");
    c.set("b", "x:1", "");
    c.invalidate_pattern("a", "x:*");
    CHECK(!c.get("a", "x:1") && c.get("b", "x:1"));
    c.invalidate_pattern(nullptr, "x:*");
    CHECK(!c.get("b", "x:1"));
    c.invalidate_namespace("ns");
    CHECK(!c.get({"ns", "ben"}, "k"));
    c.set("a", "k", "");
    c.clear();
    CHECK(!c.get("a", "k"));
}

static void conditions()
{
    cache c;
    libperf::set_options absent, present, version;
    absent.if_absent = true;
    present.if_present = true;
    CHECK(!c.put("ns", "k", "0", present));
    auto first = c.put("ns", "k", "1", absent);
    CHECK(first && !c.put("ns", "k", "2", absent));
    version.if_version = *first;
    auto second = c.put("ns", "k", "3", version);
    CHECK(second && *second != *first && !c.put("ns", "k", "4", version));
    CHECK(c.get("ns", "k")->view() == "3");
    CHECK(c.incr("ns", "n", 5, 10) == 10 && c.incr("ns", "n", 5) == 15);
}

static void lives_are_durations()
{
    cache c = open_with_clock();
    c.set("ns", "k", "v", 2s);
    CHECK(*c.ttl("ns", "k") == 2000ms && !c.ttl("ns", "other"));
    now_ms += 1500;
    CHECK(c.get("ns", "k")->ttl() == 500ms);
    CHECK(c.touch("ns", "k", 1min) && !c.touch("ns", "other", 1min));
    now_ms += 59000;
    CHECK(c.get("ns", "k"));
    now_ms += 2000;
    CHECK(!c.get("ns", "k"));
}

static void errors_carry_code_and_text()
{
    CHECK_THROWS(cache({"/no/such/folder/at/all.db"}), libperf::error,
                 e.code() < 0 && std::string(e.what()).size() > 0);
    cache c;
    CHECK_THROWS(c.set(std::string(300, 'n'), "k", "v"), libperf::error,
                 e.code() == PERF_EINVAL && std::string(e.what()).size() > 0);
    c.set("ns", "k", "text");
    CHECK_THROWS(c.incr("ns", "k"), libperf::error, e.code() == PERF_ECONFLICT);
}

struct point {
    int x;
    double y;
};

static void typed()
{
    cache c;
    c.set_as("ns", "p", point{1, 2.5});
    CHECK(c.get_as<point>("ns", "p")->x == 1 && c.get("ns", "p")->as<point>().y > 2.4);
    using points = std::array<point, 2>;
    CHECK(!c.get_as<char>("ns", "p") && !c.get_as<points>("ns", "p"));
    CHECK_THROWS(c.get("ns", "p")->as<char>(), libperf::error, e.code() == PERF_ECORRUPT);
    int runs = 0;
    auto load = [&] { return point{++runs, 0}; };
    CHECK(c.load_as<point>("ns", "q", load)->x == 1 && c.load_as<point>("ns", "q", load)->x == 1);
    c.set("ns", "q", "of another size"); // an older program's layout
    CHECK(c.load_as<point>("ns", "q", load)->x == 2 && c.load_as<point>("ns", "q", load)->x == 2);
}

static void keys_of_parts()
{
    using libperf::key;
    enum class kind : std::uint8_t { one = 1 };
    const char *null = nullptr;
    std::set<std::string> keys{key(),          key(1),    key(1u), key("1"), key("ab", "c"),
                               key("a", "bc"), key(null), key(""), key(1.0), key(1.0f),
                               key(kind::one), key(1, 2), key(12)};
    CHECK(keys.size() == 12); // 1u and kind::one are one: both are the whole number 1
    CHECK(key(std::int64_t(-5)) == key(short(-5)) && key("x") == key(std::string("x").c_str()));
    CHECK_THROWS(key(std::string(40000, 'x').c_str()), libperf::error, e.code() == PERF_ETOOBIG);
    CHECK(key(std::string(30000, 'x').c_str()).size() > 30000);
}

static void loaders_return_what_they_like()
{
    cache c;
    int runs = 0;
    for (int i = 0; i < 2; i++) {
        CHECK(c.load("ns", "string", [&] { return runs++, std::string("s"); })->view() == "s");
        CHECK(c.load("ns", "literal", [&] { return runs++, "l"; })->view() == "l");
        CHECK(c.load("ns", "plain", [&] { return runs++, 77; })->as<int>() == 77);
        CHECK(c.load("ns", "optional", [&] {
                   return runs++, std::optional<std::string>("o");
               })->view() == "o");
        CHECK(c.load("ns", "load", [&](libperf::loading &load) {
                   runs++;
                   CHECK(load.key() == "load" && !load.cancelled() && !load.stale());
                   load.set("by hand");
               })->view() == "by hand");
    }
    CHECK(runs == 5);
    for (int i = 0; i < 2; i++)
        CHECK(!c.load("ns", "none", [&] { return runs++, std::optional<std::string>(); }));
    CHECK(runs == 7); // not remembered, without a negative_ttl_ms
}

static void exceptions_reach_the_caller_and_nobody_else()
{
    cache c;
    struct special : std::runtime_error {
        using runtime_error::runtime_error;
    };
    for (int i = 0; i < 2; i++)
        CHECK_THROWS(c.load("ns", "k", []() -> std::string { throw special("mine"); }), special,
                     std::string(e.what()) == "mine");
    CHECK(c.load("ns", "k", [] { return "fine"; })->view() == "fine");
    CHECK(c.stats("ns").load_failures == 2);

    // Also when a deadline sends the load to another thread.
    libperf::load_options away;
    away.background = true;
    away.wait = 1min;
    std::thread::id here = std::this_thread::get_id();
    CHECK_THROWS(c.load(
                     "ns", "k2",
                     [here]() -> std::string {
                         CHECK(std::this_thread::get_id() != here);
                         throw special("from afar");
                     },
                     away),
                 special, std::string(e.what()) == "from afar");

    // One who waits for a load that throws gets an error of the library.
    std::promise<void> inside, leave;
    std::thread leader([&] {
        CHECK_THROWS(c.load("ns", "w",
                            [&]() -> std::string {
                                inside.set_value();
                                leave.get_future().wait();
                                throw special("leader's");
                            }),
                     special, true);
    });
    inside.get_future().wait();
    std::atomic<int> code{0};
    std::thread waiter([&] {
        try {
            c.load("ns", "w", [] { return "joined too late"; });
        } catch (const libperf::error &e) {
            code = e.code();
        }
    });
    for (int i = 0; i < 200 && !c.stats().loads_suppressed; i++)
        std::this_thread::sleep_for(1ms); // let the waiter arrive; not for time to pass
    leave.set_value();
    leader.join();
    waiter.join();
    CHECK(code == PERF_ELOAD);
}

static void one_load_for_all()
{
    cache c;
    std::atomic<int> runs{0};
    std::promise<void> leave;
    std::shared_future<void> left(leave.get_future());
    std::promise<void> inside;
    auto ask = [&] {
        CHECK(c.load("ns", "k", [&] {
                   if (!runs++)
                       inside.set_value();
                   left.wait();
                   return 5;
               })->as<int>() == 5);
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; i++)
        threads.emplace_back(ask);
    inside.get_future().wait();
    leave.set_value();
    for (std::thread &thread : threads)
        thread.join();
    CHECK(runs == 1);
}

static void stale_and_background()
{
    cache c = open_with_clock();
    libperf::load_options options;
    options.ttl = 1s;
    options.stale = 1h;
    options.tags = {"t"};
    std::string source = "one";
    auto by_reference = [&] { return source; };
    CHECK(c.load("ns", "k", by_reference, options)->view() == "one");
    source = "two";
    CHECK(c.load("ns", "k", by_reference, options)->view() == "one");
    now_ms += 2000;
    // Without background the load runs here: a loader by reference must not leave this thread.
    CHECK(c.load("ns", "k", by_reference, options)->view() == "two");

    // In the background: a copy, which runs elsewhere.
    struct shared {
        std::promise<std::thread::id> where;
        std::atomic<int> runs{0};
    };
    auto state = std::make_shared<shared>();
    options.background = true;
    auto by_value = [state] {
        if (++state->runs == 2)
            state->where.set_value(std::this_thread::get_id());
        return state->runs.load();
    };
    CHECK(c.load("ns", "b", by_value, options)->as<int>() == 1);
    now_ms += 2000;
    std::optional<value> old = c.load("ns", "b", by_value, options);
    CHECK(old->as<int>() == 1 && old->stale());
    CHECK(state->where.get_future().get() != std::this_thread::get_id());

    // A stale value is served when the source fails, whatever it throws.
    now_ms += 2000;
    options.background = false;
    std::optional<value> kept = c.load(
        "ns", "k", []() -> std::string { throw std::runtime_error("down"); }, options);
    CHECK(kept->view() == "two" && kept->stale());
    c.invalidate_tag("t");
    CHECK_THROWS(c.load(
                     "ns", "k", []() -> std::string { throw std::runtime_error("down"); }, options),
                 std::runtime_error, true);

    // The loader sees what it would replace, and may keep it.
    c.set("keep", "k", "kept", 1s);
    perf_namespace_options policy = PERF_NAMESPACE_OPTIONS_INIT;
    policy.stale_ms = 3600000;
    c.configure("keep", policy);
    c.set("keep", "k", "kept", 1s);
    now_ms += 2000;
    CHECK(c.load("keep", "k", [](libperf::loading &load) {
               CHECK(load.stale() && *load.stale() == "kept" && load.keep_stale());
           })->view() == "kept");
}

static void a_loader_that_cannot_be_copied_stays_here()
{
    cache c;
    libperf::load_options options;
    auto only = [p = std::make_unique<int>(3)] { return *p; };
    CHECK(c.load("ns", "k", std::move(only), options)->as<int>() == 3);
    options.background = true;
    auto other = [p = std::make_unique<int>(3)] { return *p; };
    CHECK_THROWS(c.load("ns", "k2", std::move(other), options), libperf::error,
                 e.code() == PERF_EINVAL);
}

static void batches()
{
    cache c;
    for (int i = 0; i < 100; i += 2)
        c.set("ns", std::to_string(i), "v" + std::to_string(i));
    std::vector<std::string> keys;
    for (int i = 0; i < 100; i++)
        keys.push_back(std::to_string(i));
    std::vector<std::optional<value>> found = c.get_many("ns", keys);
    for (std::size_t i = 0; i < 100; i++)
        CHECK(i % 2 ? !found[i] : found[i]->view() == "v" + keys[i]);
    int calls = 0;
    found = c.load_many("ns", keys, [&](std::vector<libperf::loading> &loads) {
        calls++;
        CHECK(loads.size() == 50);
        for (libperf::loading &load : loads)
            if (load.key() != "99")
                load.set("loaded " + std::string(load.key()));
    });
    CHECK(calls == 1 && found[1]->view() == "loaded 1" && found[2]->view() == "v2" && !found[99]);
    CHECK(c.get("ns", "1") && c.get_many("ns", std::vector<std::string>()).empty());
    CHECK_THROWS(
        c.load_many("other", keys,
                    [](std::vector<libperf::loading> &) { throw std::runtime_error("no source"); }),
        std::runtime_error, true);
}

static void walks_and_statistics()
{
    cache c;
    std::set<std::string> seen;
    for (int i = 0; i < 50; i++)
        c.set("ns", std::to_string(i), "v");
    c.set("other", "x", "v");
    c.for_each("ns", [&](const perf_cache_entry &entry) {
        seen.emplace(static_cast<const char *>(entry.key), entry.key_len);
    });
    CHECK(seen.size() == 50);
    CHECK_THROWS(c.for_each(nullptr, [](const perf_cache_entry &) { throw 1; }), int, e == 1);
    CHECK(c.stats("ns").sets == 50 && c.stats().entries == 51);
    CHECK(c.maintain(10) >= 0);
    c.flush();
}

// --------------------------------------------------------------------- pool

struct wire {
    std::string key;
    bool alive = true;
};

static std::atomic<int> wires{0}, refusals{0}, throws{0};

static libperf::connector<wire> wires_that_count()
{
    libperf::connector<wire> how;
    how.open = [](const std::string &key, libperf::duration timeout) -> wire * {
        CHECK(timeout.count() > 0);
        if (refusals.fetch_sub(1) > 0)
            return nullptr;
        if (throws.fetch_sub(1) > 0)
            throw std::runtime_error("no route");
        wires++;
        return new wire{key};
    };
    how.close = [](wire *l) {
        wires--;
        delete l;
    };
    how.reset = [](wire *l) {
        if (!l->alive)
            throw std::runtime_error("gone");
        return true;
    };
    refusals = throws = 0;
    return how;
}

static void connections_go_back()
{
    {
        perf_pool_options options = PERF_POOL_OPTIONS_INIT;
        options.max_size = 2;
        libperf::pool<wire> pool(wires_that_count(), options);
        CHECK(wires == 0);
        {
            libperf::borrowed<wire> a = pool.acquire(1s, "a");
            libperf::borrowed<wire> b = pool.acquire_key("replica", 1s);
            CHECK(a && a->key.empty() && (*b).key == "replica" && pool.stats().in_use == 2);
            libperf::borrowed<wire> c = std::move(a);
            CHECK(!a && c && pool.stats().in_use == 2);
            c = pool.acquire(1s);
            CHECK(pool.stats().in_use == 2 && pool.stats().size == 3);
        }
        CHECK(pool.stats().in_use == 0 && wires == 3);
        CHECK_THROWS(([&] {
                         libperf::borrowed<wire> held = pool.acquire(1s);
                         throw std::runtime_error("out");
                     }()),
                     std::runtime_error, true);
        CHECK(pool.stats().in_use == 0 && pool.stats().opened == 3);
    }
    CHECK(wires == 0);
}

static void connections_are_discarded_and_detached()
{
    libperf::pool<wire> pool(wires_that_count());
    libperf::borrowed<wire> broken = pool.acquire(1s);
    broken.discard();
    broken.discard();
    CHECK(!broken && pool.stats().closed_discarded == 1);
    libperf::borrowed<wire> dead = pool.acquire(1s);
    dead->alive = false; // reset throws, which is a no
    dead.release();
    CHECK(pool.stats().closed_invalid == 1);
    std::unique_ptr<wire> mine(pool.acquire(1s).detach());
    wires--;
    CHECK(mine && pool.stats().detached == 1 && pool.stats().in_use == 0);
    pool.close_now();
    CHECK(wires == 0 && mine->alive);
}

static void pools_say_why_not()
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    CHECK_THROWS(libperf::pool<wire>({}, options), libperf::error, e.code() == PERF_EINVAL);
    options.max_size = 1;
    libperf::pool<wire> first(wires_that_count(), options), pool(std::move(first));
    CHECK(first.handle() == nullptr);
    refusals = 1000;
    CHECK_THROWS(pool.acquire(30ms), libperf::error, e.code() == PERF_EUNAVAILABLE);
    throws = 1000;
    refusals = 0;
    CHECK_THROWS(pool.try_acquire(200ms), libperf::error, e.code() == PERF_EUNAVAILABLE);
    throws = 0;
    libperf::borrowed<wire> held = pool.acquire(10s);
    CHECK(held && !pool.try_acquire() && !pool.try_acquire(5ms));
    CHECK_THROWS(pool.acquire(5ms), libperf::error, e.code() == PERF_ETIMEDOUT);
    CHECK_THROWS(pool.close_now(), libperf::error, e.code() == PERF_EBUSY);
    held.release();
    CHECK_THROWS(pool.acquire(5ms), libperf::error, e.code() == PERF_ECLOSED);
    pool.close_now();
    CHECK(wires == 0);
}

static void pools_are_controlled()
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    options.no_threads = 1;
    libperf::pool<wire> pool(wires_that_count(), options);
    pool.acquire(1s);
    CHECK(wires == 1);
    pool.evict_all();
    CHECK(wires == 0);
    pool.resize(2, 3);
    pool.maintain();
    CHECK(wires == 2 && pool.stats().max_size == 3);
    pool.suspend();
    CHECK(!pool.try_acquire(5ms));
    pool.resume();
    CHECK(pool.try_acquire(5ms));
}

// ------------------------------------------------------------------- tasks

static_assert(!std::is_copy_constructible_v<libperf::task> &&
              std::is_nothrow_move_constructible_v<libperf::task>);
static_assert(!std::is_copy_constructible_v<libperf::executor> &&
              std::is_nothrow_move_constructible_v<libperf::executor>);

struct pair {
    int a, b;
};

static void tasks_give_what_callables_return()
{
    libperf::executor executor;
    std::string long_text(100000, 'x');
    libperf::task text = executor.submit([long_text] { return long_text + "!"; });
    libperf::task plain = executor.submit([](libperf::run &) { return pair{1, -2}; });
    libperf::task nothing = executor.submit([kept = std::make_unique<int>(1)] { (void)*kept; });
    libperf::task by_hand = executor.submit([](libperf::run &run) {
        run.progress(0.5, "half");
        run.count(3, 4);
        run.result("first");
        run.result("last");
    });
    CHECK(text.get() == long_text + "!" && text.get().size() == 100001); // again
    CHECK(plain.get_as<pair>().b == -2);
    CHECK_THROWS(plain.get_as<char>(), libperf::error, e.code() == PERF_ECORRUPT);
    CHECK(nothing.get().empty() && nothing.done() && nothing.state() == PERF_TASK_SUCCEEDED);
    CHECK(by_hand.get(10s) == "last" && by_hand.progress().done == 3);
    CHECK(by_hand.fd() >= 0 && !by_hand.cancel());
    libperf::task next =
        by_hand.then([](libperf::run &run) { return "after " + std::string(run.input()); });
    CHECK(next.get() == "after last");
    CHECK(executor.stats().submitted == 5 && executor.drain());
}

static void tasks_fail_by_exceptions()
{
    libperf::executor executor;
    libperf::task own = executor.submit([] { throw libperf::error(PERF_EACCESS, "no key"); });
    libperf::task other = executor.submit([]() -> int { throw std::logic_error("not so"); });
    libperf::task odd = executor.submit([] { throw 1; });
    CHECK_THROWS(own.get(), libperf::error,
                 e.code() == PERF_EACCESS && e.what() == std::string("no key"));
    CHECK_THROWS(other.get(), libperf::error,
                 e.code() == PERF_ELOAD && e.what() == std::string("not so"));
    CHECK_THROWS(odd.get(), libperf::error, e.code() == PERF_ELOAD);
    CHECK(own.wait() && own.error() == std::string("no key")); // to wait is not to fail
    CHECK_THROWS(own.then([] {}).get(), libperf::error, e.code() == PERF_EACCESS);
    libperf::task none;
    CHECK_THROWS(none.wait(), libperf::error, e.code() == PERF_EINVAL);
    CHECK_THROWS(none.get(), libperf::error, e.code() == PERF_EINVAL);
    perf_task_options wrong = PERF_TASK_OPTIONS_INIT;
    wrong.priority = 9;
    auto counted = std::make_shared<int>(0);
    CHECK_THROWS(executor.submit([counted] {}, wrong), libperf::error, e.code() == PERF_EINVAL);
    CHECK(counted.use_count() == 1); // the callable is gone
}

static void tasks_are_cancelled()
{
    std::atomic<int> steps{0};
    perf_executor_options options = PERF_EXECUTOR_OPTIONS_INIT;
    options.min_threads = options.max_threads = 1;
    libperf::executor executor(options);
    libperf::task running = executor.submit([&](libperf::run &run) {
        steps = 1;
        CHECK(run.remaining() == libperf::forever);
        while (!run.cancelled())
            std::this_thread::yield();
        steps = 2;
        run.check();
        steps = 3;
    });
    auto counted = std::make_shared<int>(0);
    libperf::task waiting = executor.submit([counted] { return 1; });
    while (steps == 0)
        std::this_thread::yield();
    CHECK(!running.wait(0ms) && !running.done());
    CHECK_THROWS(running.get(1ms), libperf::error, e.code() == PERF_ETIMEDOUT);
    CHECK(waiting.cancel() && counted.use_count() == 1);
    CHECK_THROWS(waiting.get(), libperf::error, e.code() == PERF_ECANCELED);
    CHECK(running.cancel());
    CHECK_THROWS(running.get(), libperf::error, e.code() == PERF_ECANCELED);
    CHECK(steps == 2);
    std::atomic<int> turns{0};
    libperf::task often = executor.every(1ms, [&] { turns++; });
    while (turns < 3)
        std::this_thread::yield();
    CHECK(often.cancel() && often.wait());
    executor.resize(1, 2);
    libperf::executor moved(std::move(executor));
    moved.close();
    CHECK(turns >= 3 && moved.handle() == nullptr);
}

static void an_executor_waits_for_its_tasks()
{
    std::atomic<int> ran{0};
    libperf::task last;
    {
        libperf::executor executor;
        for (int i = 0; i < 1000; i++)
            last = executor.submit([&] { return ++ran; });
    }
    CHECK(ran == 1000 && last.done()); // tasks outlive it
}

static void durable_tasks()
{
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    options.backend = "memory";
    libperf::tasks tasks(options);
    int first = 1;
    tasks.handle("reverse", [](libperf::run &run) {
        std::string text(run.payload());
        CHECK(run.kind() == std::string("reverse") && run.user() == std::string("anna"));
        CHECK(*run.id() && run.version() == 2);
        return std::string(text.rbegin(), text.rend());
    });
    tasks.handle("later", [&first](libperf::run &run) -> int {
        if (first-- > 0)
            run.snooze(0ms);
        return static_cast<int>(run.attempt());
    });
    tasks.handle("bad", [] { throw libperf::error(PERF_EINVAL, "bad payload"); });
    CHECK_THROWS(tasks.handle("bad", [] {}), libperf::error, e.code() == PERF_EEXISTS);
    perf_submit_options how = PERF_SUBMIT_OPTIONS_INIT;
    how.user = "anna";
    how.id = "mine";
    how.version = 2;
    bool added = false;
    CHECK(tasks.submit("reverse", "abc", how, &added) == "mine" && added);
    CHECK(tasks.submit("reverse", "abc", how, &added) == "mine" && !added);
    CHECK(tasks.get("mine")->payload() == "abc" && !tasks.get("mine")->done());
    CHECK(tasks.count().queued == 1);
    tasks.start();
    std::optional<libperf::record> done = tasks.wait("mine", 10s);
    CHECK(done && done->succeeded() && done->done() && done->result() == "cba");
    CHECK((*done)->attempts == 1 && (*done)->user == std::string("anna"));
    libperf::record snoozed = *tasks.wait(tasks.submit("later", ""), 10s);
    CHECK(snoozed.succeeded() && snoozed->attempts == 1); // the first one did not count
    libperf::record failed = *tasks.wait(tasks.submit("bad", ""), 10s);
    CHECK(!failed.succeeded() && failed->status == PERF_EINVAL);
    CHECK(failed->error == std::string("bad payload"));
    CHECK(tasks.redrive(failed->id) && tasks.wait(failed->id, 10s)->done());
    CHECK(!tasks.get("none") && !tasks.wait("none", 0ms) && !tasks.cancel("none"));
    std::string unknown = tasks.submit("unknown", "");
    CHECK_THROWS(tasks.wait(unknown, 1ms), libperf::error, e.code() == PERF_ETIMEDOUT);
    CHECK(tasks.cancel(unknown) && tasks.get(unknown)->done());
    tasks.schedule("nightly", "0 3 * * *", "reverse", "", "Europe/Berlin");
    CHECK_THROWS(tasks.schedule("never", "every day", "reverse", ""), libperf::error,
                 e.code() == PERF_EINVAL);
    CHECK_THROWS(tasks.submit("bad kind!", ""), libperf::error, e.code() == PERF_EINVAL);
    CHECK(tasks.stats().submitted == 4 && tasks.stop(10s));
    tasks.close();
    CHECK(snoozed.result().size() == sizeof(int)); // records outlive it
}

int main()
{
    return run_tests({
#define TEST(name) {#name, name}
        TEST(set_and_get),
        TEST(values_and_caches_move),
        TEST(bytes_come_from_many_types),
        TEST(users_namespaces_tags_patterns),
        TEST(conditions),
        TEST(lives_are_durations),
        TEST(errors_carry_code_and_text),
        TEST(typed),
        TEST(keys_of_parts),
        TEST(loaders_return_what_they_like),
        TEST(exceptions_reach_the_caller_and_nobody_else),
        TEST(one_load_for_all),
        TEST(stale_and_background),
        TEST(a_loader_that_cannot_be_copied_stays_here),
        TEST(batches),
        TEST(walks_and_statistics),
        TEST(connections_go_back),
        TEST(connections_are_discarded_and_detached),
        TEST(pools_say_why_not),
        TEST(pools_are_controlled),
        TEST(tasks_give_what_callables_return),
        TEST(tasks_fail_by_exceptions),
        TEST(tasks_are_cancelled),
        TEST(an_executor_waits_for_its_tasks),
        TEST(durable_tasks),
    });
}
