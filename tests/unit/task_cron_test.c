/* SPDX-License-Identifier: MIT */
/* cron.c and zone.c: known instants, the C library's opinion of zones, and a walk minute by minute
 * as the other opinion of when an expression is due. */
#include "../../src/task/cron.h"

#include <libperf/task.h>
#include <time.h>

#include "../../src/base/alloc.h"
#include "../../src/base/hash.h"
#include "seams.h"
#include "test.h"

/* "2026-03-29T01:30:00Z" */
static int64_t at(const char *text)
{
    struct tm tm = {0};
    cr_assert_eq(sscanf(text, "%d-%d-%dT%d:%d:%d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
                        &tm.tm_hour, &tm.tm_min, &tm.tm_sec),
                 6);
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return (int64_t)timegm(&tm) * 1000;
}

static void next_is(const char *cron, const char *zone, const char *after, const char *expected)
{
    int64_t next = 0;
    int rc = perf_cron_next(cron, zone, at(after), &next);
    cr_assert_eq(rc, PERF_OK, "%s: %s", cron, perf_last_error());
    char text[32];
    time_t t = (time_t)(next / 1000);
    struct tm tm;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
    cr_assert_str_eq(text, expected, "%s in %s after %s: %s instead of %s", cron,
                     zone ? zone : "UTC", after, text, expected);
}

