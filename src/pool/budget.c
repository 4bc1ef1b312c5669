/* SPDX-License-Identifier: MIT */
/*
 * budget.c - what retries and hedges may cost together. One atomic number, from
 * 0 to the capacity; nobody ever sees it outside of that. Any thread, no lock.
 */
#include "budget.h"

#include "../base/status.h"

int perf_budget_open(int64_t capacity, const perf_host *host, perf_budget **out)
{
    perf_budget *budget;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the budget");
    if ((rc = perf__option("capacity", &capacity, 500, 1, INT64_C(1000000000000))) ||
        (rc = perf__part_open("a budget", host, sizeof *budget, 1, &budget)))
        return rc;
    budget->capacity = capacity;
    atomic_init(&budget->available, capacity);
    *out = budget;
    return PERF_OK;
}

int perf_budget_close(perf_budget *budget)
{
    if (budget)
        perf__part_free(&budget->part);
    return PERF_OK;
}

bool perf__budget_take(perf_budget *budget, int64_t amount)
{
    int64_t have = atomic_load_explicit(&budget->available, memory_order_relaxed);
    do {
        if (amount > have)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&budget->available, &have, have - amount,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void perf__budget_give(perf_budget *budget, int64_t amount)
{
    int64_t have = atomic_load_explicit(&budget->available, memory_order_relaxed), next;
    do {
        if (have == budget->capacity) /* the usual case writes nothing */
            return;
        next = amount > budget->capacity - have ? budget->capacity : have + amount;
    } while (!atomic_compare_exchange_weak_explicit(&budget->available, &have, next,
                                                    memory_order_relaxed, memory_order_relaxed));
}

int perf_budget_take(perf_budget *budget, int64_t amount)
{
    int rc;
    if ((rc = perf__part_check(budget ? &budget->part : NULL, "budget")) ||
        (rc = perf__check_range("amount", amount, 1, INT64_MAX)))
        return rc;
    if (!perf__budget_take(budget, amount))
        return perf__fail(PERF_EREJECTED,
                          "the budget has less than %lld left; successes fill it again",
                          (long long)amount);
    return PERF_OK;
}

void perf_budget_give(perf_budget *budget, int64_t amount)
{
    if (budget && perf__part_usable(&budget->part) && amount > 0)
        perf__budget_give(budget, amount);
}

int64_t perf_budget_available(const perf_budget *budget)
{
    return budget ? atomic_load_explicit(&budget->available, memory_order_relaxed) : 0;
}
