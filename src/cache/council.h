// SPDX-License-Identifier: MIT
/*
 * The council: seven eviction policies simulated side by side over the hashes of one request
 * stream, so that the cache can do what the best of them would be doing now.
 *
 *     LRU         recency         best where what came last comes next
 *     S3-FIFO     quick demotion  best under one-hit wonders         (Yang et al., 2023)
 *     ARC         both, balanced  best when recency and use trade    (Megiddo, Modha, FAST 2003)
 *     LIRS        reuse distance  best under loops and scans         (Jiang, Zhang, 2002)
 *     W-TinyLFU   frequency       best for steady, skewed popularity (Einziger et al., 2017)
 *     GDSF        uses per byte   best for hits when sizes differ    (Cherkasova, HP Labs 1998)
 *
 * W-TinyLFU sits twice, with windows of 1 % and 20 %; GDSF only when weights differ.
 *
 * No stored byte of the cache is involved: a simulated entry is a record of one cache line that all
 * share, found once per request. Ghosts (keys a policy has evicted but remembers) are records too.
 * Records nobody refers to stay until their room is needed, which is what keeps the use counts of
 * W-TinyLFU without a sketch of their own.
 *
 * Not thread-safe: the owner's lock covers every call. Upkeep is amortised O(1) a request.
 */
#ifndef PERF__CACHE_COUNCIL_H
#define PERF__CACHE_COUNCIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum perf__expert {
    PERF__LRU,
    PERF__S3FIFO,
    PERF__ARC,
    PERF__LIRS,
    PERF__TINYLFU_1,
    PERF__TINYLFU_20,
    PERF__GDSF,
    PERF__EXPERTS
};

/* A record is on at most one list of each lane. */
enum perf__lane {
    LANE_LRU,
    LANE_S3,
    LANE_ARC,
    LANE_STACK,
    LANE_LIRS,
    LANE_TINY_1,
    LANE_TINY_20,
    LANE_GDSF,
    PERF__LANES
};

/* Every list is a ring through a record of its own, at the index of its name. */
enum perf__list {
    LIST_IDLE, /* referred to by nobody, by age; uses LANE_LRU */
    LIST_LRU,
    LIST_S3_SMALL,
    LIST_S3_MAIN,
    LIST_S3_GHOST,
    LIST_LIRS_STACK, /* "S": LIR blocks, and HIR blocks seen since the oldest LIR block */
    LIST_LIRS_QUEUE, /* "Q": resident HIR blocks */
    LIST_LIRS_GHOST, /* HIR blocks of S that are not resident, by age */
    LIST_ARC_RECENT, /* T1, T2, B1, B2 of the paper */
    LIST_ARC_FREQUENT,
    LIST_ARC_RECENT_GHOST,
    LIST_ARC_FREQUENT_GHOST,
    LIST_TINY_1,                    /* window, probation, protected */
    LIST_TINY_20 = LIST_TINY_1 + 3, /* the same */
    LIST_GDSF = LIST_TINY_20 + 3,   /* one a class of uses per weight, in factors of two */
    LIST_GDSF_END = LIST_GDSF + 31,
    PERF__LISTS
};

struct perf__council_record {
    struct {
        uint16_t next, prev;
    } link[PERF__LANES];
    uint32_t hash;
    uint32_t weight;
    uint32_t real;               /* the cache's own entry of this hash, 0 when it has none */
    float inflation;             /* GDSF: the clock ("L") at its last use */
    uint16_t chain;              /* next record of the same bucket, 0 at the end */
    uint8_t list[PERF__EXPERTS]; /* where each expert has it; 0 = nowhere */
    uint8_t uses;                /* W-TinyLFU: aged use count, at most 15 */
    uint8_t s3_uses : 2;         /* S3-FIFO: hits since it entered, at most 3 */
    uint8_t in_stack : 1;        /* LIRS: on the stack, whatever list[] says */
    uint8_t lir : 1;             /* LIRS: a LIR block; these are on the stack only */
    uint8_t epoch;               /* ageing period in which `uses` was written */
    uint8_t resident;            /* one bit an expert: would hold it now */
};

