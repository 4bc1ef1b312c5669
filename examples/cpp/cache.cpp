// SPDX-License-Identifier: MIT
//
// cache.cpp - libperf from C++17: lambdas as loaders, exceptions, typed values,
// and PERF_CACHED, which works in C++ as well.
//
#include <iostream>
#include <libperf/perf.hpp>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;

struct point {
    double x, y;
};

static int bodies_run = 0;

PERF_CACHED(middle, point, "geometry", 60000, (double, a), (double, b))
{
    bodies_run++;
    out->x = (a + b) / 2;
    out->y = 0;
    return PERF_OK;
}

int main()
{
    libperf::cache cache;

    // A lambda that runs on a miss only.
    int fetched = 0;
    auto page = [&](const std::string &url) {
        return cache.load(
            "pages", url, [&] { return "<h1>" + url + " #" + std::to_string(++fetched); }, 5min);
    };
    std::cout << page("/home")->view() << "\n" << page("/home")->view() << "\n";

    // "No such thing" is an empty optional; an exception goes through to the caller.
    auto nobody = cache.load("users", "42", [] { return std::optional<std::string>(); });
    std::cout << "user 42: " << (nobody ? "found" : "no such user") << "\n";
    try {
        cache.load("pages", "/broken", []() -> std::string { throw std::runtime_error("502"); });
    } catch (const std::runtime_error &problem) {
        std::cout << "loader said: " << problem.what() << "\n";
    }

    // Typed values, keys of several parts, users.
    cache.set_as({"positions", "anna"}, libperf::key(7, "office"), point{1, 2}, 1h);
    if (auto at = cache.get_as<point>({"positions", "anna"}, libperf::key(7, "office")))
        std::cout << "anna is at " << at->x << "," << at->y << "\n";

    // Conditional writes by version.
    cache.set("counters", "visits", "1");
    auto seen = cache.get("counters", "visits");
    libperf::set_options only_if_unchanged;
    only_if_unchanged.if_version = seen->version();
    bool first = cache.put("counters", "visits", "2", only_if_unchanged).has_value();
    bool second = cache.put("counters", "visits", "3", only_if_unchanged).has_value();
    std::cout << "compare and set: " << first << ", again: " << second << "\n";

    // The decorator.
    perf_cache_set_default(cache.handle());
    point p{};
    middle(1, 4, &p);
    middle(1, 4, &p);
    std::cout << "middle is " << p.x << ", the body ran " << bodies_run << " time\n";
    perf_cache_set_default(nullptr);
    return p.x > 2.4 && p.x < 2.6 && bodies_run == 1 && first && !second ? 0 : 1;
}
