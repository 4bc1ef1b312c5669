/* SPDX-License-Identifier: MIT */
/*
 * redis_url.c - a URL into options.
 *
 *     redis://[user[:password]@]host[:port][/db]     rediss:// with TLS
 *     unix:///path[?db=n], redis+unix:///path[?db=n]
 *
 * Errors never quote the URL, for it may hold a password. Pure but for memory.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "redis.h"

static int hex(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* Copies [from, to) to *at with %xx decoded and a zero behind it; NULL: not decodable. */
static const char *take(char **at, const char *from, const char *to)
{
    char *begin = *at, *out = begin;
    for (; from < to; from++) {
        char c = *from;
        if (c == '%') {
            if (to - from < 3 || hex(from[1]) < 0 || hex(from[2]) < 0)
                return NULL;
            c = (char)(hex(from[1]) * 16 + hex(from[2]));
            from += 2;
            if (!c)
                return NULL;
        }
        *out++ = c;
    }
    *out++ = '\0';
    *at = out;
    return begin;
}

static bool number(const char *from, const char *to, int64_t max, int64_t *out)
{
    int64_t value = 0;
    if (from == to)
        return false;
    for (; from < to; from++) {
        if (*from < '0' || *from > '9' || (value = value * 10 + (*from - '0')) > max)
            return false;
    }
    *out = value;
    return true;
}

static int bad(const char *what)
{
    return perf__fail(PERF_EINVAL,
                      "perf_redis_options.url %s; give redis://user:password@host:port/db, "
                      "rediss://..., or unix:///path?db=0",
                      what);
}

static int take_unix(perf_redis_options *o, const char *path, char **at)
{
    const char *query = strchr(path, '?'), *end = query ? query : path + strlen(path);
    int64_t db = 0;
    if (query &&
        (strncmp(query, "?db=", 4) != 0 || !number(query + 4, query + strlen(query), 1 << 20, &db)))
        return bad("has a query that is not ?db=number");
    const char *text = take(at, path, end);
    if (!text || *text != '/' || !text[1])
        return bad("has no absolute path of a Unix socket");
    if (!o->unix_socket && !o->hostname)
        o->unix_socket = text;
    if (!o->db)
        o->db = db;
    return PERF_OK;
}

static int take_host(perf_redis_options *o, const char *from, const char *end, char **at)
{
    const char *host_end = end, *colon;
    int64_t port = 0;
    if (from < end && *from == '[') { /* an IPv6 address */
        const char *bracket = memchr(from, ']', (size_t)(end - from));
        if (!bracket)
            return bad("has a [ without its ]");
        from++;
        host_end = bracket;
        colon = bracket + 1;
        if (colon < end && *colon != ':')
            return bad("has something between ] and the port");
    } else {
        colon = memchr(from, ':', (size_t)(end - from));
        host_end = colon ? colon : end;
    }
    if (colon && colon < end && !number(colon + 1, end, 65535, &port))
        return bad("has a port that is not 1 to 65535");
    const char *host = take(at, from, host_end);
    if (!host)
        return bad("has a host with a bad %-escape");
    if (!o->hostname && !o->unix_socket && *host)
        o->hostname = host;
    if (!o->port)
        o->port = port;
    return PERF_OK;
}

int perf__redis_url_parse(perf_redis_options *o, const char *url, char *room)
{
    char *at = room;
    if (!strncmp(url, "unix://", 7))
        return take_unix(o, url + 7, &at);
    if (!strncmp(url, "redis+unix://", 13))
        return take_unix(o, url + 13, &at);
    if (!strncmp(url, "rediss://", 9))
        o->tls = 1;
    else if (strncmp(url, "redis://", 8) != 0)
        return bad("begins with no known scheme");
    const char *from = strstr(url, "://") + 3;
    const char *end = from + strcspn(from, "/?#");
    const char *sign = NULL;
    for (const char *c = from; c < end; c++)
        if (*c == '@')
            sign = c;
    if (sign) {
        const char *colon = memchr(from, ':', (size_t)(sign - from));
        const char *user = take(&at, from, colon ? colon : sign);
        const char *password = colon ? take(&at, colon + 1, sign) : "";
        if (!user || !password)
            return bad("has a user or password with a bad %-escape");
        if (!o->user && *user)
            o->user = user;
        if (!o->password && *password)
            o->password = password;
    }
    int rc = take_host(o, sign ? sign + 1 : from, end, &at);
    if (rc)
        return rc;
    int64_t db = 0;
    if (*end == '/' && end[1] && !number(end + 1, end + strlen(end), 1 << 20, &db))
        return bad("has a path that is not the number of a database");
    if (*end == '?' || *end == '#')
        return bad("has a query or fragment");
    if (!o->db)
        o->db = db;
    return PERF_OK;
}
