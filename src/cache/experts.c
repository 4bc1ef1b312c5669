// SPDX-License-Identifier: MIT
/*
 * The experts of the council, each on the shared records. All count weight, so that the same
 * code serves caches bounded by entries (every weight 1) and by bytes. An expert sees every
 * request in order, and no expert looks at another's lists.
 */
#include "council.h"

#define S3_SMALL_PART   10  /* a 10th for newcomers */
#define LIRS_QUEUE_PART 100 /* a 100th for blocks without a known reuse distance */
#define LIRS_GHOSTS     2   /* capacities of ghosts */

static bool has(const struct perf__council *c, enum perf__list list, enum perf__lane lane)
{
    return perf__council_back(c, lane, list) != list;
}

static void move_to(struct perf__council *c, enum perf__expert e, enum perf__lane lane,
                    enum perf__list list, uint32_t index)
{
    struct perf__council_record *record = &c->records[index];
    if (record->list[e] != 0) {
        perf__council_pull(c, lane, (enum perf__list)record->list[e], index);
    }
    record->list[e] = (uint8_t)list;
    if (list != 0) {
        perf__council_push(c, lane, list, index);
    }
}

static void drop(struct perf__council *c, enum perf__expert e, enum perf__lane lane, uint32_t index)
{
    move_to(c, e, lane, (enum perf__list)0, index);
    perf__council_released(c, index);
}

/* ---- LRU ---- */

static bool lru(struct perf__council *c, uint32_t index)
{
    bool hit = c->records[index].list[PERF__LRU] != 0;
    move_to(c, PERF__LRU, LANE_LRU, LIST_LRU, index);
    while (c->held[LIST_LRU] > c->capacity) {
        uint32_t victim = perf__council_back(c, LANE_LRU, LIST_LRU);
        perf__council_holds(c, PERF__LRU, victim, false);
        drop(c, PERF__LRU, LANE_LRU, victim);
    }
    return hit;
}

/* ---- S3-FIFO ---- */

static void s3_evict(struct perf__council *c)
{
    uint64_t small_room = c->capacity / S3_SMALL_PART ? c->capacity / S3_SMALL_PART : 1;
    bool small = c->held[LIST_S3_SMALL] >= small_room || !has(c, LIST_S3_MAIN, LANE_S3);
    small = small && has(c, LIST_S3_SMALL, LANE_S3);
    uint32_t victim = perf__council_back(c, LANE_S3, small ? LIST_S3_SMALL : LIST_S3_MAIN);
    struct perf__council_record *record = &c->records[victim];
    if (small ? record->s3_uses >= 2 : record->s3_uses > 0) {
        record->s3_uses = (small ? 0u : record->s3_uses - 1u) & 3;
        move_to(c, PERF__S3FIFO, LANE_S3, LIST_S3_MAIN, victim);
        return;
    }
    perf__council_holds(c, PERF__S3FIFO, victim, false);
    if (!small) {
        drop(c, PERF__S3FIFO, LANE_S3, victim);
        return;
    }
    move_to(c, PERF__S3FIFO, LANE_S3, LIST_S3_GHOST, victim);
    while (c->held[LIST_S3_GHOST] > c->capacity) {
        drop(c, PERF__S3FIFO, LANE_S3, perf__council_back(c, LANE_S3, LIST_S3_GHOST));
    }
}

static bool s3fifo(struct perf__council *c, uint32_t index)
{
    struct perf__council_record *record = &c->records[index];
    uint8_t at = record->list[PERF__S3FIFO];
    if (at == LIST_S3_SMALL || at == LIST_S3_MAIN) {
        record->s3_uses = (record->s3_uses < 3 ? record->s3_uses + 1u : 3u) & 3;
        return true;
    }
    drop(c, PERF__S3FIFO, LANE_S3, index);
    while (c->held[LIST_S3_SMALL] + c->held[LIST_S3_MAIN] + record->weight > c->capacity) {
        s3_evict(c);
    }
    record->s3_uses = 0;
    move_to(c, PERF__S3FIFO, LANE_S3, at == LIST_S3_GHOST ? LIST_S3_MAIN : LIST_S3_SMALL, index);
    return false;
}

