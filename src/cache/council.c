// SPDX-License-Identifier: MIT
/*
 * The council's directory of records, its scores and the choice of its leader. What the experts do
 * with a request is in experts.c.
 *
 * An expert's score is its hits, fading with a time constant of 64 capacities of requests. That is
 * long on purpose: in a loop of ten capacities the experts that do well keep different stretches of
 * it, lead in turn at 4 to 32 capacities, and the cache that follows them loses a quarter to two
 * thirds of the hits. The leader changes when another is more than one hit ahead; a margin of 1 %
 * more costs 0.07 points on average over our streams, 4 % costs 0.3.
 */
#include "council.h"

#include <string.h>

#define FADE_CAPACITIES   64
#define FADE_MIN          500
#define AGEING_CAPACITIES 10
#define AGEING_MIN        160

static uint32_t buckets_for(uint32_t records)
{
    uint32_t buckets = 64;
    while (buckets < records) {
        buckets *= 2;
    }
    return buckets;
}

size_t perf__council_bytes(uint32_t records)
{
    return (size_t)records * sizeof(struct perf__council_record) +
           (size_t)buckets_for(records) * sizeof(uint16_t);
}

void perf__council_reset(struct perf__council *c, void *memory, uint32_t records)
{
    void (*changed)(void *, uint32_t, unsigned) = c->changed;
    void *ctx = c->ctx;
    bool by_weight = c->by_weight;
    *c = (struct perf__council){
        .changed = changed, .ctx = ctx, .by_weight = by_weight, .leader = PERF__S3FIFO};
    c->records = memory;
    c->buckets = (uint16_t *)(void *)(c->records + records);
    c->records_max = records;
    c->records_used = PERF__LISTS;
    c->bucket_mask = buckets_for(records) - 1;
    memset(c->buckets, 0, ((size_t)c->bucket_mask + 1) * sizeof *c->buckets);
    for (uint32_t list = 0; list < PERF__LISTS; list++) {
        memset(&c->records[list], 0, sizeof c->records[list]);
        for (int lane = 0; lane < PERF__LANES; lane++) {
            c->records[list].link[lane].next = c->records[list].link[lane].prev = (uint16_t)list;
        }
    }
    perf__council_resize(c, 1, 1);
}

bool perf__council_is_full(const struct perf__council *c)
{
    return c->records_used == c->records_max &&
           perf__council_back(c, LANE_LRU, LIST_IDLE) == LIST_IDLE;
}

static uint16_t *bucket_of(const struct perf__council *c, uint32_t hash)
{
    return &c->buckets[(hash * 0x9E3779B1u >> 7) & c->bucket_mask];
}

void perf__council_grow(struct perf__council *c, void *memory, uint32_t records)
{
    memcpy(memory, c->records, c->records_used * sizeof *c->records);
    c->records = memory;
    c->records_max = records;
    c->buckets = (uint16_t *)(void *)(c->records + records);
    c->bucket_mask = buckets_for(records) - 1;
    memset(c->buckets, 0, ((size_t)c->bucket_mask + 1) * sizeof *c->buckets);
    for (uint32_t index = PERF__LISTS; index < c->records_used; index++) {
        uint16_t *bucket = bucket_of(c, c->records[index].hash);
        c->records[index].chain = *bucket;
        *bucket = (uint16_t)index;
    }
}

void perf__council_resize(struct perf__council *c, uint64_t capacity, double entries)
{
    c->capacity = capacity ? capacity : 1;
    c->entries = entries < 1 ? 1 : entries;
}

struct perf__council_record *perf__council_find(const struct perf__council *c, uint32_t hash)
{
    if (c->records == NULL) {
        return NULL;
    }
    for (uint32_t at = *bucket_of(c, hash); at != 0; at = c->records[at].chain) {
        if (c->records[at].hash == hash) {
            return &c->records[at];
        }
    }
    return NULL;
}

static bool is_idle(const struct perf__council_record *record)
{
    unsigned lists = record->in_stack;
    for (int e = 0; e < PERF__EXPERTS; e++) {
        lists |= record->list[e];
    }
    return lists == 0;
}

/* When the experts agree on so little that records run short, the worst of them pays. */
static void make_idle(struct perf__council *c)
{
    uint8_t order[PERF__EXPERTS];
    for (uint8_t e = 0; e < PERF__EXPERTS; e++) {
        uint8_t at = e;
        for (; at > 0 && c->score[order[at - 1]] > c->score[e]; at--) {
            order[at] = order[at - 1];
        }
        order[at] = e;
    }
    for (int i = 0; i < PERF__EXPERTS; i++) {
        enum perf__expert e = (enum perf__expert)order[i];
        while (c->records[LIST_IDLE].link[LANE_LRU].prev == LIST_IDLE && perf__expert_shed(c, e)) {
        }
    }
}