Test(cron, fields_lists_ranges_steps_and_names)
{
    next_is("* * * * *", NULL, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
    next_is("* * * * *", "UTC", "2026-01-01T00:00:59Z", "2026-01-01T00:01:00Z");
    next_is("30 2 * * *", NULL, "2026-01-01T02:30:00Z", "2026-01-02T02:30:00Z");
    next_is("*/15 9-17 * * mon-fri", NULL, "2026-01-02T17:45:00Z", "2026-01-05T09:00:00Z");
    next_is("0,20,40 * * * *", NULL, "2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z");
    next_is("10-20/5 0 * * *", NULL, "2026-01-01T00:10:00Z", "2026-01-01T00:15:00Z");
    next_is("0 0 1 JAN,jul *", NULL, "2026-01-01T00:00:00Z", "2026-07-01T00:00:00Z");
    next_is("0 0 * * 7", NULL, "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
    next_is("0 0 * * 0", NULL, "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
    next_is("0 0 * * sat-7", NULL, "2026-01-04T00:00:00Z", "2026-01-10T00:00:00Z");
    next_is("0 0 29 2 *", NULL, "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
    next_is("\t0   0 31 * * ", NULL, "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z");
    next_is("@hourly", NULL, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
    next_is("@daily", NULL, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    next_is("@midnight", NULL, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    next_is("@weekly", NULL, "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
    next_is("@monthly", NULL, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    next_is("@yearly", NULL, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
    next_is("@annually", NULL, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
}

Test(cron, either_day_when_both_are_given)
{
    /* The 13th, or a Friday. */
    next_is("0 0 13 * fri", NULL, "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z");
    next_is("0 0 13 * fri", NULL, "2026-01-13T00:00:00Z", "2026-01-16T00:00:00Z");
    /* One of them begins with a star: both must agree. */
    next_is("0 0 */2 * fri", NULL, "2026-01-01T00:00:00Z", "2026-01-09T00:00:00Z");
    next_is("0 0 13 * */5", NULL, "2026-01-01T00:00:00Z", "2026-02-13T00:00:00Z");
}

Test(cron, skipped_times_run_once_after_the_gap)
{
    /* 02:00 to 03:00 is not there. */
    next_is("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z");
    next_is("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z");
    next_is("*/20 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z");
    next_is("*/20 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z");
    next_is("0 2 * * *", "America/New_York", "2026-03-08T05:00:00Z", "2026-03-08T07:00:00Z");
    /* Half an hour: 02:00 to 02:30. */
    next_is("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z");
    next_is("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z");
    /* A day that Samoa did not have. */
    next_is("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", "2011-12-30T10:00:00Z");
}

Test(cron, repeated_times_run_the_first_time)
{
    next_is("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z");
    next_is("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z");
    next_is("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-26T01:30:00Z");
    next_is("30 1 * * *", "America/New_York", "2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z");
    next_is("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z");
}

Test(cron, every_hour_follows_the_clock_on_the_wall)
{
    next_is("30 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z");
    next_is("30 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z");
    next_is("*/5 * * * *", "Europe/Berlin", "2026-10-25T00:55:00Z", "2026-10-25T01:00:00Z");
    next_is("0 * * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z");
}

Test(cron, rules_go_on_after_the_last_change)
{
    next_is("30 2 * * *", "Europe/Berlin", "2099-03-28T12:00:00Z", "2099-03-29T01:00:00Z");
    next_is("0 12 * 7 *", "America/New_York", "2150-06-30T12:00:00Z", "2150-07-01T16:00:00Z");
    next_is("0 12 * 7 *", "Asia/Kathmandu", "2150-06-30T12:00:00Z", "2150-07-01T06:15:00Z");
}

Test(cron, errors_name_field_value_and_fix)
{
    static const char *const wrong[][2] = {
        {"61 * * * *", "minute \"61\" is not known; give 0 to 59"},
        {"* 24 * * *", "hour \"24\" is not known; give 0 to 23"},
        {"* * 0 * *", "day of month \"0\" is not known; give 1 to 31"},
        {"* * * 13 *", "month \"13\" is not known; give 1 to 12, or the first three letters"},
        {"* * * * 8", "day of week \"8\" is not known; give 0 to 7"},
        {"* * * foo *", "month \"foo\" is not known"},
        {"5-1 * * * *", "minute \"5-1\" goes backwards; write it as two ranges"},
        {"5/2 * * * *", "minute \"5/2\" has a step without a range"},
        {"*/0 * * * *", "minute \"*/0\" has a step that is not 1 to 59"},
        {"*/60 * * * *", "minute \"*/60\" has a step that is not 1 to 59"},
        {"*/ * * * *", "has a step that is not"},
        {"1,,2 * * * *", "minute \"1,,2\" has an empty part"},
        {", * * * *", "has an empty part"},
        {"1, * * * *", "has an empty part"},
        {"** * * * *", "minute \"**\" is not understood"},
        {"1x * * * *", "minute \"1x\" is not understood"},
        {"99999999999999999999 * * * *", "is not known"},
        {"* * * *", "fewer than five fields"},
        {"", "fewer than five fields"},
        {"* * * * * *", "more than five fields"},
        {"@reboot", "\"@reboot\" is not known; give @hourly"},
    };
    int64_t next = 7;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(perf_cron_next(wrong[i][0], NULL, 0, &next), PERF_EINVAL, "%s", wrong[i][0]);
        cr_assert(strstr(perf_last_error(), wrong[i][1]), "%s: %s", wrong[i][0], perf_last_error());
    }
    cr_assert_eq(perf_cron_next(NULL, NULL, 0, &next), PERF_EINVAL);
    cr_assert_eq(perf_cron_next("* * * * *", NULL, -1, &next), PERF_EINVAL);
    cr_assert_eq(perf_cron_next("* * * * *", NULL, 0, NULL), PERF_EINVAL);
    cr_assert_eq(perf_cron_next("0 0 30 2 *", NULL, 0, &next), PERF_MISS);
    cr_assert_eq(next, 7);
}

Test(cron, zones_that_are_none)
{
    static const char *const wrong[] = {
        "/etc/passwd",
        "../../../etc/passwd",
        "Europe/../../passwd",
        "Europe/",
        "Europe//Berlin",
        ".hidden",
        "Europe/Atlantis",
        "Europe",
        "a b",
        "Europe/Ber\nlin",
    };
    int64_t next;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(perf_cron_next("* * * * *", wrong[i], 0, &next), PERF_EINVAL, "%s", wrong[i]);
        cr_assert(strstr(perf_last_error(), "time zone \""), "%s", perf_last_error());
    }
}

/* ------------------------------------------------------------- other opinions */

static const char *const zones[] = {
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Europe/Dublin",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Asia/Gaza",
    "America/St_Johns",
    "Antarctica/Troll",
    "Pacific/Chatham",
    "Africa/Monrovia",
    "EST5EDT",
};
enum { ZONES = sizeof zones / sizeof *zones };

static struct perf__zone *open_zone(const char *name)
{
    struct perf__zone *zone;
    cr_assert_eq(perf__zone_open(&perf__default_allocator, name, &zone), PERF_OK, "%s",
                 perf_last_error());
    return zone;
}

static uint64_t rolls; /* the same numbers in every run */
static uint64_t roll(uint64_t sides)
{
    return perf__mix64(++rolls * 0x9e3779b97f4a7c15u) % sides;
}

/* The C library reads the same files by other code. */
Test(cron, zones_agree_with_the_c_library)
{
    for (size_t z = 0; z < ZONES; z++) {
        struct perf__zone *zone = open_zone(zones[z]);
        setenv("TZ", zones[z], 1);
        tzset();
        for (int i = 0; i < 20000; i++) {
            time_t t = (time_t)roll((uint64_t)86400 * 366 * 130); /* 1970 to 2100 */
            struct tm tm;
            localtime_r(&t, &tm);
            struct perf__zone_span span = perf__zone_span_at(zone, t);
            cr_assert_eq(span.offset_s, tm.tm_gmtoff, "%s at %lld: %lld, not %ld", zones[z],
                         (long long)t, (long long)span.offset_s, tm.tm_gmtoff);
            cr_assert(span.from_s <= t && t < span.until_s);
            /* It holds to the ends of the span, and the next one begins there. */
            if (span.until_s != INT64_MAX) {
                time_t last = (time_t)(span.until_s - 1);
                localtime_r(&last, &tm);
                cr_assert_eq(span.offset_s, tm.tm_gmtoff);
                cr_assert_eq(perf__zone_span_at(zone, span.until_s).from_s, span.until_s);
            }
        }
        perf__zone_free(&perf__default_allocator, zone);
    }
    unsetenv("TZ");
    tzset();
}

static void roll_field(char *text, size_t size, int min, int max)
{
    int a = min + (int)roll((uint64_t)(max - min + 1)),
        b = min + (int)roll((uint64_t)(max - min + 1));
    switch (roll(6)) {
    case 0:
    case 1:
        snprintf(text, size, "*");
        break;
    case 2:
        snprintf(text, size, "%d", a);
        break;
    case 3:
        snprintf(text, size, "%d,%d", a, b);
        break;
    case 4:
        snprintf(text, size, "%d-%d", a < b ? a : b, a < b ? b : a);
        break;
    default:
        snprintf(text, size, "*/%d", 1 + (int)roll((uint64_t)max));
    }
}

static bool wall_matches(const struct perf__cron *c, int64_t local)
{
    time_t t = (time_t)local;
    struct tm tm;
    gmtime_r(&t, &tm);
    bool date = c->days >> tm.tm_mday & 1, weekday = c->weekdays >> tm.tm_wday & 1;
    return c->minutes >> tm.tm_min & 1 && c->hours >> tm.tm_hour & 1 &&
           c->months >> (tm.tm_mon + 1) & 1 && (c->either_day ? date || weekday : date && weekday);
}

/* Walks by minutes: what the man page says, word by word. */
static int64_t walk(const struct perf__cron *c, const struct perf__zone *zone, int64_t after_s,
                    int64_t minutes)
{
    bool every_hour = c->hours == (1 << 24) - 1;
    int64_t t = (after_s / 60 + 1) * 60;
    for (int64_t i = 0; i < minutes; i++, t += 60) {
        int64_t offset = perf__zone_span_at(zone, t).offset_s;
        int64_t before = perf__zone_span_at(zone, t - 60).offset_s;
        bool first = true;
        if (wall_matches(c, t + offset)) {
            for (int64_t back = 60; back <= 4 * 3600 && first && !every_hour; back += 60)
                first = t - back + perf__zone_span_at(zone, t - back).offset_s != t + offset;
            if (first)
                return t;
        }
        for (int64_t skipped = t + before; !every_hour && skipped < t + offset; skipped += 60)
            if (wall_matches(c, skipped))
                return t;
    }
    return -1;
}

Test(cron, agrees_with_a_walk_by_minutes)
{
    int found = 0;
    for (int i = 0; i < 6000; i++) {
        char text[160], f[5][24];
        static const int max[5] = {59, 23, 31, 12, 7};
        for (int k = 0; k < 5; k++)
            roll_field(f[k], sizeof f[k], k == 2 || k == 3, max[k]);
        if (i % 2) /* otherwise most are months away */
            strcpy(f[3], "*");
        snprintf(text, sizeof text, "%s %s %s %s %s", f[0], f[1], f[2], f[3], f[4]);
        struct perf__cron cron;
        cr_assert_eq(perf__cron_parse(text, &cron), PERF_OK, "%s", perf_last_error());
        const char *name = zones[i % ZONES];
        struct perf__zone *zone = open_zone(name);
        /* From 1973, after Monrovia's last odd second; near a change of the clocks half of the
         * time. */
        int64_t after = (int64_t)86400 * 366 * 3 + (int64_t)roll((uint64_t)86400 * 365 * 100);
        struct perf__zone_span span = perf__zone_span_at(zone, after);
        if (i % 4 < 2 && span.until_s != INT64_MAX)
            after = span.until_s - (int64_t)roll(8 * 3600) + 3 * 3600;
        int64_t expected = walk(&cron, zone, after, 3000), next = -1;
        int rc = perf__cron_after(&cron, zone, after * 1000, &next);
        cr_assert(rc == PERF_OK || rc == PERF_MISS, "%s", perf_last_error());
        if (expected >= 0) {
            found++;
            cr_assert_eq(next, expected * 1000, "%s in %s after %lld: %lld, not %lld", text, name,
                         (long long)after, (long long)next / 1000, (long long)expected);
        } else {
            cr_assert(rc == PERF_MISS || next > (after + 2998 * 60) * 1000,
                      "%s in %s after %lld: %lld is not due", text, name, (long long)after,
                      (long long)next / 1000);
        }
        perf__zone_free(&perf__default_allocator, zone);
    }
    cr_assert_gt(found, 2000, "only %d were due soon", found);
}

Test(cron, damaged_files_are_refused)
{
    FILE *f = fopen("/usr/share/zoneinfo/Europe/Berlin", "rb");
    cr_assert_not_null(f);
    unsigned char data[8192];
    size_t len = fread(data, 1, sizeof data, f);
    fclose(f);
    struct perf__zone *zone;
    for (size_t cut = 0; cut < len; cut++) {
        unsigned char *part = malloc(cut + 1);
        memcpy(part, data, cut);
        cr_assert_eq(perf__zone_read(&perf__default_allocator, "x", part, cut, &zone),
                     PERF_ECORRUPT, "%zu bytes", cut);
        free(part);
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char kept = data[i];
        data[i] ^= 0x81;
        if (!perf__zone_read(&perf__default_allocator, "x", data, len, &zone)) {
            for (int64_t t = -4000000000; t < 8000000000; t += 50000000) {
                struct perf__zone_span span = perf__zone_span_at(zone, t);
                cr_assert(span.from_s <= t && t < span.until_s);
            }
            perf__zone_free(&perf__default_allocator, zone);
        }
        data[i] = kept;
    }
}

Test(cron, no_memory_for_a_zone)
{
    struct test_host th;
    struct perf__zone *zone;
    test_host_init(&th);
    for (int64_t n = 1; n < 4; n++) {
        atomic_store(&th.fail_at, n);
        int rc = perf__zone_open(&th.allocator, "Europe/Berlin", &zone);
        cr_assert_eq(rc, n < 3 ? PERF_ENOMEM : PERF_OK);
        if (!rc)
            perf__zone_free(&th.allocator, zone);
        cr_assert_eq(atomic_load(&th.live), 0);
    }
}
