/* SPDX-License-Identifier: MIT */
/* budget.h - the budget from inside: the same without an error text. Any thread. */
#ifndef PERF_POOL_BUDGET_H
#define PERF_POOL_BUDGET_H

#include "part.h"

struct perf_budget {
    struct perf__part part;
    int64_t capacity;
    _Atomic int64_t available;
};

bool perf__budget_take(perf_budget *budget, int64_t amount);
void perf__budget_give(perf_budget *budget, int64_t amount);

#endif
