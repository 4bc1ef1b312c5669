// SPDX-License-Identifier: MIT
//
// check.hpp - what the C++ tests need: a check that says where it failed, and a list of tests.
//
#ifndef TESTS_CPP_CHECK_HPP
#define TESTS_CPP_CHECK_HPP

#include <cstdio>
#include <cstdlib>
#include <exception>

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                                \
        }                                                                                \
    } while (0)

// Runs statement and checks that it throws a type whose object satisfies condition (over e).
#define CHECK_THROWS(statement, type, condition)                                                 \
    do {                                                                                         \
        bool thrown_ = false;                                                                    \
        try {                                                                                    \
            statement;                                                                           \
        } catch (const type &e) {                                                                \
            thrown_ = true;                                                                      \
            CHECK(condition);                                                                    \
        }                                                                                        \
        if (!thrown_) {                                                                          \
            std::fprintf(stderr, "%s:%d: nothing thrown: %s\n", __FILE__, __LINE__, #statement); \
            std::exit(1);                                                                        \
        }                                                                                        \
    } while (0)

struct named_test {
    const char *name;
    void (*run)();
};

template <unsigned long Count> int run_tests(const named_test (&tests)[Count])
{
    for (const named_test &test : tests) {
        try {
            test.run();
        } catch (const std::exception &e) {
            std::fprintf(stderr, "%s: exception: %s\n", test.name, e.what());
            return 1;
        }
    }
    std::printf("%lu tests passed\n", Count);
    return 0;
}

#endif
