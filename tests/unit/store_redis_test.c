/* SPDX-License-Identifier: MIT */
/* Names of Redis keys: readable, one for each key, hostile bytes there and back; locations. */
#include <stdlib.h>
#include <string.h>

#include "../../src/store/redis_store.h"
#include "seams.h"
#include "test.h"

static char text[3 * (PERF__REDIS_NS_MAX + PERF__REDIS_USER_MAX + PERF__REDIS_KEY_MAX) + 80];
static struct perf__redis_names names;

static size_t name_of(const perf_store_key *key)
{
    size_t len = (size_t)(perf__redis_name_write(text, "perf", key) - text);
    cr_assert_eq(len, perf__redis_name_size("perf", key));
    return len;
}

static void assert_name(perf_store_key key, const char *expected)
{
    size_t len = name_of(&key);
    cr_assert(len == strlen(expected) && !memcmp(text, expected, len), "%.*s", (int)len, text);
}

static bool same(perf_bytes a, perf_bytes b)
{
    return a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len));
}

static void assert_there_and_back(perf_store_key key)
{
    perf_store_key back;
    size_t len = name_of(&key);
    cr_assert(perf__redis_name_read("perf", text, len, &names, &back));
    cr_assert(same(key.ns, back.ns) && same(key.user, back.user) && same(key.key, back.key));
    cr_assert_not(memchr(text, '{', len));
    cr_assert_not(memchr(text, '}', len), "a name has no hash tag");
}

static perf_store_key key_of(const char *ns, const char *user, const char *key)
{
    return (perf_store_key){
        .ns = {ns, strlen(ns)}, .user = {user, strlen(user)}, .key = {key, strlen(key)}};
}

Test(redis_names, can_be_read)
{
    assert_name(key_of("courses", "", "42"), "perf:courses::42");
    assert_name(key_of("courses", "anna", "/api/x?y=1:2 3"), "perf:courses:anna:/api/x?y=1:2 3");
    assert_name(key_of("a:b", "100%", "50%{x}"), "perf:a%3Ab:100%25:50%25%7Bx%7D");
    assert_name(key_of("a b\n", "\x7f{}", "\n"), "perf:a%20b%0A:%7F%7B%7D:\n");
    assert_name(key_of("k\xc3\xbcrbis", "", "\xff"), "perf:k\xc3\xbcrbis::\xff");
}

Test(redis_names, any_bytes_come_back)
{
    static unsigned char all[PERF__REDIS_KEY_MAX];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (unsigned char)(i * 7);
    for (size_t len = 1; len <= 300; len++)
        assert_there_and_back((perf_store_key){
            .ns = {all + 1, len < 255 ? len : 255}, .user = {all, 0}, .key = {all, len}});
    assert_there_and_back(
        (perf_store_key){.ns = {all, 255}, .user = {all, 255}, .key = {all, sizeof all}});
    memset(all, '%', sizeof all);
    assert_there_and_back(
        (perf_store_key){.ns = {all, 255}, .user = {all, 255}, .key = {all, sizeof all}});
}

Test(redis_names, what_is_not_ours_is_refused)
{
    static const char *const foreign[] = {
        "",           "perf",         "perf:",        "perf:a",         "perf:a:b",
        "perf:a:b:",  "perf::b:c",    "perg:a:b:c",   "perfa:b:c",      "perf.lease:{perf:a:b:c}",
        "perf:a:b:%", "perf:a:b:%2",  "perf:a:b:%2g", "perf:a:b:%7b",   "perf:a:b:%41",
        "perf:a:b:{", "perf:a b:c:d", "perf:%41:b:c", "perf:a:b\x01:c", "perf:a:b:%3A",
    };
    perf_store_key key;
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        cr_assert_not(perf__redis_name_read("perf", foreign[i], strlen(foreign[i]), &names, &key),
                      "%s", foreign[i]);
    char *longer = malloc(PERF__REDIS_KEY_MAX + 20);
    memset(longer, 'x', PERF__REDIS_KEY_MAX + 20);
    memcpy(longer, "perf:a:b:", 9);
    cr_assert(perf__redis_name_read("perf", longer, 9 + PERF__REDIS_KEY_MAX, &names, &key));
    cr_assert_not(perf__redis_name_read("perf", longer, 10 + PERF__REDIS_KEY_MAX, &names, &key));
    free(longer);
}

