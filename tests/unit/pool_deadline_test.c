/* SPDX-License-Identifier: MIT */
/* deadline.c: inheriting, leaving, and the text for another service. */
#include <libperf/resilience.h>
#include <pthread.h>

#include "seams.h"
#include "test.h"

Test(pool_deadline, an_inner_one_can_only_be_nearer)
{
    struct test_host th;
    perf_deadline first = PERF_DEADLINE_INIT, second = PERF_DEADLINE_INIT;
    test_host_init(&th);
    cr_assert_eq(perf_deadline_remaining_ms(), -1);
    cr_assert_eq(perf_deadline_enter(1000, &th.clock, &first), PERF_OK);
    cr_assert_eq(perf_deadline_remaining_ms(), 1000);
    test_host_advance(&th, 300);
    cr_assert_eq(perf_deadline_remaining_ms(), 700);

    perf_deadline_enter(5000, &th.clock, &second); /* no more than there is */
    cr_assert_eq(perf_deadline_remaining_ms(), 700);
    perf_deadline_leave(&second);
    perf_deadline_enter(-1, &th.clock, &second); /* no limit of its own */
    cr_assert_eq(perf_deadline_remaining_ms(), 700);
    perf_deadline_leave(&second);
    perf_deadline_enter(100, &th.clock, &second);
    cr_assert_eq(perf_deadline_remaining_ms(), 100);
    test_host_advance(&th, 250);
    cr_assert_eq(perf_deadline_remaining_ms(), 0);
    perf_deadline_leave(&second);
    cr_assert_eq(perf_deadline_remaining_ms(), 450);
    test_host_advance(&th, 451);
    cr_assert_eq(perf_deadline_remaining_ms(), 0);
    perf_deadline_leave(&first);
    cr_assert_eq(perf_deadline_remaining_ms(), -1);
}

Test(pool_deadline, two_clocks)
{
    struct test_host th;
    perf_deadline first = PERF_DEADLINE_INIT, second = PERF_DEADLINE_INIT;
    test_host_init(&th);
    perf_deadline_enter(3600000, NULL, &first); /* an hour of the system's */
    perf_deadline_enter(50, &th.clock, &second);
    cr_assert_eq(perf_deadline_remaining_ms(), 50);
    perf_deadline_leave(&second);
    int64_t left = perf_deadline_remaining_ms();
    cr_assert(left > 3500000 && left <= 3600000, "%d", (int)left);
    perf_deadline_leave(&first);
    cr_assert_eq(perf_deadline_remaining_ms(), -1);
}

static void *other_thread(void *arg)
{
    *(int64_t *)arg = perf_deadline_remaining_ms();
    return NULL;
}

Test(pool_deadline, belongs_to_its_thread)
{
    perf_deadline before = PERF_DEADLINE_INIT;
    int64_t theirs = 77;
    pthread_t thread;
    perf_deadline_enter(10000, NULL, &before);
    cr_assert_eq(pthread_create(&thread, NULL, other_thread, &theirs), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(theirs, -1);
    perf_deadline_leave(&before);
}

Test(pool_deadline, refuses_what_it_cannot_leave)
{
    perf_deadline zero = {0};
    cr_assert_eq(perf_deadline_enter(10, NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_deadline_enter(10, NULL, &zero), PERF_EINVAL);
    perf_deadline_leave(NULL);
    perf_deadline_leave(&zero);
    cr_assert_eq(perf_deadline_remaining_ms(), -1);
}

Test(pool_deadline, as_text_and_back)
{
    struct test_host th;
    perf_deadline before = PERF_DEADLINE_INIT;
    char text[21];
    int64_t ms = -5;
    test_host_init(&th);
    cr_assert_eq(perf_deadline_format(text, sizeof text), PERF_MISS);
    perf_deadline_enter(1234567, &th.clock, &before);
    cr_assert_eq(perf_deadline_format(text, 20), PERF_ETOOSMALL);
    cr_assert_eq(perf_deadline_format(NULL, 21), PERF_EINVAL);
    cr_assert_eq(perf_deadline_format(text, sizeof text), PERF_OK);
    cr_assert_str_eq(text, "1234567");
    cr_assert_eq(perf_deadline_parse(text, strlen(text), &ms), PERF_OK);
    cr_assert_eq(ms, 1234567);
    test_host_advance(&th, 1234567);
    cr_assert_eq(perf_deadline_format(text, sizeof text), PERF_OK);
    cr_assert_str_eq(text, "0");
    perf_deadline_leave(&before);
}

Test(pool_deadline, hostile_text)
{
    static const char *const bad[] = {
        "", " 1", "-1", "+1", "1.5", "0x10", "1 ", "86400001", "99999999999999999999999999"};
    int64_t ms = -5;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(perf_deadline_parse(bad[i], strlen(bad[i]), &ms), PERF_EPROTOCOL, "%s",
                     bad[i]);
    cr_assert_eq(perf_deadline_parse("1\0002", 3, &ms), PERF_EPROTOCOL);
    cr_assert_eq(ms, -5, "an error touches no result");
    cr_assert_eq(perf_deadline_parse("86400000", 8, &ms), PERF_OK);
    cr_assert_eq(ms, 86400000);
    cr_assert_eq(perf_deadline_parse(NULL, 0, &ms), PERF_EINVAL);
    cr_assert_eq(perf_deadline_parse("1", 1, NULL), PERF_EINVAL);
}
