/* SPDX-License-Identifier: MIT */
/*
 * cron.c - cron expressions: five fields into bits, and the next time that they name.
 *
 * The search goes over stretches of time in which the zone's clocks go evenly;
 * inside one, local time is a plain number. Where they do not:
 *  - times that were skipped run once, together, at the moment after the gap;
 *  - times that come twice run the first time;
 *  - unless the expression names every hour: then it follows the clock on the wall, skips what is
 *    skipped and repeats what is repeated, so that "every five minutes" goes on being that.
 * Any thread.
 */
#include "cron.h"

#include <string.h>
#include <strings.h>

#include <libperf/task.h>

#include "../base/alloc.h"
#include "../base/status.h"

enum { HOUR = 3600, DAY = 86400, ALL_HOURS = (1 << 24) - 1, TEXT_MAX = 255 };

static const int64_t LATEST_S = 221845392000; /* the year 9000 */
static const int64_t TEN_YEARS_S = (int64_t)3653 * DAY;

/* --------------------------------------------------------------------- parsing */

struct field {
    const char *name;
    int min, max;
    const char *names; /* three letters each, from the first value */
    int names_from;
};

static const struct field fields[] = {
    {"minute", 0, 59, NULL, 0},
    {"hour", 0, 23, NULL, 0},
    {"day of month", 1, 31, NULL, 0},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec", 1},
    {"day of week", 0, 7, "sunmontuewedthufrisat", 0},
};

/* What is wrong with a part of a field: text of len bytes. */
static int wrong(const struct field *f, const char *text, size_t len, const char *fix)
{
    return perf__fail(PERF_EINVAL, "cron: %s \"%.*s\" %s", f->name, (int)len, text, fix);
}

/* A number or a name at *at, before end. */
static int read_value(const struct field *f, const char **at, const char *end, int *value)
{
    const char *p = *at;
    int n = 0;
    while (p < end && *p >= '0' && *p <= '9' && n <= 99)
        n = n * 10 + (*p++ - '0');
    if (p == *at && f->names && end - p >= 3)
        for (int i = 0; f->names[3 * i] && p == *at; i++)
            if (!strncasecmp(p, f->names + 3 * i, 3)) {
                n = f->names_from + i;
                p += 3;
            }
    if (p == *at || n < f->min || n > f->max)
        return perf__fail(PERF_EINVAL, "cron: %s \"%.*s\" is not known; give %d to %d%s", f->name,
                          (int)(end - *at), *at, f->min, f->max,
                          f->names ? ", or the first three letters of a name" : "");
    *at = p;
    *value = n;
    return PERF_OK;
}

/* One of the parts between commas: "*", "5", "1-5", each of the ranges also with "/2". */
static int read_part(const struct field *f, const char *text, const char *end, uint64_t *bits)
{
    const char *p = text;
    int first = f->min, last = f->max, step = 1, rc;
    bool range = *p == '*';
    if (range) {
        p++;
    } else {
        if ((rc = read_value(f, &p, end, &first)))
            return rc;
        last = first;
        if (p < end && *p == '-') {
            p++;
            range = true;
            if ((rc = read_value(f, &p, end, &last)))
                return rc;
        }
    }
    if (last < first)
        return wrong(f, text, (size_t)(end - text), "goes backwards; write it as two ranges");
    if (p < end && *p == '/') {
        if (!range)
            return wrong(f, text, (size_t)(end - text),
                         "has a step without a range; write \"*/N\" or \"FROM-TO/N\"");
        for (step = 0, p++; p < end && *p >= '0' && *p <= '9' && step <= 99; p++)
            step = step * 10 + (*p - '0');
        if (step < 1 || step > f->max)
            return perf__fail(PERF_EINVAL, "cron: %s \"%.*s\" has a step that is not 1 to %d",
                              f->name, (int)(end - text), text, f->max);
    }
    if (p != end)
        return wrong(f, text, (size_t)(end - text),
                     "is not understood; give numbers, ranges \"1-5\", steps \"*/2\" and lists "
                     "\"1,3\"");
    for (int i = first; i <= last; i += step)
        *bits |= (uint64_t)1 << i;
    return PERF_OK;
}

static int read_field(const struct field *f, const char *text, size_t len, uint64_t *bits)
{
    const char *end = text + len;
    *bits = 0;
    for (const char *p = text;; p++) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *part_end = comma ? comma : end;
        if (p == part_end)
            return wrong(f, text, len,
                         "has an empty part; give a value before and after each comma");
        int rc = read_part(f, p, part_end, bits);
        if (rc || !comma)
            return rc;
        p = comma;
    }
}

