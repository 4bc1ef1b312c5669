/* SPDX-License-Identifier: MIT */
/*
 * zone.c - TZif files (RFC 8536) and the rule that goes on after their last change.
 *
 * A file is a stranger's: its size is bounded, every count is checked against
 * what is there, and the changes must come in order. What a zone does after the last change in
 * its file is said by a text of POSIX's TZ form ("CET-1CEST,M3.5.0,M10.5.0/3"), which is asked for
 * the years around the time in question. Any thread.
 */
#include "zone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/bytes.h"
#include "../base/status.h"

enum {
    FILE_MAX = 1 << 20,
    HEADER = 44,
    CHANGES_MAX = 20000, /* the most that a real file has is about 240 */
    NAME_MAX_LEN = 128,
    HOUR = 3600,
    DAY = 86400,
    OFFSET_MAX = 26 * HOUR, /* RFC 8536 */
};

/* When clocks change in a year. */
struct change_rule {
    enum { BY_JULIAN, BY_DAY, BY_WEEK } form;
    int month, week, day;
    int64_t time_s; /* of the local time before the change, may be negative or beyond a day */
};

struct rule {
    bool any;
    bool has_dst;
    int64_t std_s, dst_s; /* offsets */
    struct change_rule start, end;
};

struct perf__zone {
    size_t count;
    struct rule rule;
    int64_t first_s; /* the offset before the first change */
    struct {
        int64_t at, offset_s;
    } changes[];
};

/* ------------------------------------------------------------------ calendar */

/* Howard Hinnant's algorithms for the civil calendar (public domain): years begin in March, so
 * that the odd day is at their end. */
int64_t perf__days_of_date(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t of_era = year - era * 400;
    int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

void perf__date_of_days(int64_t days, int64_t *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t of_era = days - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * of_year + 2) / 153;
    *day = (int)(of_year - (153 * m + 2) / 5 + 1);
    *month = (int)(m < 10 ? m + 3 : m - 9);
    *year = y + era * 400 + (*month <= 2);
}

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* ---------------------------------------------------- the rule after the last change */

static bool read_number(const char **at, int64_t max, int64_t *out)
{
    int64_t n = 0;
    const char *p = *at;
    for (; *p >= '0' && *p <= '9' && n <= max; p++)
        n = n * 10 + (*p - '0');
    if (p == *at || n > max)
        return false;
    *at = p;
    *out = n;
    return true;
}

/* [+-]hh[:mm[:ss]] */
static bool read_time(const char **at, int64_t max_hours, int64_t *out)
{
    int64_t hours, minutes = 0, seconds = 0, sign = 1;
    if (**at == '+' || **at == '-')
        sign = *(*at)++ == '-' ? -1 : 1;
    if (!read_number(at, max_hours, &hours))
        return false;
    if (**at == ':') {
        ++*at;
        if (!read_number(at, 59, &minutes))
            return false;
        if (**at == ':') {
            ++*at;
            if (!read_number(at, 59, &seconds))
                return false;
        }
    }
    *out = sign * (hours * HOUR + minutes * 60 + seconds);
    return true;
}