struct perf__council {
    struct perf__council_record *records; /* [records_max], the first PERF__LISTS are list heads */
    uint16_t *buckets;                    /* [bucket_mask + 1] */
    uint32_t records_max, records_used;
    uint32_t bucket_mask;
    uint64_t capacity;          /* weight each expert may hold */
    double entries;             /* about as many records as that is */
    uint64_t held[PERF__LISTS]; /* weight on each list */
    uint64_t lir;               /* weight of LIR blocks */
    double arc_target;          /* "p": weight ARC means to give to the recent */
    double inflation;           /* GDSF: rank of the last victim */
    uint64_t gdsf_held;         /* weight on all its lists, */
    uint32_t gdsf_classes;      /* of which these are not empty */
    uint32_t first_weight;      /* of the first request; GDSF sleeps while all are like it */
    bool sized;
    bool by_weight; /* a hit is worth its weight, not one; kept by perf__council_reset */
    uint64_t requests, epoch_ends;
    uint32_t busy; /* the record being requested: not idle whatever its lists say */
    uint8_t epoch;
    uint8_t leader;              /* enum perf__expert */
    double score[PERF__EXPERTS]; /* recent hits, fading over a few capacities' worth of requests */
    /* Told when other experts than before would hold what the cache itself holds. */
    void (*changed)(void *ctx, uint32_t real, unsigned resident);
    void *ctx;
};

/* Bytes of `records` and `buckets` for that many records. */
size_t perf__council_bytes(uint32_t records);
/* Takes zeroed or dirty memory of perf__council_bytes(records) bytes; forgets everything. */
void perf__council_reset(struct perf__council *, void *memory, uint32_t records);
/* No record is unused or idle: the next new key costs the worst expert one. */
bool perf__council_is_full(const struct perf__council *);
/* Continues in larger memory, which is all that is kept: the caller frees the old. */
void perf__council_grow(struct perf__council *, void *memory, uint32_t records);
/* From now on every expert may hold `capacity`, which is room for about `entries`; what is too much
 * leaves as requests come. */
void perf__council_resize(struct perf__council *, uint64_t capacity, double entries);
/* A request for the key of this hash. A weight of 0 means as before. */
void perf__council_request(struct perf__council *, uint32_t hash, uint32_t weight);
/* The key is gone for a reason other than room: nobody holds it now. */
void perf__council_forget(struct perf__council *, uint32_t hash);
/* The record of a hash, or NULL. */
struct perf__council_record *perf__council_find(const struct perf__council *, uint32_t hash);

/* ---- between council.c and experts.c ---- */

/* One request for record `index` as expert `e` sees it; true when it was a hit. */
bool perf__expert_request(struct perf__council *, enum perf__expert e, uint32_t index);
void perf__expert_forget(struct perf__council *, enum perf__expert e, uint32_t index);
/* The expert gives up one record, a ghost if it has any; false when it has none. */
bool perf__expert_shed(struct perf__council *, enum perf__expert e);

/* An expert has taken the record off its lists: it may now be idle. */
void perf__council_released(struct perf__council *, uint32_t index);
/* The aged use count of a record. */
unsigned perf__council_uses(struct perf__council *, uint32_t index);

static inline void perf__council_push(struct perf__council *c, enum perf__lane lane,
                                      enum perf__list list, uint32_t index)
{
    struct perf__council_record *records = c->records;
    uint32_t head = list, first = records[head].link[lane].next;
    records[index].link[lane].next = (uint16_t)first;
    records[index].link[lane].prev = (uint16_t)head;
    records[first].link[lane].prev = (uint16_t)index;
    records[head].link[lane].next = (uint16_t)index;
    c->held[list] += records[index].weight;
}

static inline void perf__council_pull(struct perf__council *c, enum perf__lane lane,
                                      enum perf__list list, uint32_t index)
{
    struct perf__council_record *records = c->records;
    uint16_t next = records[index].link[lane].next, prev = records[index].link[lane].prev;
    records[prev].link[lane].next = next;
    records[next].link[lane].prev = prev;
    c->held[list] -= records[index].weight;
}

static inline uint32_t perf__council_back(const struct perf__council *c, enum perf__lane lane,
                                          enum perf__list list)
{
    return c->records[list].link[lane].prev;
}

/* Whether an expert holds (resident) the record. */
static inline void perf__council_holds(struct perf__council *c, enum perf__expert expert,
                                       uint32_t index, bool holds)
{
    struct perf__council_record *record = &c->records[index];
    unsigned bit = 1u << expert;
    unsigned resident = holds ? record->resident | bit : record->resident & ~bit;
    if (resident != record->resident) {
        record->resident = (uint8_t)resident;
        if (record->real != 0 && index != c->busy) {
            c->changed(c->ctx, record->real, resident);
        }
    }
}

#endif
