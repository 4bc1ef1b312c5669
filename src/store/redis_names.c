/* SPDX-License-Identifier: MIT */
/*
 * redis_names.c - keys as names that an operator can read and type, and back.
 *
 *     perf:courses:anna:42     PREFIX:NS:USER:KEY
 *
 * '%', '{' and '}' are written as %XX everywhere, and in NS and USER also ':', spaces
 * and control bytes; all else, zero bytes included, is itself. So the first three
 * colons end the first three parts, each key has one name, and a name has no hash tag
 * of its own: in a cluster PREFIX.lease:{NAME} lies where NAME does.
 *
 * Pure functions, any thread.
 */
#include "redis_store.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

static const char digits[] = "0123456789ABCDEF";

static bool escapes(unsigned char byte, bool in_key)
{
    return byte == '%' || byte == '{' || byte == '}' ||
           (!in_key && (byte == ':' || byte <= ' ' || byte == 0x7f));
}

/* --------------------------------------------------------------------- names */

static size_t part_size(perf_bytes part, bool in_key)
{
    const unsigned char *bytes = part.data;
    size_t size = part.len;
    for (size_t i = 0; i < part.len; i++)
        size += 2 * (size_t)escapes(bytes[i], in_key);
    return size;
}

static char *part_write(char *at, perf_bytes part, bool in_key)
{
    const unsigned char *bytes = part.data;
    for (size_t i = 0; i < part.len; i++) {
        if (!escapes(bytes[i], in_key)) {
            *at++ = (char)bytes[i];
            continue;
        }
        *at++ = '%';
        *at++ = digits[bytes[i] >> 4];
        *at++ = digits[bytes[i] & 15];
    }
    return at;
}

size_t perf__redis_name_size(const char *prefix, const perf_store_key *key)
{
    return strlen(prefix) + 3 + part_size(key->ns, false) + part_size(key->user, false) +
           part_size(key->key, true);
}

char *perf__redis_name_write(char *at, const char *prefix, const perf_store_key *key)
{
    while (*prefix)
        *at++ = *prefix++;
    *at++ = ':';
    at = part_write(at, key->ns, false);
    *at++ = ':';
    at = part_write(at, key->user, false);
    *at++ = ':';
    return part_write(at, key->key, true);
}

static int hex(unsigned char c)
{
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Decodes [*at, end), in NS and USER up to the colon, which is taken too. */
static bool part_read(const unsigned char **at, const unsigned char *end, bool in_key, char *room,
                      size_t max, perf_bytes *part)
{
    const unsigned char *from = *at;
    size_t len = 0;
    for (; from < end && (in_key || *from != ':'); from++) {
        unsigned char byte = *from;
        if (byte == '%') {
            int high = end - from > 2 ? hex(from[1]) : -1, low = high >= 0 ? hex(from[2]) : -1;
            if (low < 0)
                return false;
            byte = (unsigned char)(high * 16 + low);
            if (!escapes(byte, in_key))
                return false; /* another name for the same key */
            from += 2;
        } else if (escapes(byte, in_key)) {
            return false;
        }
        if (len == max)
            return false;
        room[len++] = (char)byte;
    }
    if (!in_key && from++ == end)
        return false;
    *at = from;
    *part = (perf_bytes){room, len};
    return true;
}

bool perf__redis_name_read(const char *prefix, const void *name, size_t len,
                           struct perf__redis_names *names, perf_store_key *key)
{
    const unsigned char *at = name, *end = at + len;
    size_t prefix_len = strlen(prefix);
    perf_store_key found = {0};
    if (len <= prefix_len || memcmp(at, prefix, prefix_len) != 0 || at[prefix_len] != ':')
        return false;
    at += prefix_len + 1;
    if (!part_read(&at, end, false, names->ns, sizeof names->ns, &found.ns) ||
        !part_read(&at, end, false, names->user, sizeof names->user, &found.user) ||
        !part_read(&at, end, true, names->key, sizeof names->key, &found.key) || !found.ns.len ||
        !found.key.len)
        return false;
    *key = found;
    return true;
}

/* --------------------------------------------------------------------- marks */

bool perf__redis_number(const void *text, size_t len, int64_t *out)
{
    const char *bytes = text;
    int64_t value = 0;
    if (!len || len > 16)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] < '0' || bytes[i] > '9')
            return false;
        value = value * 10 + (bytes[i] - '0');
    }
    if (value > (int64_t)1 << 53)
        return false;
    *out = value;
    return true;
}