static const char *expand(const char *text)
{
    static const struct {
        const char *name, *fields;
    } names[] = {
        {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
        {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
        {"@hourly", "0 * * * *"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcasecmp(text, names[i].name))
            return names[i].fields;
    return text;
}

int perf__cron_parse(const char *text, struct perf__cron *cron)
{
    uint64_t bits[5];
    bool star[5];
    if (!text || strlen(text) > TEXT_MAX)
        return perf__fail(PERF_EINVAL,
                          "cron: the expression is %s; give five fields such as "
                          "\"30 2 * * mon-fri\"",
                          text ? "longer than 255 bytes" : "NULL");
    const char *p = expand(text);
    if (*p == '@')
        return perf__fail(PERF_EINVAL,
                          "cron: \"%s\" is not known; give @hourly, @daily, @weekly, "
                          "@monthly, @yearly or five fields",
                          text);
    size_t n = 0;
    for (;; n++) {
        p += strspn(p, " \t");
        size_t len = strcspn(p, " \t");
        if (!len || n == 5)
            break;
        star[n] = *p == '*';
        int rc = read_field(&fields[n], p, len, &bits[n]);
        if (rc)
            return rc;
        p += len;
    }
    if (n != 5 || *p)
        return perf__fail(PERF_EINVAL,
                          "cron: \"%s\" has %s fields; give five: minute, hour, day of month, "
                          "month, day of week",
                          text, *p ? "more than five" : "fewer than five");
    *cron = (struct perf__cron){
        .minutes = bits[0],
        .hours = (uint32_t)bits[1],
        .days = (uint32_t)bits[2],
        .months = (uint16_t)bits[3],
        .weekdays = (uint8_t)((bits[4] | bits[4] >> 7) & 127), /* 7 is Sunday, too */
        .either_day = !star[2] && !star[4],
    };
    return PERF_OK;
}

/* -------------------------------------------------------------------- searching */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static bool day_matches(const struct perf__cron *c, int64_t days)
{
    int64_t year;
    int month, day;
    perf__date_of_days(days, &year, &month, &day);
    bool by_date = c->days >> day & 1;
    bool by_weekday = c->weekdays >> ((days % 7 + 7 + 4) % 7) & 1;
    return c->months >> month & 1 &&
           (c->either_day ? by_date || by_weekday : by_date && by_weekday);
}

/* The first matching local time in [from, until), whole minutes; INT64_MAX: none. */
static int64_t first_local(const struct perf__cron *c, int64_t from, int64_t until)
{
    from = floor_div(from + 59, 60) * 60;
    for (int64_t days = floor_div(from, DAY); days * DAY < until; days++) {
        if (!day_matches(c, days))
            continue;
        int64_t of_day = from > days * DAY ? from - days * DAY : 0;
        for (int64_t hour = of_day / HOUR; hour < 24; hour++) {
            int64_t minute = hour == of_day / HOUR ? of_day % HOUR / 60 : 0;
            uint64_t left = c->minutes >> minute;
            if (!(c->hours >> hour & 1) || !left)
                continue;
            int64_t found = days * DAY + hour * HOUR + (minute + __builtin_ctzll(left)) * 60;
            return found < until ? found : INT64_MAX;
        }
    }
    return INT64_MAX;
}

int perf__cron_after(const struct perf__cron *c, const struct perf__zone *zone, int64_t after_ms,
                     int64_t *next_ms)
{
    int64_t after = floor_div(after_ms, 1000), limit = after + TEN_YEARS_S;
    int rc = perf__check_range("after_ms", after_ms, 0, LATEST_S * 1000);
    if (rc)
        return rc;
    bool every_hour = c->hours == ALL_HOURS;
    struct perf__zone_span span = perf__zone_span_at(zone, after);
    int64_t from = after + 1; /* UTC */
    int64_t seen = INT64_MIN; /* local times before it have been */
    if (!every_hour && span.from_s != INT64_MIN)
        seen = span.from_s + perf__zone_span_at(zone, span.from_s - 1).offset_s;
    while (from <= limit) {
        int64_t end = span.until_s < limit ? span.until_s : limit + 1;
        int64_t local = from + span.offset_s;
        int64_t found = first_local(c, local > seen ? local : seen, end + span.offset_s);
        if (found != INT64_MAX) {
            *next_ms = (found - span.offset_s) * 1000;
            return PERF_OK;
        }
        if (end > limit)
            break;
        struct perf__zone_span next = perf__zone_span_at(zone, end);
        seen = every_hour ? INT64_MIN : end + span.offset_s;
        /* What the gap skipped, if anything, is due now. */
        if (!every_hour && next.offset_s > span.offset_s &&
            first_local(c, end + span.offset_s, end + next.offset_s) != INT64_MAX) {
            *next_ms = end * 1000;
            return PERF_OK;
        }
        span = next;
        from = end;
    }
    return PERF_MISS;
}

int perf_cron_next(const char *cron, const char *zone, int64_t after_ms, int64_t *next_ms)
{
    struct perf__cron c;
    struct perf__zone *z;
    if (!next_ms)
        return perf__fail(PERF_EINVAL, "perf_cron_next needs a place for the time");
    int rc = perf__cron_parse(cron, &c);
    if (rc || (rc = perf__zone_open(&perf__default_allocator, zone, &z)))
        return rc;
    rc = perf__cron_after(&c, z, after_ms, next_ms);
    perf__zone_free(&perf__default_allocator, z);
    return rc;
}