/* ---- LIRS ---- */

static void lirs_unstack(struct perf__council *c, uint32_t index)
{
    if (c->records[index].in_stack) {
        perf__council_pull(c, LANE_STACK, LIST_LIRS_STACK, index);
        c->records[index].in_stack = 0;
    }
}

static void lirs_stack(struct perf__council *c, uint32_t index)
{
    lirs_unstack(c, index);
    perf__council_push(c, LANE_STACK, LIST_LIRS_STACK, index);
    c->records[index].in_stack = 1;
}

static void lirs_set(struct perf__council *c, uint32_t index, bool lir)
{
    struct perf__council_record *record = &c->records[index];
    c->lir -= record->lir ? record->weight : 0;
    record->lir = lir;
    c->lir += lir ? record->weight : 0;
}

/* The bottom of the stack is a LIR block, always: what is below the last one has no meaning. */
static void lirs_prune(struct perf__council *c)
{
    while (has(c, LIST_LIRS_STACK, LANE_STACK)) {
        uint32_t bottom = perf__council_back(c, LANE_STACK, LIST_LIRS_STACK);
        if (c->records[bottom].lir) {
            return;
        }
        lirs_unstack(c, bottom);
        if (c->records[bottom].list[PERF__LIRS] == LIST_LIRS_GHOST) {
            drop(c, PERF__LIRS, LANE_LIRS, bottom);
        }
    }
}

static void lirs_balance(struct perf__council *c, uint64_t lir_room)
{
    while (c->lir > lir_room) {
        uint32_t bottom = perf__council_back(c, LANE_STACK, LIST_LIRS_STACK);
        lirs_unstack(c, bottom);
        lirs_set(c, bottom, false);
        move_to(c, PERF__LIRS, LANE_LIRS, LIST_LIRS_QUEUE, bottom);
        lirs_prune(c);
    }
}

static void lirs_drop_ghost(struct perf__council *c)
{
    uint32_t oldest = perf__council_back(c, LANE_LIRS, LIST_LIRS_GHOST);
    lirs_unstack(c, oldest);
    drop(c, PERF__LIRS, LANE_LIRS, oldest);
}

static void lirs_evict(struct perf__council *c)
{
    if (!has(c, LIST_LIRS_QUEUE, LANE_LIRS)) {
        lirs_balance(c, c->lir - 1);
    }
    uint32_t victim = perf__council_back(c, LANE_LIRS, LIST_LIRS_QUEUE);
    perf__council_holds(c, PERF__LIRS, victim, false);
    if (!c->records[victim].in_stack) {
        drop(c, PERF__LIRS, LANE_LIRS, victim);
        return;
    }
    move_to(c, PERF__LIRS, LANE_LIRS, LIST_LIRS_GHOST, victim);
    while (c->held[LIST_LIRS_GHOST] > LIRS_GHOSTS * c->capacity) {
        lirs_drop_ghost(c);
    }
}

static bool lirs(struct perf__council *c, uint32_t index)
{
    struct perf__council_record *record = &c->records[index];
    uint64_t queue_room = c->capacity / LIRS_QUEUE_PART;
    queue_room = queue_room > record->weight ? queue_room : record->weight;
    uint64_t lir_room = c->capacity - queue_room;
    if (record->lir) {
        lirs_stack(c, index);
        lirs_prune(c);
        return true;
    }
    bool hit = record->list[PERF__LIRS] == LIST_LIRS_QUEUE;
    while (!hit && c->lir + c->held[LIST_LIRS_QUEUE] + record->weight > c->capacity) {
        lirs_evict(c);
    }
    bool room = c->lir + record->weight <= lir_room && c->held[LIST_LIRS_QUEUE] == 0;
    bool known = record->in_stack && lir_room >= record->weight;
    lirs_stack(c, index);
    if (room || known) {
        move_to(c, PERF__LIRS, LANE_LIRS, (enum perf__list)0, index);
        lirs_set(c, index, true);
        lirs_balance(c, lir_room);
    } else {
        move_to(c, PERF__LIRS, LANE_LIRS, LIST_LIRS_QUEUE, index);
    }
    lirs_prune(c);
    return hit;
}

