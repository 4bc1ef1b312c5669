/* SPDX-License-Identifier: MIT */
/*
 * tasks_schedule.c - tasks that are submitted by the clock.
 *
 * Every process that keeps a schedule submits each of its times under the same
 * id, "NAME:20261129T023000Z": the first is taken, the others are PERF_EEXISTS. Nothing
 * else is agreed upon. Fired by the keeper.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/log.h"
#include "../base/status.h"
#include "tasks_impl.h"

enum {
    NAME_MAX_LEN = 40,    /* with the time it is an id */
    KEEP_MIN_MS = 3600000 /* an id is known at least so long, for processes that are late */
};

struct perf__schedule {
    struct perf__schedule *next;
    const char *name, *kind;
    struct perf__cron cron;
    struct perf__zone *zone;
    perf_submit_options submit;
    perf_bytes payload;
    int64_t due_ms;    /* the time that is next, and part of an id */
    int64_t try_ms;    /* when to submit it: then, or after a failure later */
    uint32_t failures; /* of this time */
    bool busy;         /* the keeper is submitting it */
    bool gone;         /* ended meanwhile */
    char strings[];
};

static void free_schedule(perf_tasks *t, struct perf__schedule *s)
{
    perf__zone_free(&t->host.allocator, s->zone);
    perf__free(&t->host.allocator, s);
}

void perf__tasks_free_schedules(perf_tasks *t)
{
    while (t->schedules) {
        struct perf__schedule *s = t->schedules;
        t->schedules = s->next;
        free_schedule(t, s);
    }
}

/* Takes the schedule of this name out. With the mutex. */
static bool take_out(perf_tasks *t, const char *name)
{
    struct perf__schedule **at = &t->schedules;
    while (*at && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    struct perf__schedule *s = *at;
    if (!s)
        return false;
    *at = s->next;
    if (s->busy)
        s->gone = true; /* the keeper frees it */
    else
        free_schedule(t, s);
    return true;
}

/* A copy of everything that perf_tasks_schedule was given, in one block. */
static struct perf__schedule *copy(perf_tasks *t, const char *name, const char *kind,
                                   perf_bytes payload, const perf_submit_options *o)
{
    const char *const given[] = {name,          kind,         o->user,  o->queue,
                                 o->unique_key, o->limit_key, o->after, o->batch};
    enum { GIVEN = sizeof given / sizeof *given };
    const char *own[GIVEN];
    size_t size = payload.len;
    for (size_t i = 0; i < GIVEN; i++)
        size += strlen(given[i]) + 1;
    struct perf__schedule *s = perf__calloc(&t->host.allocator, 1, sizeof *s + size);
    if (!s)
        return NULL;
    char *p = s->strings;
    if (payload.len)
        memcpy(p, payload.data, payload.len);
    s->payload = (perf_bytes){p, payload.len};
    p += payload.len;
    for (size_t i = 0; i < GIVEN; i++) {
        size_t len = strlen(given[i]) + 1;
        own[i] = memcpy(p, given[i], len);
        p += len;
    }
    s->name = own[0];
    s->kind = own[1];
    s->submit = *o;
    s->submit.user = own[2];
    s->submit.queue = own[3];
    s->submit.unique_key = own[4];
    s->submit.limit_key = own[5];
    s->submit.after = own[6];
    s->submit.batch = own[7];
    if (s->submit.keep_ms < KEEP_MIN_MS)
        s->submit.keep_ms = KEEP_MIN_MS;
    return s;
}

int perf_tasks_schedule(perf_tasks *t, const char *name, const char *cron, const char *zone,
                        const char *kind, const void *payload, size_t len,
                        const perf_submit_options *options)
{
    perf_submit_options own;
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__check_name("name", name, NAME_MAX_LEN, "._-:")) ||
        (rc = perf__check_kind(kind)) || (rc = perf__submit_options_take(t, options, &own)))
        return rc;
    if (own.id || own.at_ms || own.transaction)
        return perf__fail(PERF_EINVAL,
                          "%s is set; a schedule gives its tasks ids and times of its "
                          "own, outside of transactions",
                          own.id      ? "id"
                          : own.at_ms ? "at_ms"
                                      : "transaction");
    if (len > t->options.max_payload || (len && !payload))
        return perf__fail(len && !payload ? PERF_EINVAL : PERF_ETOOBIG,
                          "the payload is %zu bytes long%s; give %llu at most", len,
                          payload ? "" : " and NULL", (unsigned long long)t->options.max_payload);
    struct perf__schedule *s = copy(t, name, kind, (perf_bytes){payload, len}, &own);
    if (!s)
        return perf__fail_nomem("a schedule");
    rc = perf__cron_parse(cron, &s->cron);
    if (!rc)
        rc = perf__zone_open(&t->host.allocator, zone, &s->zone);
    if (!rc)
        rc = perf__cron_after(&s->cron, s->zone, perf__realtime_ms(&t->host.clock), &s->due_ms);
    if (rc == PERF_MISS)
        rc = perf__fail(PERF_EINVAL,
                        "cron: \"%s\" names no time in the next ten years; give a "
                        "date that there is",
                        cron);
    s->try_ms = s->due_ms;
    pthread_mutex_lock(&t->mutex);
    if (!rc)
        rc = perf__tasks_keep_start(t);
    if (!rc) {
        (void)take_out(t, name);
        s->next = t->schedules;
        t->schedules = s;
        pthread_cond_signal(&t->keep);
    }
    pthread_mutex_unlock(&t->mutex);
    if (rc)
        free_schedule(t, s);
    return rc;
}

