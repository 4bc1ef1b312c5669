/* SPDX-License-Identifier: MIT */
/*
 * sqlite_room.c - keeps the database within its bound.
 *
 * What counts is what the file really uses: its pages less the free ones, so
 * keys, trees and half-full pages are all in it. Freed pages are used again and
 * the file does not grow past the bound; it does not shrink either, and the
 * write-ahead log beside it takes up to 4 MiB more.
 *
 * Eviction is CLOCK (Corbato 1968) over the row numbers. Those are hashes, so
 * the hand's way is a random order that needs no index, and since it removes
 * neighbours, whole pages become free. A row that was written since the hand
 * last came by is spared once, one that was read is spared twice, so that a
 * stream of new rows does not wash out those in use. That is remembered in an
 * array of bits in memory: reading never writes to the disk. The bits are this
 * process's own, start empty, and are shared by rows whose numbers collide.
 *
 * Everything here runs under the gate and inside a transaction.
 */
#include "sqlite.h"

enum {
    CHUNK_ROWS = 128,     /* rows the hand looks at in one step */
    CHANCES = 32,         /* steps without a victim before they are forced: a few ms */
    CHECK_BYTES = 1 << 20 /* other processes write too: look again after so much */
};

int perf__sqlite_measure(struct sqlite_store *s)
{
    int64_t pages, unused;
    int rc = perf__sqlite_number(s, s->writer.page_count, &pages);
    if (!rc)
        rc = perf__sqlite_number(s, s->writer.free_count, &unused);
    if (rc)
        return rc;
    s->used_bytes = (pages - unused) * s->page_size;
    s->since_used = 0;
    return PERF_OK;
}

/* Was the row used lately? Takes away one of its chances. */
static bool was_recent(struct sqlite_store *s, int64_t row)
{
    unsigned shift;
    _Atomic uint64_t *word = sqlite_recent_word(s, row, &shift);
    uint64_t how = atomic_load_explicit(word, memory_order_relaxed) >> shift;
    if (how & ROW_READ) {
        atomic_fetch_and_explicit(word, ~((uint64_t)ROW_READ << shift), memory_order_relaxed);
        atomic_fetch_or_explicit(word, (uint64_t)ROW_WRITTEN << shift, memory_order_relaxed);
    } else if (how & ROW_WRITTEN) {
        atomic_fetch_and_explicit(word, ~((uint64_t)ROW_WRITTEN << shift), memory_order_relaxed);
    }
    return how & (ROW_READ | ROW_WRITTEN);
}

/* Moves the hand over at most limit rows. *seen is 0 when there are no rows at all. */
static int advance(struct sqlite_store *s, size_t limit, bool spare, size_t *seen, size_t *evicted)
{
    int64_t rows[CHUNK_ROWS];
    if (limit > CHUNK_ROWS)
        limit = CHUNK_ROWS;
    size_t count = 0;
    sqlite3_stmt *walk = s->writer.walk;
    for (int round = 0; round < 2 && !count; round++) {
        int code;
        sqlite3_bind_int64(walk, 1, s->hand);
        sqlite3_bind_int64(walk, 2, (int64_t)limit);
        while ((code = sqlite3_step(walk)) == SQLITE_ROW)
            rows[count++] = sqlite3_column_int64(walk, 0);
        int rc =
            code == SQLITE_DONE ? PERF_OK : perf__sqlite_fail(s, s->writer.db, "looking for room");
        sqlite3_reset(walk);
        if (rc)
            return rc;
        if (count < limit) /* the end: go on from the other */
            s->hand = INT64_MIN;
        else
            s->hand = rows[count - 1] == INT64_MAX ? INT64_MIN : rows[count - 1] + 1;
    }
    *seen = count;
    *evicted = 0;
    for (size_t i = 0; i < count; i++) {
        if (was_recent(s, rows[i]) && spare)
            continue;
        sqlite3_bind_int64(s->writer.evict, 1, rows[i]);
        int rc = perf__sqlite_step(s, s->writer.evict, "making room");
        if (rc)
            return rc;
        ++*evicted;
    }
    return PERF_OK;
}

int perf__sqlite_make_room(struct sqlite_store *s, int64_t incoming, size_t surplus_rows)
{
    /* A cheap guess first: rows take up to twice their bytes while pages split. */
    s->since_used += incoming;
    if (s->since_used < CHECK_BYTES && s->used_bytes + 2 * s->since_used <= s->max_bytes)
        return PERF_OK;
    int rc = perf__sqlite_measure(s);
    if (rc)
        return rc;
    int64_t before = s->used_bytes;
    size_t looked = 0;
    int barren = 0;
    uint64_t gone = 0;
    while (s->used_bytes + incoming > s->max_bytes) {
        size_t seen, evicted, limit = CHUNK_ROWS;
        if (before - s->used_bytes >= incoming) {
            if (looked >= surplus_rows)
                break;
            limit = surplus_rows - looked;
        }
        rc = advance(s, limit, barren < CHANCES, &seen, &evicted);
        if (rc || !seen)
            break;
        looked += seen;
        gone += evicted;
        barren = evicted ? 0 : barren + 1;
        if (evicted && (rc = perf__sqlite_measure(s)))
            break;
    }
    s->since_used = incoming;
    atomic_fetch_add_explicit(&s->evictions, gone, memory_order_relaxed);
    return rc;
}