/* ---- ARC ---- */

static uint64_t arc_held(const struct perf__council *c)
{
    return c->held[LIST_ARC_RECENT] + c->held[LIST_ARC_FREQUENT];
}

static void arc_evict(struct perf__council *c, bool frequent_ghost)
{
    double recent = (double)c->held[LIST_ARC_RECENT];
    bool from_recent =
        recent > 0 && (recent > c->arc_target || (frequent_ghost && recent >= c->arc_target) ||
                       c->held[LIST_ARC_FREQUENT] == 0);
    uint32_t victim =
        perf__council_back(c, LANE_ARC, from_recent ? LIST_ARC_RECENT : LIST_ARC_FREQUENT);
    perf__council_holds(c, PERF__ARC, victim, false);
    move_to(c, PERF__ARC, LANE_ARC, from_recent ? LIST_ARC_RECENT_GHOST : LIST_ARC_FREQUENT_GHOST,
            victim);
}

/* T1 + B1 within the capacity, all four within twice that. */
static void arc_trim(struct perf__council *c)
{
    while (c->held[LIST_ARC_RECENT] + c->held[LIST_ARC_RECENT_GHOST] > c->capacity &&
           has(c, LIST_ARC_RECENT_GHOST, LANE_ARC)) {
        drop(c, PERF__ARC, LANE_ARC, perf__council_back(c, LANE_ARC, LIST_ARC_RECENT_GHOST));
    }
    while (arc_held(c) + c->held[LIST_ARC_RECENT_GHOST] + c->held[LIST_ARC_FREQUENT_GHOST] >
               2 * c->capacity &&
           has(c, LIST_ARC_FREQUENT_GHOST, LANE_ARC)) {
        drop(c, PERF__ARC, LANE_ARC, perf__council_back(c, LANE_ARC, LIST_ARC_FREQUENT_GHOST));
    }
}

static bool arc(struct perf__council *c, uint32_t index)
{
    struct perf__council_record *record = &c->records[index];
    uint8_t at = record->list[PERF__ARC];
    if (at == LIST_ARC_RECENT || at == LIST_ARC_FREQUENT) {
        move_to(c, PERF__ARC, LANE_ARC, LIST_ARC_FREQUENT, index);
        return true;
    }
    double b1 = (double)c->held[LIST_ARC_RECENT_GHOST];
    double b2 = (double)c->held[LIST_ARC_FREQUENT_GHOST], room = (double)c->capacity;
    if (at == LIST_ARC_RECENT_GHOST) {
        c->arc_target += record->weight * (b2 > b1 ? b2 / b1 : 1);
    } else if (at == LIST_ARC_FREQUENT_GHOST) {
        c->arc_target -= record->weight * (b1 > b2 ? b1 / b2 : 1);
    }
    c->arc_target = c->arc_target < 0 ? 0 : c->arc_target > room ? room : c->arc_target;
    drop(c, PERF__ARC, LANE_ARC, index);
    while (arc_held(c) + record->weight > c->capacity) {
        arc_evict(c, at == LIST_ARC_FREQUENT_GHOST);
    }
    move_to(c, PERF__ARC, LANE_ARC, at != 0 ? LIST_ARC_FREQUENT : LIST_ARC_RECENT, index);
    arc_trim(c);
    return false;
}

/* ---- W-TinyLFU, twice: lists[0] is the window, then probation and protected ---- */

struct tiny {
    enum perf__expert e;
    enum perf__lane lane;
    enum perf__list window, probation, protected;
    uint64_t window_room, main_room;
};

static void tiny_reject(struct perf__council *c, const struct tiny *t, uint32_t index)
{
    perf__council_holds(c, t->e, index, false);
    drop(c, t->e, t->lane, index);
}