/* Three letters or more, or anything in angle brackets. */
static bool skip_name(const char **at)
{
    const char *p = *at;
    if (*p == '<') {
        p = strchr(p, '>');
        if (!p)
            return false;
        *at = p + 1;
        return true;
    }
    while ((*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z'))
        p++;
    if (p - *at < 3)
        return false;
    *at = p;
    return true;
}

static bool read_change(const char **at, struct change_rule *r)
{
    int64_t month = 0, week = 0, day;
    if (*(*at)++ != ',')
        return false;
    if (**at == 'M') {
        ++*at;
        r->form = BY_WEEK;
        if (!read_number(at, 12, &month) || *(*at)++ != '.' || !read_number(at, 5, &week) ||
            *(*at)++ != '.' || !read_number(at, 6, &day) || !month || !week)
            return false;
    } else if (**at == 'J') {
        ++*at;
        r->form = BY_JULIAN;
        if (!read_number(at, 365, &day) || !day)
            return false;
    } else {
        r->form = BY_DAY;
        if (!read_number(at, 365, &day))
            return false;
    }
    r->month = (int)month;
    r->week = (int)week;
    r->day = (int)day;
    r->time_s = 2 * HOUR;
    if (**at != '/')
        return true;
    ++*at;
    return read_time(at, 167, &r->time_s);
}

static bool read_rule(const char *text, struct rule *r)
{
    memset(r, 0, sizeof *r);
    if (!*text)
        return true; /* nobody knows: the last offset stays */
    if (!skip_name(&text) || !read_time(&text, 24, &r->std_s))
        return false;
    r->any = true;
    r->std_s = -r->std_s; /* POSIX counts westward */
    if (!*text)
        return true;
    r->has_dst = true;
    r->dst_s = r->std_s + HOUR;
    if (!skip_name(&text))
        return false;
    if (*text && *text != ',') {
        if (!read_time(&text, 24, &r->dst_s))
            return false;
        r->dst_s = -r->dst_s;
    }
    return read_change(&text, &r->start) && read_change(&text, &r->end) && !*text;
}

/* The local second, since 1970, of a change in a year. */
static int64_t change_in(const struct change_rule *r, int64_t year)
{
    int64_t first = perf__days_of_date(year, 1, 1), day;
    if (r->form == BY_DAY) {
        day = first + r->day;
    } else if (r->form == BY_JULIAN) { /* as if no year had a 29th of February */
        day = first + r->day - 1 + (is_leap(year) && r->day >= 60);
    } else {
        int64_t month = perf__days_of_date(year, r->month, 1);
        int64_t next = r->month == 12 ? perf__days_of_date(year + 1, 1, 1)
                                      : perf__days_of_date(year, r->month + 1, 1);
        int64_t weekday = (month % 7 + 7 + 4) % 7; /* the 1st of January 1970 was a Thursday */
        day = month + (r->day - weekday + 7) % 7 + (r->week - 1) * 7;
        if (day >= next)
            day -= 7;
    }
    return day * DAY + r->time_s;
}

/* Narrows a span that contains t by the changes that a rule makes near t. */
static void span_by_rule(const struct rule *r, int64_t t, struct perf__zone_span *span)
{
    int64_t year, latest = INT64_MIN;
    int month, day;
    span->offset_s = r->std_s;
    if (!r->has_dst)
        return;
    perf__date_of_days(floor_div(t, DAY), &year, &month, &day);
    for (int64_t y = year - 2; y <= year + 2; y++) {
        /* At the same moment the start wins: a zone that has summer all year ends and begins it
         * at once. */
        const int64_t at[2] = {change_in(&r->end, y) - r->dst_s,
                               change_in(&r->start, y) - r->std_s};
        for (int i = 0; i < 2; i++)
            if (at[i] <= t && (at[i] > latest || (at[i] == latest && i))) {
                latest = at[i];
                span->offset_s = i ? r->dst_s : r->std_s;
            } else if (at[i] > t && at[i] < span->until_s) {
                span->until_s = at[i];
            }
    }
    if (latest > span->from_s)
        span->from_s = latest;
}

/* -------------------------------------------------------------------- reading */

static int64_t load_big(const uint8_t *p, size_t size)
{
    uint64_t n = size == 4 && p[0] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = 0; i < size; i++)
        n = n << 8 | p[i];
    return (int64_t)n;
}

/* One header and its block. */
struct block {
    uint8_t version;
    size_t time_size, times, types, chars, leaps, is_std, is_ut;
};

static bool read_header(struct perf__reader *in, struct block *b)
{
    const uint8_t *h = perf__read(in, HEADER);
    if (!h || memcmp(h, "TZif", 4))
        return false;
    b->version = h[4];
    size_t *const counts[] = {&b->is_ut, &b->is_std, &b->leaps, &b->times, &b->types, &b->chars};
    for (size_t i = 0; i < 6; i++) {
        int64_t n = load_big(h + 20 + 4 * i, 4);
        if (n < 0 || n > FILE_MAX)
            return false;
        *counts[i] = (size_t)n;
    }
    return b->times <= CHANGES_MAX && b->types >= 1 && b->types <= 256;
}

static size_t block_size(const struct block *b)
{
    return b->times * (b->time_size + 1) + b->types * 6 + b->chars + b->leaps * (b->time_size + 4) +
           b->is_std + b->is_ut;
}

static int damaged(const char *name, const char *what)
{
    return perf__fail(PERF_ECORRUPT,
                      "the file of time zone \"%s\" is damaged (%s); install tzdata anew, or give "
                      "another zone",
                      name, what);
}

static int read_changes(const char *name, struct perf__reader *in, const struct block *b,
                        struct perf__zone *zone)
{
    const uint8_t *data = perf__read(in, block_size(b));
    if (!data)
        return damaged(name, "it ends too soon");
    const uint8_t *index = data + b->times * b->time_size, *types = index + b->times;
    for (size_t i = 0; i < b->types; i++) {
        int64_t offset = load_big(types + 6 * i, 4);
        if (offset < -OFFSET_MAX || offset > OFFSET_MAX)
            return damaged(name, "an offset of more than a day");
    }
    /* RFC 8536: before the first change the first type holds. */
    zone->first_s = load_big(types, 4);
    zone->count = b->times;
    for (size_t i = 0; i < b->times; i++) {
        int64_t at = load_big(data + i * b->time_size, b->time_size);
        if (index[i] >= b->types || (i && at <= zone->changes[i - 1].at))
            return damaged(name, "changes out of order");
        zone->changes[i].at = at;
        zone->changes[i].offset_s = load_big(types + 6 * index[i], 4);
    }
    return PERF_OK;
}

/* "\n" TEXT "\n" */
static int read_footer(const char *name, struct perf__reader *in, struct perf__zone *zone)
{
    char text[128];
    size_t len = (size_t)(in->end - in->at);
    const uint8_t *end = len > 1 ? memchr(in->at + 1, '\n', len - 1) : NULL;
    if (!end || *in->at != '\n' || (size_t)(end - in->at) > sizeof text)
        return damaged(name, "its last line");
    len = (size_t)(end - in->at) - 1;
    memcpy(text, in->at + 1, len);
    text[len] = 0;
    return strlen(text) == len && read_rule(text, &zone->rule) ? PERF_OK
                                                               : damaged(name, "its last line");
}

int perf__zone_read(const perf_allocator *allocator, const char *name, const void *data, size_t len,
                    struct perf__zone **out)
{
    const uint8_t *bytes = data;
    struct perf__reader in = {bytes, bytes + len, false};
    struct block b = {.time_size = 4};
    if (!read_header(&in, &b))
        return damaged(name, "no TZif header");
    if (b.version >= '2') { /* the first block is for readers of the 1990s */
        if (!perf__read(&in, block_size(&b)))
            return damaged(name, "it ends too soon");
        b.time_size = 8;
        if (!read_header(&in, &b))
            return damaged(name, "no second TZif header");
    }
    if (b.leaps)
        return perf__fail(PERF_EINVAL,
                          "time zone \"%s\" counts leap seconds, which the system's clock does "
                          "not; give the zone without \"right/\"",
                          name);
    struct perf__zone *zone =
        perf__calloc(allocator, 1, sizeof *zone + b.times * sizeof *zone->changes);
    if (!zone)
        return perf__fail_nomem("a time zone");
    int rc = read_changes(name, &in, &b, zone);
    if (!rc && b.time_size == 8)
        rc = read_footer(name, &in, zone);
    if (rc) {
        perf__free(allocator, zone);
        return rc;
    }
    *out = zone;
    return PERF_OK;
}

/* ------------------------------------------------------------------------ files */

static bool name_is_good(const char *name)
{
    if (strlen(name) > NAME_MAX_LEN || *name == '/' || *name == '.')
        return false;
    for (const char *p = name; *p; p++) {
        bool ok = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                  (*p >= '0' && *p <= '9') || strchr("_+-/.", *p);
        if (!ok || (p[0] == '/' && (p[1] == '.' || p[1] == '/' || !p[1])) ||
            (p[0] == '.' && p[1] == '.'))
            return false;
    }
    return true;
}

/* Reads the whole of a regular file of no more than FILE_MAX bytes into *data. */
static int read_file(const perf_allocator *allocator, const char *name, int fd, uint8_t **data,
                     size_t *len)
{
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
        return perf__fail(PERF_EINVAL,
                          "time zone \"%s\" is not a file of at most 1 MiB; give a name such as "
                          "\"Europe/Berlin\"",
                          name);
    size_t size = (size_t)st.st_size, got = 0;
    *data = perf__alloc(allocator, size + 1);
    if (!*data)
        return perf__fail_nomem("a time zone's file");
    while (got < size) {
        ssize_t n = read(fd, *data + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int error = errno;
            perf__free(allocator, *data);
            return perf__fail(PERF_EIO, "the file of time zone \"%s\" cannot be read (errno %d)",
                              name, error);
        }
        if (!n)
            break;
        got += (size_t)n;
    }
    *len = got;
    return PERF_OK;
}

int perf__zone_open(const perf_allocator *allocator, const char *name, struct perf__zone **out)
{
    if (!name || !*name || !strcmp(name, "UTC")) {
        *out = perf__calloc(allocator, 1, sizeof **out);
        return *out ? PERF_OK : perf__fail_nomem("a time zone");
    }
    if (!name_is_good(name))
        return perf__fail(PERF_EINVAL,
                          "time zone \"%.*s\" is not a name of the time zone database; give one "
                          "such as \"Europe/Berlin\", or NULL for UTC",
                          NAME_MAX_LEN, name);
    char path[4096];
    const char *dir = getenv("TZDIR");
    if (!dir || !*dir)
        dir = "/usr/share/zoneinfo";
    size_t dir_len = strlen(dir), name_len = strlen(name);
    if (dir_len + name_len + 2 > sizeof path)
        return perf__fail(PERF_EINVAL, "TZDIR is %zu bytes long; give less than 3900", dir_len);
    memcpy(path, dir, dir_len + 1);
    path[dir_len] = '/';
    memcpy(path + dir_len + 1, name, name_len + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return perf__fail(PERF_EINVAL,
                          "time zone \"%s\" is not there (errno %d); give a name below %s, or "
                          "install tzdata",
                          name, errno, dir);
    uint8_t *data = NULL;
    size_t len = 0;
    int rc = read_file(allocator, name, fd, &data, &len);
    close(fd);
    if (rc)
        return rc;
    rc = perf__zone_read(allocator, name, data, len, out);
    perf__free(allocator, data);
    return rc;
}

void perf__zone_free(const perf_allocator *allocator, struct perf__zone *zone)
{
    perf__free(allocator, zone);
}

/* ------------------------------------------------------------------------ asking */

struct perf__zone_span perf__zone_span_at(const struct perf__zone *zone, int64_t t)
{
    size_t low = 0, high = zone->count; /* how many changes are not after t */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (zone->changes[mid].at <= t)
            low = mid + 1;
        else
            high = mid;
    }
    struct perf__zone_span span = {INT64_MIN, INT64_MAX, zone->first_s};
    if (low) {
        span.from_s = zone->changes[low - 1].at;
        span.offset_s = zone->changes[low - 1].offset_s;
    }
    if (low < zone->count)
        span.until_s = zone->changes[low].at;
    else if (zone->rule.any)
        span_by_rule(&zone->rule, t, &span);
    return span;
}
