/* SPDX-License-Identifier: MIT */
/* The timer wheel: everything comes out once, in time, whatever the clock does. */
#include "../../src/base/hash.h"
#include "../../src/cache/timer_wheel.h"
#include "test.h"

enum { MANY = 3000, STEP = (int)(sizeof(struct perf__entry) + sizeof(struct perf__extension)) / 8 };
#define TICK ((int64_t)1 << PERF__WHEEL_TICK_SHIFT)

static uint64_t arena[(size_t)(2 * MANY + 2) * STEP];
static int64_t due[2 * MANY + 2]; /* by number; 0: came out */

static struct perf__extension *extension(uint32_t number)
{
    return perf__entry_extension((void *)(arena + (size_t)number * STEP));
}

static void add(struct perf__timer_wheel *wheel, uint32_t number, int64_t at)
{
    due[number] = at;
    atomic_store(&extension(number)->dead_at, at);
    extension(number)->wheel_slot = 0;
    perf__wheel_add(wheel, number * STEP);
}

/* Takes out what has ended by now; the number of entries. */
static int advance(struct perf__timer_wheel *wheel, int64_t now)
{
    int count = 0;
    for (;;) {
        int64_t budget = 1000;
        uint32_t ref = perf__wheel_expired(wheel, now, &budget);
        cr_assert(budget >= 0);
        if (!ref && budget > 0)
            return count;
        if (!ref)
            continue;
        uint32_t number = ref / STEP;
        cr_assert(due[number] != 0, "%u came out twice", number);
        cr_assert(due[number] <= now, "%u came out early", number);
        due[number] = 0;
        count++;
    }
}

static void check_late(int64_t now)
{
    for (uint32_t i = 1; i <= MANY; i++)
        cr_assert(due[i] == 0 || due[i] >= now - 2 * TICK, "%u is late by %lld ms", i,
                  (long long)(now - due[i]));
}

Test(timer_wheel, everything_comes_out_once_and_in_time)
{
    struct perf__timer_wheel wheel;
    int64_t now = 1000000007;
    perf__wheel_init(&wheel, (unsigned char *)arena, now);
    int left = MANY;
    for (uint32_t i = 1; i <= MANY; i++) /* from a millisecond to four years */
        add(&wheel, i, now + 1 + (int64_t)(perf__mix64(i) >> (63 - perf__mix64(i + MANY) % 37)));
    for (int64_t step = 1; left && step < (int64_t)1 << 40; step += step / 8 + 1) {
        now += step;
        left -= advance(&wheel, now);
        check_late(now);
        cr_assert_eq(wheel.count, (uint64_t)left);
    }
    cr_assert_eq(left, 0);
}

Test(timer_wheel, small_steps_and_additions_on_the_way)
{
    struct perf__timer_wheel wheel;
    int64_t now = 64 * 63;
    perf__wheel_init(&wheel, (unsigned char *)arena, now);
    uint32_t added = 0;
    int out = 0;
    for (int i = 0; i < 20000; i++, now += 37) {
        if (added < MANY && i % 5 == 0) {
            added++;
            add(&wheel, added, now + (int64_t)(perf__mix64(added) % 600000));
        }
        out += advance(&wheel, now);
        if (i % 500 == 0)
            check_late(now);
    }
    out += advance(&wheel, now + 600000 + TICK);
    cr_assert_eq(out, (int)added);
}

Test(timer_wheel, removed_entries_stay_and_moved_ones_come_out)
{
    struct perf__timer_wheel wheel;
    perf__wheel_init(&wheel, (unsigned char *)arena, 0);
    for (uint32_t i = 1; i <= MANY; i++)
        add(&wheel, i, 1 + (int64_t)(perf__mix64(i) % 100000000));
    advance(&wheel, 300000); /* some slots have cascaded by now */
    int expected = 0;
    for (uint32_t i = 1; i <= MANY; i++) {
        if (!due[i])
            continue;
        if (i % 3 == 0) {
            perf__wheel_remove(&wheel, i * STEP);
            perf__wheel_remove(&wheel, i * STEP); /* twice does nothing */
            due[i] = 0;
        } else if (i % 3 == 1) {
            memcpy(extension(i + MANY), extension(i), sizeof(struct perf__extension));
            perf__wheel_move(&wheel, i * STEP, (i + MANY) * STEP);
            due[i + MANY] = due[i];
            due[i] = 0;
            memset(extension(i), 0xee, sizeof(struct perf__extension));
        }
        expected += i % 3 != 0;
    }
    cr_assert_eq(advance(&wheel, 100000000 + 2 * TICK), expected);
    cr_assert_eq(wheel.count, 0);
}

Test(timer_wheel, an_empty_wheel_turns_at_once_and_the_budget_holds)
{
    struct perf__timer_wheel wheel;
    perf__wheel_init(&wheel, (unsigned char *)arena, 0);
    int64_t budget = 10;
    cr_assert_eq(perf__wheel_expired(&wheel, (int64_t)1 << 45, &budget), 0);
    cr_assert(budget >= 8, "%lld", (long long)budget);
    add(&wheel, 1, ((int64_t)1 << 45) + 50000000);
    budget = 3;
    while (budget > 0)
        cr_assert_eq(perf__wheel_expired(&wheel, ((int64_t)1 << 45) + 40000000, &budget), 0);
    cr_assert_eq(budget, 0);
    cr_assert_eq(wheel.count, 1);
    cr_assert_eq(advance(&wheel, ((int64_t)1 << 45) + 50000000 + TICK), 1);
}