/* The window's oldest enters main if it is used more than what has to leave for it. */
static void tiny_leave_window(struct perf__council *c, const struct tiny *t)
{
    uint32_t candidate = perf__council_back(c, t->lane, t->window);
    uint64_t weight = c->records[candidate].weight;
    while (c->held[t->probation] + c->held[t->protected] + weight > t->main_room) {
        uint32_t victim = perf__council_back(c, t->lane, t->probation);
        if (victim == t->probation) {
            victim = perf__council_back(c, t->lane, t->protected);
        }
        if (victim < PERF__LISTS ||
            perf__council_uses(c, victim) >= perf__council_uses(c, candidate)) {
            tiny_reject(c, t, candidate);
            return;
        }
        tiny_reject(c, t, victim);
    }
    move_to(c, t->e, t->lane, t->probation, candidate);
}

static bool tinylfu(struct perf__council *c, struct tiny *t, uint32_t index)
{
    uint32_t weight = c->records[index].weight;
    t->window_room = t->window_room > weight ? t->window_room : weight;
    t->main_room = c->capacity - t->window_room;
    uint8_t at = c->records[index].list[t->e];
    if (at == t->probation || at == t->protected) {
        move_to(c, t->e, t->lane, t->protected, index);
        while (c->held[t->protected] > t->main_room / 5 * 4 &&
               perf__council_back(c, t->lane, t->protected) != index) {
            move_to(c, t->e, t->lane, t->probation, perf__council_back(c, t->lane, t->protected));
        }
        return true;
    }
    move_to(c, t->e, t->lane, t->window, index);
    while (c->held[t->window] > t->window_room) {
        tiny_leave_window(c, t);
    }
    return at != 0;
}

static bool tinylfu_1(struct perf__council *c, uint32_t index)
{
    struct tiny t = {.e = PERF__TINYLFU_1,
                     .lane = LANE_TINY_1,
                     .window = LIST_TINY_1,
                     .probation = (enum perf__list)(LIST_TINY_1 + 1),
                     .protected = (enum perf__list)(LIST_TINY_1 + 2),
                     .window_room = c->capacity / 100};
    return tinylfu(c, &t, index);
}

static bool tinylfu_20(struct perf__council *c, uint32_t index)
{
    struct tiny t = {.e = PERF__TINYLFU_20,
                     .lane = LANE_TINY_20,
                     .window = LIST_TINY_20,
                     .probation = (enum perf__list)(LIST_TINY_20 + 1),
                     .protected = (enum perf__list)(LIST_TINY_20 + 2),
                     .window_room = c->capacity / 5};
    return tinylfu(c, &t, index);
}

/* ---- GDSF: the rank of a record is the clock at its last use plus its uses per weight ---- */

/*
 * Uses per weight are rounded to powers of two. All records of such a class have the same term to
 * add, so their order of rank is their order of use, and a queue a class replaces the heap.
 */
static unsigned gdsf_class(const struct perf__council_record *record)
{
    uint64_t ratio = (uint64_t)record->weight * 16 / (record->uses ? record->uses : 1);
    unsigned class = 63u - (unsigned)__builtin_clzll(ratio | 1);
    return class < 31 ? class : 31;
}

static void gdsf_leave(struct perf__council *c, uint32_t index)
{
    struct perf__council_record *record = &c->records[index];
    unsigned list = record->list[PERF__GDSF];
    if (list != 0) {
        move_to(c, PERF__GDSF, LANE_GDSF, (enum perf__list)0, index);
        c->gdsf_held -= record->weight;
        if (!has(c, (enum perf__list)list, LANE_GDSF)) {
            c->gdsf_classes &= ~(1u << (list - LIST_GDSF));
        }
    }
}

static uint32_t gdsf_least(const struct perf__council *c, double *rank)
{
    uint32_t least = 0;
    for (uint32_t classes = c->gdsf_classes; classes != 0; classes &= classes - 1) {
        unsigned class = (unsigned)__builtin_ctz(classes);
        uint32_t oldest = perf__council_back(c, LANE_GDSF, (enum perf__list)(LIST_GDSF + class));
        double r = (double)c->records[oldest].inflation + 1.0 / (double)(1u << class);
        if (least == 0 || r < *rank) {
            least = oldest;
            *rank = r;
        }
    }
    return least;
}

