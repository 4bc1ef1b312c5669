/* SPDX-License-Identifier: MIT */
/*
 * tasks_check.c - names, texts and options of submissions, as strangers may give
 * them. Any thread.
 */
#include <string.h>

#include "../base/bytes.h"
#include "../base/status.h"
#include "tasks_impl.h"

enum { TEXT_MAX = 128, AFTER_MAX = 64 * (PERF__TASK_ID_MAX + 1) };

static const int64_t CENTURY_MS = (int64_t)100 * 366 * 86400000;
static const int64_t YEAR_9000_MS = 221845392000000;

static bool is_name_char(char c, const char *also)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr(also, c));
}

int perf__check_name(const char *field, const char *text, size_t max, const char *allowed)
{
    size_t len = text ? strnlen(text, max + 1) : 0;
    if (!text)
        return perf__fail(PERF_EINVAL, "%s is NULL; give a name", field);
    int rc = perf__check_len(field, len, 1, max);
    if (rc)
        return rc;
    for (size_t i = 0; i < len; i++)
        if (!is_name_char(text[i], allowed))
            return perf__fail(PERF_EINVAL,
                              "%s has a character at byte %zu that is no letter, digit or one of "
                              "\"%s\"; give a name of these",
                              field, i, allowed);
    return PERF_OK;
}

int perf__check_kind(const char *kind)
{
    return perf__check_name("kind", kind, PERF__KIND_MAX, "._-:/");
}

int perf__check_queue(const char *queue)
{
    return perf__check_name("queue", queue, PERF__KIND_MAX, "._-:/");
}

int perf__check_task_id(const char *id)
{
    return perf__check_name("id", id, PERF__TASK_ID_MAX, "._-:");
}

/* The length of the UTF-8 character at p (RFC 3629), of up to left bytes; 0: it is none. */
static size_t character(const unsigned char *p, size_t left)
{
    if (*p < 0x80)
        return *p >= 0x20 && *p != 0x7f; /* no control characters: these texts are shown */
    size_t len = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
    if (*p < 0xc2 || *p > 0xf4 || left < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool bad = (*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
               (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : len;
}

int perf__check_text(const char *field, const char *text, size_t max)
{
    size_t len = strnlen(text, max + 1);
    int rc = perf__check_len(field, len, 0, max);
    for (size_t i = 0, step; !rc && i < len; i += step) {
        step = character((const unsigned char *)text + i, len - i);
        if (!step)
            return perf__fail(PERF_EINVAL,
                              "%s is not UTF-8 without control characters at byte %zu; give it so",
                              field, i);
    }
    return rc;
}

void perf__copy_text(char *to, size_t size, const char *from)
{
    size_t n = 0, len = strlen(from);
    for (size_t i = 0; i < len;) {
        size_t step = character((const unsigned char *)from + i, len - i);
        if (n + (step ? step : 1) >= size)
            break;
        if (step)
            memcpy(to + n, from + i, step);
        else
            to[n] = ' ';
        n += step ? step : 1;
        i += step ? step : 1;
    }
    to[n] = 0;
}

/* Ids between commas. */
static int check_after(const char *after)
{
    size_t len = strnlen(after, AFTER_MAX + 1);
    int rc = perf__check_len("after", len, 0, AFTER_MAX);
    for (const char *p = after; !rc && len; p++) {
        char id[PERF__TASK_ID_MAX + 2];
        size_t n = strcspn(p, ",");
        size_t kept = n < sizeof id - 1 ? n : sizeof id - 1;
        memcpy(id, p, kept);
        id[kept] = 0;
        if (perf__check_name("after", id, PERF__TASK_ID_MAX, "._-:"))
            return perf__fail(
                PERF_EINVAL, "after has \"%s\" where an id should be; give ids separated by commas",
                id);
        p += n;
        if (!*p)
            break;
    }
    return rc;
}

static void no_null(const char **text)
{
    if (!*text)
        *text = "";
}

int perf__submit_options_take(perf_tasks *t, const perf_submit_options *given,
                              perf_submit_options *o)
{
    int rc = perf__options_take("perf_submit_options", given, o, sizeof *o);
    if (rc)
        return rc;
    no_null(&o->user);
    no_null(&o->unique_key);
    no_null(&o->limit_key);
    no_null(&o->after);
    no_null(&o->batch);
    if (!o->queue || !*o->queue)
        o->queue = "default";
    if (!o->keep_ms)
        o->keep_ms = t->options.keep_ms;
    if ((rc = perf__check_text("user", o->user, TEXT_MAX)) || (rc = perf__check_queue(o->queue)) ||
        (o->id && (rc = perf__check_task_id(o->id))) ||
        (rc = perf__check_range("priority", o->priority, -9, 9)) ||
        (rc = perf__check_range("delay_ms", o->delay_ms, 0, CENTURY_MS)) ||
        (rc = perf__check_range("at_ms", o->at_ms, 0, YEAR_9000_MS)) ||
        (rc = perf__check_range("max_attempts", o->max_attempts, -1, INT32_MAX)) ||
        (rc = perf__check_range("timeout_ms", o->timeout_ms, 0, CENTURY_MS)) ||
        (rc = perf__check_range("deadline_ms", o->deadline_ms, 0, CENTURY_MS)) ||
        (rc = perf__check_range("keep_ms", o->keep_ms, 1, CENTURY_MS)) ||
        (rc = perf__check_range("version", o->version, 0, INT32_MAX)) ||
        (rc = perf__check_text("unique_key", o->unique_key, TEXT_MAX)) ||
        (rc = perf__check_range("unique_ms", o->unique_ms, 0, CENTURY_MS)) ||
        (rc = perf__check_text("limit_key", o->limit_key, TEXT_MAX)) ||
        (rc = perf__check_range("limit", o->limit, 0, INT32_MAX)) || (rc = check_after(o->after)) ||
        (rc = perf__check_range("after_any_end", o->after_any_end, 0, 1)) ||
        (rc = perf__check_text("batch", o->batch, TEXT_MAX)))
        return rc;
    if (o->unique_ms && !*o->unique_key)
        return perf__fail(PERF_EINVAL, "unique_ms is %lld without a unique_key; give both",
                          (long long)o->unique_ms);
    if (o->limit && !*o->limit_key)
        return perf__fail(PERF_EINVAL, "limit is %lld without a limit_key; give both",
                          (long long)o->limit);
    if (o->after_any_end && !*o->after)
        return perf__fail(PERF_EINVAL, "after_any_end is 1 without ids in after; give both");
    if (*o->limit_key && !o->limit)
        o->limit = 1;
    return PERF_OK;
}