bool perf__redis_mark_read(const void *member, size_t len, int64_t *kind, perf_bytes *name)
{
    const char *colon = len ? memchr(member, ':', len) : NULL;
    if (!colon)
        return false;
    size_t number = (size_t)(colon - (const char *)member);
    *name = (perf_bytes){colon + 1, len - number - 1};
    return perf__redis_number(member, number, kind);
}

/* ------------------------------------------------------------------- location */

static int bad(const char *what)
{
    return perf__fail(
        PERF_EINVAL,
        "perf_tier_options.location of a redis tier %s; give "
        "redis://user:password@host:port/db?prefix=name&tracking=1, with cluster=1 for "
        "a Redis Cluster, rediss://..., or unix:///path?db=0&prefix=name",
        what);
}

static bool is_prefix(const char *text, size_t len)
{
    if (!len || len > PERF__REDIS_PREFIX_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if ((c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' &&
            c != '-')
            return false;
    }
    return true;
}

/* One name=value: ours is taken, another's is kept for the client to judge. */
static int take_parameter(const char *from, size_t len, struct perf__redis_place *place,
                          bool *is_ours)
{
    *is_ours = true;
    if (len >= 7 && !memcmp(from, "prefix=", 7)) {
        if (!is_prefix(from + 7, len - 7))
            return bad("has a prefix that is not 1 to 64 letters, digits, '_' or '-'");
        memcpy(place->prefix, from + 7, len - 7);
        place->prefix[len - 7] = '\0';
        return PERF_OK;
    }
    if (len >= 9 && !memcmp(from, "tracking=", 9)) {
        if (len != 10 || (from[9] != '0' && from[9] != '1'))
            return bad("has a tracking that is neither 0 nor 1");
        place->tracks = from[9] == '1';
        place->may_choose = false;
        return PERF_OK;
    }
    if (len >= 8 && !memcmp(from, "cluster=", 8)) {
        if (len != 9 || (from[8] != '0' && from[8] != '1'))
            return bad("has a cluster that is neither 0 nor 1");
        place->is_cluster = from[8] == '1';
        return PERF_OK;
    }
    *is_ours = false;
    return PERF_OK;
}

/* What is not ours goes to url, which is all zero from there on. */
static int take_query(const char *query, struct perf__redis_place *place, char *url)
{
    bool is_first = true;
    for (const char *at = query; *at;) {
        size_t len = strcspn(at, "&");
        bool is_ours;
        int rc = take_parameter(at, len, place, &is_ours);
        if (rc)
            return rc;
        if (!is_ours) {
            *url++ = is_first ? '?' : '&';
            memcpy(url, at, len);
            url += len;
            is_first = false;
        }
        at += len + (at[len] == '&');
    }
    return PERF_OK;
}

int perf__redis_place_parse(const perf_allocator *allocator, const char *location, bool has_server,
                            struct perf__redis_place *place, char **url)
{
    static const char scheme[] = "redis://";
    *url = NULL;
    *place = (struct perf__redis_place){.prefix = "perf", .tracks = true, .may_choose = true};
    const char *query = location + strcspn(location, "?");
    size_t server = (size_t)(query - location);
    if (!server && !has_server)
        return bad("names no server (REDIS_ENDPOINT is asked when there is no location)");
    /* REDIS_ENDPOINT is often just host:port. */
    bool bare = server && !strstr(location, "://");
    char *text = perf__calloc(allocator, 1, strlen(location) + sizeof scheme);
    if (!text)
        return perf__fail_nomem("the location of a redis tier");
    char *at = text;
    if (bare) {
        memcpy(at, scheme, sizeof scheme - 1);
        at += sizeof scheme - 1;
    }
    memcpy(at, location, server);
    int rc = take_query(*query ? query + 1 : query, place, at + server);
    if (rc || !server) {
        if (!rc && *text)
            rc = bad("has a parameter that is not known, and no server");
        explicit_bzero(text, strlen(text)); /* it may hold a password */
        perf__free(allocator, text);
        return rc;
    }
    *url = text;
    return PERF_OK;
}
