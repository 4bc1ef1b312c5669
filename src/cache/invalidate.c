/* SPDX-License-Identifier: MIT */
/*
 * invalidate.c - the table of marks, and the public calls that make them.
 *
 * A mark is in place (table, then perf__memory_set_suspect, then the tiers'
 * queues) before its call returns, so no later get in this process can see an
 * older entry. Any thread.
 */
#include "cache_impl.h"

#include <string.h>

#include "../base/glob.h"
#include "../base/uthash_host.h"

/* Names come from outside, so the number of marks is bounded; that of patterns more tightly,
 * for a suspect entry is tried against each of them. */
enum { MARKS_MAX = 16384, PATTERNS_MAX = 1024 };

struct perf__mark {
    UT_hash_handle hh;
    struct perf__mark *next_pattern;
    int64_t stamp;
    size_t len;    /* of key */
    uint8_t key[]; /* kind, then name */
};

int perf__marks_init(struct perf__marks *marks, const struct perf__host *host,
                     struct perf__hash_key secret)
{
    memset(marks, 0, sizeof *marks);
    marks->host = host;
    marks->secret = secret;
    if (pthread_rwlock_init(&marks->lock, NULL)) {
        marks->host = NULL;
        return perf__fail_nomem("the invalidation marks");
    }
    return PERF_OK;
}

static void mark_remove(struct perf__marks *marks, struct perf__mark *mark)
{
    const perf_allocator *uthash_allocator = &marks->host->allocator;
    if (mark->key[0] == PERF__MARK_PATTERN) {
        struct perf__mark **at = &marks->patterns;
        while (*at != mark)
            at = &(*at)->next_pattern;
        *at = mark->next_pattern;
        marks->pattern_count--;
    }
    HASH_DEL(marks->table, mark);
    perf__free(uthash_allocator, mark);
    marks->count--;
}

void perf__marks_destroy(struct perf__marks *marks)
{
    if (!marks->host)
        return;
    while (marks->table)
        mark_remove(marks, marks->table);
    pthread_rwlock_destroy(&marks->lock);
    marks->host = NULL;
}

int64_t perf__marks_stamp(struct perf__marks *marks)
{
    int64_t wall = perf__realtime_coarse_ms(&marks->host->clock);
    int64_t last = perf__marks_last(marks);
    int64_t now = atomic_load_explicit(&marks->now, memory_order_relaxed);
    if (wall <= last)
        wall = last + 1;
    /* Written a few hundred times a second at most: the coarse clock does not tick faster. */
    while (wall > now && !atomic_compare_exchange_weak_explicit(
                             &marks->now, &now, wall, memory_order_acq_rel, memory_order_relaxed)) {
    }
    return wall > now ? wall : now;
}

static struct perf__mark *mark_find(const struct perf__marks *marks, int kind, const void *name,
                                    size_t len)
{
    uint8_t key[1 + PERF__MARK_NAME_MAX];
    struct perf__hash_key uthash_secret = marks->secret;
    struct perf__mark *mark = NULL;
    if (len > PERF__MARK_NAME_MAX)
        return NULL;
    key[0] = (uint8_t)kind;
    if (len)
        memcpy(key + 1, name, len);
    HASH_FIND(hh, marks->table, key, len + 1, mark);
    return mark;
}

/* Forgets the marks up to a stamp. Under the write lock. */
static void forget(struct perf__marks *marks, int64_t up_to)
{
    struct perf__mark *mark, *next;
    for (mark = marks->table; mark; mark = next) {
        next = mark->hh.next;
        if (mark->stamp <= up_to)
            mark_remove(marks, mark);
    }
    if (up_to > marks->forgotten)
        marks->forgotten = up_to;
}

/* Puts a mark with a stamp into the table, under the write lock. */
static int put(struct perf__marks *marks, int kind, const void *name, size_t len, int64_t stamp)
{
    if (kind == PERF__MARK_ALL) { /* older marks have nothing left to say */
        forget(marks, stamp);
        return PERF_OK;
    }
    struct perf__mark *mark = mark_find(marks, kind, name, len);
    if (mark) {
        if (stamp > mark->stamp)
            mark->stamp = stamp;
        return PERF_OK;
    }
    const perf_allocator *uthash_allocator = &marks->host->allocator;
    struct perf__hash_key uthash_secret = marks->secret;
    bool uthash_oom = false;
    mark = perf__calloc(uthash_allocator, 1, sizeof *mark + 1 + len);
    if (!mark)
        return perf__fail_nomem("an invalidation mark");
    mark->stamp = stamp;
    mark->len = 1 + len;
    mark->key[0] = (uint8_t)kind;
    if (len)
        memcpy(mark->key + 1, name, len);
    HASH_ADD_KEYPTR(hh, marks->table, mark->key, mark->len, mark);
    if (uthash_oom) {
        perf__free(uthash_allocator, mark);
        return perf__fail_nomem("an invalidation mark");
    }
    marks->count++;
    if (kind == PERF__MARK_PATTERN) {
        mark->next_pattern = marks->patterns;
        marks->patterns = mark;
        marks->pattern_count++;
    }
    return PERF_OK;
}

