// SPDX-License-Identifier: MIT
//
// tasks.cpp - background work from C++17: lambdas on an executor, their results and
// exceptions, and tasks that survive the process.
//
#include <cstdlib>
#include <iostream>
#include <libperf/perf.hpp>
#include <numeric>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

using namespace std::chrono_literals;

static bool in_this_process()
{
    libperf::executor executor;

    // Four parts of a sum, each a task; the result of a task is what its lambda returns.
    std::vector<int> numbers(1000000);
    std::iota(numbers.begin(), numbers.end(), 1);
    std::vector<libperf::task> parts;
    auto quarter = static_cast<std::ptrdiff_t>(numbers.size() / 4);
    for (auto from = numbers.begin(); from != numbers.end(); from += quarter)
        parts.push_back(executor.submit(
            [from, quarter] { return std::accumulate(from, from + quarter, std::int64_t{0}); }));
    std::int64_t sum = 0;
    for (const libperf::task &part : parts)
        sum += part.get_as<std::int64_t>();
    std::cout << "sum: " << sum << "\n";

    // A chain, and an exception that comes out of get().
    libperf::task page = executor.submit([] { return std::string("<h1>courses</h1>"); });
    libperf::task size = page.then([](libperf::run &run) { return run.input().size(); });
    std::cout << page.get(5s) << " has " << size.get_as<std::size_t>() << " bytes\n";
    libperf::task broken = executor.submit([] { throw std::runtime_error("no such course"); });
    try {
        broken.get();
    } catch (const libperf::error &problem) {
        std::cout << "failed: " << problem.what() << "\n";
    }
    return sum == 500000500000 && size.done() && broken.state() == PERF_TASK_FAILED;
}

static bool durable(const std::string &file)
{
    std::string id;
    {
        libperf::tasks tasks(file); // this one only submits
        perf_submit_options options = PERF_SUBMIT_OPTIONS_INIT;
        options.user = "anna";
        id = tasks.submit("greet", "Anna", options);
    } // the process could end here

    libperf::tasks tasks(file);
    int attempts = 0;
    perf_handler_options options = PERF_HANDLER_OPTIONS_INIT;
    options.backoff_ms = 1;
    tasks.handle(
        "greet",
        [&](libperf::run &run) {
            if (++attempts == 1)
                throw std::runtime_error("the mail server is away"); // and it is tried again
            run.progress(0.5, "greeting");
            return "hello " + std::string(run.payload());
        },
        options);
    tasks.start();
    auto record = tasks.wait(id, 10s);
    std::cout << record->result() << ", after " << (*record)->attempts << " attempts\n"
              << (*record)->history;
    return record->succeeded() && attempts == 2;
}

int main()
{
    char folder[] = "/tmp/libperf-example-XXXXXX";
    if (!mkdtemp(folder))
        return 1;
    bool good = in_this_process() && durable(std::string(folder) + "/tasks.db");
    return good && !std::system(("rm -rf " + std::string(folder)).c_str()) ? 0 : 1;
}
