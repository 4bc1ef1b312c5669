/* SPDX-License-Identifier: MIT */
/*
 * tasks_id.c - ids of tasks: 48 bits of time and 80 of chance, as 26 characters.
 *
 * The form of ULIDs (Crockford's base 32): ids of later milliseconds sort later,
 * and two processes that submit in the same one differ by chance. The kernel's
 * random bytes are fetched for 64 ids at a time. Any thread.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "../base/clock.h"
#include "tasks_impl.h"

enum { CHANCE = 10, LENGTH = 26 };

static void fetch_random(perf_tasks *t)
{
    size_t got = 0;
    while (got < sizeof t->random) {
        ssize_t n = getrandom(t->random + got, sizeof t->random - got, 0);
        if (n > 0)
            got += (size_t)n;
        else if (errno != EINTR)
            break; /* no such call in this kernel or sandbox */
    }
    while (got < sizeof t->random) {
        struct perf__hash_key key = perf__hash_random_key();
        size_t n = sizeof key < sizeof t->random - got ? sizeof key : sizeof t->random - got;
        memcpy(t->random + got, &key, n);
        got += n;
    }
    t->random_left = sizeof t->random;
}

void perf__task_id_make(perf_tasks *t, char *text)
{
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    uint8_t chance[CHANCE];
    uint64_t time = (uint64_t)perf__realtime_coarse_ms(&t->host.clock) & (((uint64_t)1 << 48) - 1);
    pthread_mutex_lock(&t->id_mutex);
    if (!t->random_left)
        fetch_random(t);
    t->random_left -= CHANCE;
    memcpy(chance, t->random + t->random_left, CHANCE);
    pthread_mutex_unlock(&t->id_mutex);
    for (int i = 9; i >= 0; i--, time >>= 5)
        text[i] = digits[time & 31];
    uint64_t bits = 0;
    int have = 0, at = 10;
    for (int i = 0; i < CHANCE; i++) {
        bits = bits << 8 | chance[i];
        for (have += 8; have >= 5; have -= 5)
            text[at++] = digits[bits >> (have - 5) & 31];
    }
    text[LENGTH] = 0;
}