int perf_tasks_unschedule(perf_tasks *t, const char *name)
{
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__check_name("name", name, NAME_MAX_LEN, "._-:")))
        return rc;
    pthread_mutex_lock(&t->mutex);
    bool found = take_out(t, name);
    pthread_mutex_unlock(&t->mutex);
    return found ? PERF_OK : PERF_MISS;
}

/* ----------------------------------------------------------------------- firing */

static char *put_number(char *p, int64_t n, int digits)
{
    for (int i = digits; i-- > 0; n /= 10)
        p[i] = (char)('0' + n % 10);
    return p + digits;
}

/* "NAME:20261129T023000Z" */
static void make_id(const struct perf__schedule *s, char *text)
{
    int64_t seconds = s->due_ms / 1000, year;
    int month, day;
    size_t len = strlen(s->name);
    perf__date_of_days(seconds / 86400, &year, &month, &day);
    memcpy(text, s->name, len);
    char *p = text + len;
    *p++ = ':';
    p = put_number(p, year, 4);
    p = put_number(p, month, 2);
    p = put_number(p, day, 2);
    *p++ = 'T';
    p = put_number(p, seconds / 3600 % 24, 2);
    p = put_number(p, seconds / 60 % 60, 2);
    p = put_number(p, seconds % 60, 2);
    memcpy(p, "Z", 2);
}

static bool may_pass(int rc)
{
    return rc == PERF_EUNAVAILABLE || rc == PERF_ETIMEDOUT || rc == PERF_EIO || rc == PERF_EBUSY ||
           rc == PERF_ENOMEM || rc == PERF_EREJECTED || rc == PERF_ETHROTTLED;
}

/* What is next after a submission that returned rc. With the mutex. */
static void go_on(perf_tasks *t, struct perf__schedule *s, int rc, int64_t now_ms)
{
    int64_t next = INT64_MAX; /* for ever: no such date within ten years */
    if (rc && rc != PERF_EEXISTS) {
        s->failures++;
        if (may_pass(rc) &&
            (perf__cron_after(&s->cron, s->zone, s->due_ms, &next) || next > now_ms)) {
            s->try_ms = now_ms + perf__tasks_back_off_ms(s->failures);
            return;
        }
        perf__log(&t->host.log, PERF_LOG_ERROR, "task",
                  "schedule \"%s\": a task could not be submitted (%s) and is left out", s->name,
                  perf_strstatus(rc));
    }
    next = INT64_MAX;
    int64_t from = now_ms > s->due_ms ? now_ms : s->due_ms;
    (void)perf__cron_after(&s->cron, s->zone, from, &next);
    s->due_ms = s->try_ms = next;
    s->failures = 0;
}

int64_t perf__tasks_fire(perf_tasks *t, int64_t now_ms)
{
    pthread_mutex_lock(&t->mutex);
    for (;;) {
        int64_t first = INT64_MAX;
        struct perf__schedule *s = NULL;
        for (struct perf__schedule *each = t->schedules; each; each = each->next)
            if (each->try_ms < first) {
                first = each->try_ms;
                s = each;
            }
        if (!s || first > now_ms || t->closing) {
            pthread_mutex_unlock(&t->mutex);
            return first;
        }
        char id[PERF__TASK_ID_MAX + 8];
        make_id(s, id);
        s->submit.id = id;
        s->busy = true;
        pthread_mutex_unlock(&t->mutex);
        int rc = perf_tasks_submit(t, s->kind, s->payload.data, s->payload.len, &s->submit, NULL);
        pthread_mutex_lock(&t->mutex);
        s->submit.id = NULL;
        s->busy = false;
        if (s->gone)
            free_schedule(t, s);
        else
            go_on(t, s, rc, now_ms);
    }
}