/* uthash keeps the order of insertion, so the first half of the list is the older one (marks
 * renewed since are newer than their place; they are kept). Returns the stamp forgotten. */
static int64_t forget_older_half(struct perf__marks *marks)
{
    struct perf__mark *mark = marks->table;
    for (size_t i = 0; i < marks->count / 2; i++)
        mark = mark->hh.next;
    forget(marks, mark->stamp);
    return marks->forgotten;
}

static bool is_full(const struct perf__marks *marks)
{
    return marks->count >= MARKS_MAX || marks->pattern_count >= PATTERNS_MAX;
}

int perf__marks_add(struct perf__marks *marks, int kind, const void *name, size_t name_len,
                    int64_t *stamp, int64_t *forgotten)
{
    pthread_rwlock_wrlock(&marks->lock);
    *forgotten = is_full(marks) ? forget_older_half(marks) : 0;
    *stamp = perf__marks_stamp(marks);
    if (marks->ahead_ms) {
        int64_t ahead = perf__realtime_coarse_ms(&marks->host->clock) + marks->ahead_ms;
        if (*stamp < ahead)
            *stamp = ahead;
    }
    int rc = put(marks, kind, name, name_len, *stamp);
    if (!rc)
        atomic_store_explicit(&marks->last, *stamp, memory_order_release);
    pthread_rwlock_unlock(&marks->lock);
    return rc;
}

int perf__marks_restore(struct perf__marks *marks, int kind, const void *name, size_t name_len,
                        int64_t stamp)
{
    if (kind < PERF__MARK_ALL || kind > PERF__MARK_PATTERN || name_len > PERF__MARK_NAME_MAX ||
        stamp > INT64_MAX / 2)
        return PERF_OK; /* not ours */
    pthread_rwlock_wrlock(&marks->lock);
    if (is_full(marks))
        forget_older_half(marks);
    int rc = put(marks, kind, name, name_len, stamp);
    if (!rc && stamp > atomic_load(&marks->last))
        atomic_store_explicit(&marks->last, stamp, memory_order_release);
    pthread_rwlock_unlock(&marks->lock);
    return rc;
}

static bool killed_by(const struct perf__marks *marks, int kind, perf_bytes name, int64_t stamp)
{
    const struct perf__mark *mark = mark_find(marks, kind, name.data, name.len);
    return mark && mark->stamp >= stamp;
}

static bool pattern_matches(const struct perf__mark *mark, const struct perf__marked *entry)
{
    const uint8_t *name = mark->key + 1, *end = mark->key + mark->len;
    const uint8_t *zero = memchr(name, 0, (size_t)(end - name));
    if (!zero)
        return false;
    size_t ns_len = (size_t)(zero - name);
    if (ns_len && (ns_len != entry->ns.len || memcmp(name, entry->ns.data, ns_len)))
        return false;
    return perf__glob_match(zero + 1, (size_t)(end - zero - 1), entry->key.data, entry->key.len);
}

static bool killed_by_pattern(const struct perf__marks *marks, const struct perf__marked *entry)
{
    for (const struct perf__mark *mark = marks->patterns; mark; mark = mark->next_pattern)
        if (mark->stamp >= entry->stamp && pattern_matches(mark, entry))
            return true;
    return false;
}

static bool killed_by_tag(const struct perf__marks *marks, const struct perf__marked *entry)
{
    const uint8_t *at = entry->tags.data, *end = at + entry->tags.len;
    while (at < end) {
        perf_bytes tag = {at + 1, *at};
        at += 1 + tag.len;
        if (at <= end && killed_by(marks, PERF__MARK_TAG, tag, entry->stamp))
            return true;
    }
    return false;
}

bool perf__marks_dead(struct perf__marks *marks, const struct perf__marked *entry)
{
    if (entry->stamp > perf__marks_last(marks))
        return false;
    pthread_rwlock_rdlock(&marks->lock);
    bool dead = entry->stamp <= marks->forgotten ||
                killed_by(marks, PERF__MARK_NAMESPACE, entry->ns, entry->stamp) ||
                (entry->user.len && killed_by(marks, PERF__MARK_USER, entry->user, entry->stamp)) ||
                (entry->tags.len && killed_by_tag(marks, entry)) ||
                (marks->patterns && killed_by_pattern(marks, entry));
    pthread_rwlock_unlock(&marks->lock);
    return dead;
}