Test(redis_names, marks_are_a_kind_and_a_name)
{
    int64_t kind, number;
    perf_bytes name;
    cr_assert(perf__redis_mark_read("4:a:b", 5, &kind, &name));
    cr_assert(kind == 4 && name.len == 3 && !memcmp(name.data, "a:b", 3));
    cr_assert(perf__redis_mark_read("1:", 2, &kind, &name) && kind == 1 && !name.len);
    cr_assert_not(perf__redis_mark_read("4", 1, &kind, &name));
    cr_assert_not(perf__redis_mark_read(":a", 2, &kind, &name));
    cr_assert_not(perf__redis_mark_read("-4:a", 4, &kind, &name));
    cr_assert_not(perf__redis_mark_read("", 0, &kind, &name));
    cr_assert(perf__redis_number("9007199254740992", 16, &number) && number == 9007199254740992);
    cr_assert_not(perf__redis_number("9007199254740993", 16, &number));
    cr_assert_not(perf__redis_number("1.5", 3, &number));
    cr_assert_not(perf__redis_number("1e17", 4, &number));
}

static int parse(const char *location, bool has_server, struct perf__redis_place *place, char **url)
{
    struct test_host th;
    return perf__redis_place_parse(test_host_init(&th)->allocator, location, has_server, place,
                                   url);
}

Test(redis_names, a_cluster_is_named_by_its_location)
{
    struct perf__redis_place place;
    struct test_host th;
    const perf_host *host = test_host_init(&th);
    char *url;
    cr_assert_eq(
        perf__redis_place_parse(host->allocator, "h:1?cluster=1&prefix=x", false, &place, &url),
        PERF_OK);
    cr_assert(place.is_cluster && place.may_choose && !strcmp(place.prefix, "x"));
    cr_assert_str_eq(url, "redis://h:1");
    host->allocator->free(host->allocator->ctx, url);
    cr_assert_eq(
        perf__redis_place_parse(host->allocator, "?cluster=0&tracking=1", true, &place, &url),
        PERF_OK);
    cr_assert(!place.is_cluster && !place.may_choose && place.tracks && !url);
}

static void assert_place(const char *location, const char *prefix, bool tracks, const char *rest)
{
    struct perf__redis_place place;
    struct test_host th;
    const perf_host *host = test_host_init(&th);
    char *url;
    int rc = perf__redis_place_parse(host->allocator, location, true, &place, &url);
    cr_assert_eq(rc, PERF_OK, "%s: %s", location, perf_last_error());
    cr_assert_str_eq(place.prefix, prefix);
    cr_assert_eq(place.tracks, tracks);
    cr_assert(rest ? url && !strcmp(url, rest) : !url, "%s", url ? url : "none");
    host->allocator->free(host->allocator->ctx, url);
    cr_assert_eq(atomic_load(&th.live), 0);
}

Test(redis_names, a_location_is_taken_apart)
{
    assert_place("redis://h:1/2?prefix=lms", "lms", true, "redis://h:1/2");
    assert_place("redis://h", "perf", true, "redis://h");
    assert_place("h:6379", "perf", true, "redis://h:6379");
    assert_place("h:6379?tracking=0&prefix=a_B-9", "a_B-9", false, "redis://h:6379");
    assert_place("unix:///a?db=1&prefix=x", "x", true, "unix:///a?db=1");
    assert_place("unix:///a?prefix=x&db=1&tracking=1", "x", true, "unix:///a?db=1");
    assert_place("redis://h?foo=1", "perf", true, "redis://h?foo=1"); /* the client refuses it */
    assert_place("?prefix=x", "x", true, NULL);
    assert_place("", "perf", true, NULL);
}

Test(redis_names, a_location_is_checked_and_never_quoted)
{
    static const char *const bad[] = {
        "redis://:secret@h?prefix=",
        "redis://:secret@h?prefix=a.b",
        "redis://:secret@h?prefix=a:b",
        "redis://:secret@h?tracking=2",
        "redis://:secret@h?tracking=",
        "redis://:secret@h?cluster=",
        "redis://:secret@h?cluster=yes",
        "?foo=secret",
        "redis://"
        ":secret@h?prefix=0123456789012345678901234567890123456789012345678901234567890123x",
    };
    struct perf__redis_place place;
    char *url;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(parse(bad[i], true, &place, &url), PERF_EINVAL, "%s", bad[i]);
        cr_assert_null(strstr(perf_last_error(), "secret"), "%s", perf_last_error());
        cr_assert_null(url);
    }
    cr_assert_eq(parse("?prefix=x", false, &place, &url), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "REDIS_ENDPOINT"));
}