/* An index for a new record: never used, or the one that has been idle for longest. */
static uint32_t take_record(struct perf__council *c)
{
    if (c->records_used < c->records_max) {
        return c->records_used++;
    }
    if (perf__council_back(c, LANE_LRU, LIST_IDLE) == LIST_IDLE) {
        make_idle(c);
    }
    uint32_t index = perf__council_back(c, LANE_LRU, LIST_IDLE);
    perf__council_pull(c, LANE_LRU, LIST_IDLE, index);
    uint16_t *link = bucket_of(c, c->records[index].hash);
    while (*link != index) {
        link = &c->records[*link].chain;
    }
    *link = c->records[index].chain;
    return index;
}

void perf__council_released(struct perf__council *c, uint32_t index)
{
    if (index != c->busy && is_idle(&c->records[index])) {
        perf__council_push(c, LANE_LRU, LIST_IDLE, index);
    }
}

unsigned perf__council_uses(struct perf__council *c, uint32_t index)
{
    struct perf__council_record *record = &c->records[index];
    uint8_t behind = (uint8_t)(c->epoch - record->epoch);
    record->uses = (uint8_t)(behind < 4 ? record->uses >> behind : 0);
    record->epoch = c->epoch;
    return record->uses;
}

/* worth: of this request; one on average. */
static void score(struct perf__council *c, unsigned hits, double worth)
{
    double span = c->entries * FADE_CAPACITIES;
    double fade = 1 - 1 / (span < FADE_MIN ? FADE_MIN : span);
    uint8_t best = c->leader;
    for (uint8_t e = 0; e < PERF__EXPERTS; e++) {
        c->score[e] = c->score[e] * fade + ((hits >> e) & 1) * worth;
        best = c->score[e] > c->score[best] ? e : best;
    }
    if (c->score[best] > c->score[c->leader] + 1) {
        c->leader = best;
    }
}

void perf__council_request(struct perf__council *c, uint32_t hash, uint32_t weight)
{
    struct perf__council_record *record = perf__council_find(c, hash);
    uint32_t index;
    if (record == NULL) {
        index = take_record(c);
        record = &c->records[index];
        uint16_t *bucket = bucket_of(c, hash);
        memset(record, 0, sizeof *record);
        record->hash = hash;
        record->weight = weight ? weight : 1;
        record->epoch = c->epoch;
        record->chain = *bucket;
        *bucket = (uint16_t)index;
    } else {
        index = (uint32_t)(record - c->records);
        if (is_idle(record)) {
            perf__council_pull(c, LANE_LRU, LIST_IDLE, index);
        }
        if (weight != 0 && weight != record->weight) {
            c->busy = index;
            for (int e = 0; e < PERF__EXPERTS; e++) {
                perf__expert_forget(c, (enum perf__expert)e, index);
            }
            record->weight = weight;
        }
    }
    c->first_weight = c->first_weight ? c->first_weight : record->weight;
    c->sized |= record->weight != c->first_weight;
    c->busy = index;
    unsigned uses = perf__council_uses(c, index);
    record->uses = (uint8_t)(uses < 15 ? uses + 1 : 15);
    if (++c->requests >= c->epoch_ends) {
        double period = c->entries * AGEING_CAPACITIES;
        c->epoch_ends = c->requests + (uint64_t)(period < AGEING_MIN ? AGEING_MIN : period);
        c->epoch++;
    }
    unsigned hits = 0, resident = record->resident;
    if (record->weight <= c->capacity) {
        for (unsigned e = 0; e < PERF__EXPERTS; e++) {
            hits |= (unsigned)perf__expert_request(c, (enum perf__expert)e, index) << e;
        }
    }
    c->busy = 0;
    double worth = 1;
    if (c->by_weight) /* in part: keys that are asked for in several sizes mislead */
        worth = (1 + 3 * record->weight * c->entries / (double)c->capacity) / 4;
    if (record->real != 0 && record->resident != resident) {
        c->changed(c->ctx, record->real, record->resident);
    }
    perf__council_released(c, index);
    score(c, hits, worth);
}

void perf__council_forget(struct perf__council *c, uint32_t hash)
{
    struct perf__council_record *record = perf__council_find(c, hash);
    if (record == NULL) {
        return;
    }
    uint32_t index = (uint32_t)(record - c->records);
    record->real = 0;
    if (is_idle(record)) {
        return;
    }
    c->busy = index;
    for (int e = 0; e < PERF__EXPERTS; e++) {
        perf__expert_forget(c, (enum perf__expert)e, index);
    }
    c->busy = 0;
    perf__council_released(c, index);
}