void perf__marks_of(struct perf__marks *marks, const struct perf__marked *entry,
                    void (*each)(void *ctx, int kind, perf_bytes name, int64_t stamp), void *ctx)
{
    pthread_rwlock_rdlock(&marks->lock);
    if (marks->forgotten)
        each(ctx, PERF__MARK_ALL, (perf_bytes){"", 0}, marks->forgotten);
    for (const struct perf__mark *mark = marks->table; mark; mark = mark->hh.next) {
        perf_bytes name = {mark->key + 1, mark->len - 1};
        perf_bytes own = mark->key[0] == PERF__MARK_NAMESPACE ? entry->ns
                         : mark->key[0] == PERF__MARK_USER    ? entry->user
                                                              : (perf_bytes){"", 0};
        if (mark->key[0] == PERF__MARK_PATTERN
                ? pattern_matches(mark, entry)
                : name.len == own.len && !memcmp(name.data, own.data, own.len))
            each(ctx, mark->key[0], name, mark->stamp);
    }
    pthread_rwlock_unlock(&marks->lock);
}

void perf__marks_forget(struct perf__marks *marks, int64_t up_to)
{
    pthread_rwlock_wrlock(&marks->lock);
    forget(marks, up_to);
    pthread_rwlock_unlock(&marks->lock);
}

/* ------------------------------------------------------------ public calls */

/* Writes a mark into every tier's queue, then waits for all of them. First error. */
static int persist(perf_cache *cache, int kind, const void *name, size_t len, int64_t stamp)
{
    perf_store_op op = {.kind = PERF_STORE_MARK,
                        .mark_kind = kind,
                        .mark_name = {name, len},
                        .mark_stamp_ms = stamp};
    uint64_t tickets[PERF__TIERS_MAX];
    int first = PERF_OK, submitted[PERF__TIERS_MAX];
    for (size_t i = 0; i < cache->tier_count; i++)
        submitted[i] = perf__tier_submit(cache->tiers[i], &op, &tickets[i]);
    for (size_t i = 0; i < cache->tier_count; i++) {
        int rc = submitted[i] ? submitted[i] : perf__tier_wait(cache->tiers[i], tickets[i]);
        if (rc && !first)
            first = rc;
    }
    return first;
}

static int invalidate(perf_cache *cache, int kind, const void *name, size_t len)
{
    int64_t stamp, forgotten;
    int rc = perf__marks_add(&cache->marks, kind, name, len, &stamp, &forgotten);
    if (rc)
        return rc;
    perf__memory_set_suspect(cache->memory, stamp);
    int forgotten_rc = forgotten ? persist(cache, PERF__MARK_ALL, NULL, 0, forgotten) : PERF_OK;
    rc = persist(cache, kind, name, len, stamp);
    perf__cache_upkeep(cache);
    return rc ? rc : forgotten_rc;
}

static int invalidate_named(perf_cache *cache, int kind, const char *what, const char *name)
{
    int rc = perf__cache_check(cache);
    if (rc)
        return rc;
    if (!name)
        return perf__fail(PERF_EINVAL, "%s is NULL; give a name of 1 to 255 bytes", what);
    size_t len = strnlen(name, PERF__NAME_MAX + 1);
    rc = perf__check_len(what, len, 1, PERF__NAME_MAX);
    return rc ? rc : invalidate(cache, kind, name, len);
}

int perf_cache_invalidate_namespace(perf_cache *cache, const char *ns)
{
    return invalidate_named(cache, PERF__MARK_NAMESPACE, "namespace", ns);
}

int perf_cache_invalidate_user(perf_cache *cache, const char *user)
{
    return invalidate_named(cache, PERF__MARK_USER, "user", user);
}

int perf_cache_invalidate_tag(perf_cache *cache, const char *tag)
{
    return invalidate_named(cache, PERF__MARK_TAG, "tag", tag);
}

int perf_cache_invalidate_pattern(perf_cache *cache, const char *ns, const char *pattern)
{
    int rc = perf__cache_check(cache);
    if (rc)
        return rc;
    if (!pattern)
        return perf__fail(PERF_EINVAL, "pattern is NULL; give '*' for every key");
    size_t ns_len = ns ? strnlen(ns, PERF__NAME_MAX + 1) : 0;
    size_t len = strnlen(pattern, 1025);
    if ((ns && (rc = perf__check_len("namespace", ns_len, 1, PERF__NAME_MAX))) ||
        (rc = perf__check_len("pattern", len, 1, 1024)))
        return rc;
    char name[PERF__MARK_NAME_MAX];
    if (ns_len)
        memcpy(name, ns, ns_len);
    name[ns_len] = '\0';
    memcpy(name + ns_len + 1, pattern, len);
    return invalidate(cache, PERF__MARK_PATTERN, name, ns_len + 1 + len);
}

int perf_cache_clear(perf_cache *cache)
{
    int rc = perf__cache_check(cache);
    return rc ? rc : invalidate(cache, PERF__MARK_ALL, NULL, 0);
}