static bool gdsf(struct perf__council *c, uint32_t index)
{
    struct perf__council_record *record = &c->records[index];
    if (!c->sized) {
        return false;
    }
    bool hit = record->list[PERF__GDSF] != 0;
    gdsf_leave(c, index);
    while (c->gdsf_held + record->weight > c->capacity) {
        uint32_t victim = gdsf_least(c, &c->inflation);
        perf__council_holds(c, PERF__GDSF, victim, false);
        gdsf_leave(c, victim);
        perf__council_released(c, victim);
    }
    unsigned class = gdsf_class(record);
    record->inflation = (float)c->inflation;
    move_to(c, PERF__GDSF, LANE_GDSF, (enum perf__list)(LIST_GDSF + class), index);
    c->gdsf_classes |= 1u << class;
    c->gdsf_held += record->weight;
    return hit;
}

/* ---- the table of them ---- */

static const struct {
    bool (*request)(struct perf__council *, uint32_t index);
    enum perf__lane lane;
} experts[PERF__EXPERTS] = {
    [PERF__LRU] = {lru, LANE_LRU},
    [PERF__S3FIFO] = {s3fifo, LANE_S3},
    [PERF__ARC] = {arc, LANE_ARC},
    [PERF__LIRS] = {lirs, LANE_LIRS},
    [PERF__TINYLFU_1] = {tinylfu_1, LANE_TINY_1},
    [PERF__TINYLFU_20] = {tinylfu_20, LANE_TINY_20},
    [PERF__GDSF] = {gdsf, LANE_GDSF},
};

bool perf__expert_request(struct perf__council *c, enum perf__expert e, uint32_t index)
{
    bool hit = experts[e].request(c, index);
    const struct perf__council_record *record = &c->records[index];
    uint8_t list = record->list[e];
    bool ghost = list == LIST_S3_GHOST || list == LIST_LIRS_GHOST;
    bool holds = (list != 0 && !ghost) || (e == PERF__LIRS && record->lir);
    perf__council_holds(c, e, index, holds);
    return hit;
}

void perf__expert_forget(struct perf__council *c, enum perf__expert e, uint32_t index)
{
    perf__council_holds(c, e, index, false);
    if (e == PERF__LIRS) {
        lirs_set(c, index, false);
        lirs_unstack(c, index);
    } else if (e == PERF__GDSF) {
        gdsf_leave(c, index);
    }
    drop(c, e, experts[e].lane, index);
    if (e == PERF__LIRS) {
        lirs_prune(c);
    }
}

bool perf__expert_shed(struct perf__council *c, enum perf__expert e)
{
    /* Of each expert, what it would miss least first. */
    static const uint8_t order[PERF__EXPERTS][5] = {
        [PERF__LRU] = {LIST_LRU},
        [PERF__S3FIFO] = {LIST_S3_GHOST, LIST_S3_SMALL, LIST_S3_MAIN},
        [PERF__ARC] = {LIST_ARC_FREQUENT_GHOST, LIST_ARC_RECENT_GHOST, LIST_ARC_RECENT,
                       LIST_ARC_FREQUENT},
        [PERF__LIRS] = {LIST_LIRS_GHOST, LIST_LIRS_QUEUE},
        [PERF__TINYLFU_1] = {LIST_TINY_1 + 1, LIST_TINY_1 + 2, LIST_TINY_1},
        [PERF__TINYLFU_20] = {LIST_TINY_20 + 1, LIST_TINY_20 + 2, LIST_TINY_20},
    };
    for (int i = 0; i < 5 && order[e][i] != 0; i++) {
        enum perf__list list = (enum perf__list)order[e][i];
        uint32_t oldest = perf__council_back(c, experts[e].lane, list);
        if (oldest != list) {
            perf__expert_forget(c, e, oldest);
            return true;
        }
    }
    double rank;
    uint32_t least = e == PERF__GDSF ? gdsf_least(c, &rank) : 0;
    if (least != 0) {
        perf__expert_forget(c, e, least);
        return true;
    }
    if (e == PERF__LIRS && has(c, LIST_LIRS_STACK, LANE_STACK)) {
        perf__expert_forget(c, e, perf__council_back(c, LANE_STACK, LIST_LIRS_STACK));
        return true;
    }
    return false;
}
