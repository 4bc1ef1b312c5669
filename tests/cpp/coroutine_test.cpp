// SPDX-License-Identifier: MIT
//
// coroutine_test.cpp - co_await executor.run(...), compiled as C++20. Compilers whose
// coroutines are only a draft have none of it, and nothing to test.
//
#include <libperf/perf.hpp>

#include "check.hpp"

#if !defined(__cpp_impl_coroutine)
int main()
{
    std::puts("no coroutines here");
}
#else

#include <atomic>
#include <coroutine>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

// A coroutine whose end is a std::future.
struct job {
    struct promise_type {
        std::promise<std::string> end;
        job get_return_object()
        {
            return {end.get_future()};
        }
        std::suspend_never initial_suspend() noexcept
        {
            return {};
        }
        std::suspend_never final_suspend() noexcept
        {
            return {};
        }
        void return_value(std::string text)
        {
            end.set_value(std::move(text));
        }
        void unhandled_exception()
        {
            end.set_exception(std::current_exception());
        }
    };
    std::future<std::string> end;
};

static std::atomic<int> ran{0};

static job sums(libperf::executor &executor)
{
    std::thread::id here = std::this_thread::get_id(), there;
    int local = 20; // in the frame, so a reference to it lasts
    int sum = co_await executor.run([&] {
        there = std::this_thread::get_id();
        return local + 1;
    });
    CHECK(there != here && there == std::this_thread::get_id());
    std::unique_ptr<int> twice = co_await executor.run([sum](libperf::run &run) {
        return run.cancelled() ? nullptr : std::make_unique<int>(2 * sum);
    });
    co_await executor.run([] { ran++; });
    co_return std::to_string(*twice);
}

static void results_and_threads()
{
    libperf::executor executor;
    CHECK(sums(executor).end.get() == "42" && ran == 1);
}

static job throws(libperf::executor &executor)
{
    try {
        co_await executor.run([]() -> int { throw std::logic_error("thrown there"); });
    } catch (const std::logic_error &e) {
        co_return e.what();
    }
    co_return "nothing was thrown";
}

static job throws_out(libperf::executor &executor)
{
    co_await executor.run([] { throw std::logic_error("out"); });
    co_return "";
}

static void exceptions_come_out()
{
    libperf::executor executor;
    CHECK(throws(executor).end.get() == "thrown there");
    CHECK_THROWS(throws_out(executor).end.get(), std::logic_error, e.what() == std::string("out"));
}

static job counts(libperf::executor &executor, std::shared_ptr<int> held)
{
    for (int i = 0; i < 100; i++) {
        auto step = executor.run([held] { ran++; }); // by itself: see executor::run about gcc
        co_await step;
    }
    co_return "done";
}

static void many_at_once()
{
    auto held = std::make_shared<int>(0);
    ran = 0;
    {
        libperf::executor executor;
        std::vector<job> jobs;
        for (int i = 0; i < 100; i++)
            jobs.push_back(counts(executor, held));
        for (job &each : jobs)
            CHECK(each.end.get() == "done");
    }
    CHECK(ran == 10000 && held.use_count() == 1); // frames and callables are gone
}

static job late(libperf::executor &executor)
{
    try {
        co_await executor.run([] { ran++; });
    } catch (const libperf::error &e) {
        co_return std::to_string(e.code());
    }
    co_return "ran";
}

static void what_never_ran_comes_back()
{
    perf_executor_options options = PERF_EXECUTOR_OPTIONS_INIT;
    options.min_threads = options.max_threads = 1;
    libperf::executor executor(options);
    std::promise<void> held;
    libperf::task first = executor.submit([&](libperf::run &run) {
        held.set_value();
        while (!run.cancelled())
            std::this_thread::yield();
    });
    held.get_future().get();
    ran = 0;
    job waiting = late(executor);
    executor.close(0ms); // it had not begun
    CHECK(waiting.end.get() == std::to_string(PERF_ECANCELED) && ran == 0);
    libperf::executor gone(nullptr);
    CHECK(late(gone).end.get() == std::to_string(PERF_EINVAL)); // refused, and it goes on here
}

int main()
{
    return run_tests({
#define TEST(name)  \
    {               \
#name, name \
    }
        TEST(results_and_threads),
        TEST(exceptions_come_out),
        TEST(many_at_once),
        TEST(what_never_ran_comes_back),
    });
}
#endif
