// SPDX-License-Identifier: MIT
/*
 * Eviction by following whichever known policy does best on this stream now.
 *
 * The idea. No fixed policy wins everywhere (LRU gets nothing from a loop, frequency gets nothing
 * from keys asked for twice), and parameters that climb hills are slow. So the known policies run
 * side by side over hashes (council.h), each with the capacity this cache has, and when room is
 * needed the cache evicts what the current best would not hold. Following lazily costs at most one
 * miss an entry the two disagree about (Blum and Burch, "On-line learning and the metrical task
 * system problem", 1997). Among entries that are the same to the leader the others vote: there is
 * one list for each set of experts that would hold an entry, and the oldest of the least wanted
 * set goes. A change of leader therefore costs nothing but a different order of the lists.
 *
 * Hits take no lock, so they reach the council through small lossy logs, read at the next insert.
 * One thread loses a note only after 248 hits in a row; a full log is read, never written.
 *
 * Small and big. Up to 16000 entries every entry has its records: about 270 bytes an entry, 86 KiB
 * at least, 0.8 us for an insert and victim at 1000 entries, 2 us at 16000. Beyond that (or beyond
 * config.memory) the council sees a spatial sample of the keys (Waldspurger et al., "Cache modeling
 * and optimization using miniature simulations", USENIX ATC 2017) and only its leader's name is
 * used: two lists in second-chance order and hashed ghosts imitate it, with the leader's share for
 * newcomers. That costs 6 bytes an entry at 125000, a quarter of a microsecond of mostly cache
 * misses, and on average 0.6 points of hit ratio against the full council.
 *
 * Sizes. All experts count weight, and once weights differ GDSF joins them. Scores count hits, not
 * bytes: on our two sized traces objects win by 1.2 to 9 points over LRU and bytes do not lose.
 *
 * Figures (hit ratio, against the best of LRU, FIFO, CLOCK, SIEVE, S3-FIFO, 2Q, ARC, LIRS,
 * W-TinyLFU with 1 % and 20 %, and LFU, each chosen in hindsight, as tests/bench/policies prints
 * them): over 19 real and synthetic streams at three sizes 0.07 points below on average, 1.3 at
 * worst, and up to 2.1 above.
 */
#include "policy.h"

#include <stdlib.h>
#include <string.h>

#define ENTRIES_FULL      16000u /* up to here every entry has its records */
#define RECORDS_PER_ENTRY 4u     /* residents and ghosts of all experts together */
#define RECORDS_MIN       1200u
#define RECORDS_MAX       65535u  /* their links have 16 bits */
#define SAMPLE_ENTRIES    1024u   /* entries simulated for a big instance */
#define TICK_MASK         0x7FFFu /* 256 ticks a capacity's worth of insertions */
#define STEPS_MAX         16      /* nodes looked at for one victim */

/* ---- lists of nodes ---- */

static struct perf__node *node_at(const struct perf__policy *p, uint32_t ref)
{
    return (struct perf__node *)(void *)(p->base + (size_t)ref * 8);
}

static unsigned list_index(const struct perf__node *node)
{
    uint32_t meta = atomic_load_explicit(&node->meta, memory_order_relaxed);
    return meta >> PERF__META_LIST_SHIFT & 127;
}

static struct perf__policy_list *list_of(struct perf__policy *p, const struct perf__node *node)
{
    return &p->lists[list_index(node)];
}

static void set_meta(struct perf__node *node, uint32_t clear, uint32_t set)
{
    uint32_t meta = atomic_load_explicit(&node->meta, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&node->meta, &meta, (meta & ~clear) | set,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void link_newest(struct perf__policy *p, struct perf__policy_list *list, uint32_t ref)
{
    struct perf__node *node = node_at(p, ref);
    node->prev = 0;
    node->next = list->newest;
    if (list->newest != 0) {
        node_at(p, list->newest)->prev = ref;
    } else {
        list->oldest = ref;
    }
    list->newest = ref;
    p->in_use[(list - p->lists) / 64] |= 1ull << (list - p->lists) % 64;
    list->weight += p->weight(p->weight_ctx, ref);
}

static void unlink_node(struct perf__policy *p, struct perf__policy_list *list, uint32_t ref)
{
    struct perf__node *node = node_at(p, ref);
    *(node->prev ? &node_at(p, node->prev)->next : &list->newest) = node->next;
    *(node->next ? &node_at(p, node->next)->prev : &list->oldest) = node->prev;
    list->weight -= p->weight(p->weight_ctx, ref);
    if (list->newest == 0) {
        p->in_use[(list - p->lists) / 64] &= ~(1ull << (list - p->lists) % 64);
    }
}

/* ---- ghosts of big instances ---- */

static uint32_t *ghost_bucket(const struct perf__policy *p, uint32_t hash)
{
    return &p->ghosts[(hash * 0x85EBCA6Bu >> 3) & p->ghost_mask & ~3u];
}

static uint32_t ghost_print(uint32_t hash)
{
    uint32_t print = (hash * 0xC2B2AE35u) >> 16;
    return (print ? print : 1) << 16;
}

static uint32_t ticks_since(const struct perf__policy *p, uint32_t tick)
{
    return (p->tick - tick) & TICK_MASK;
}

static void ghost_add(struct perf__policy *p, uint32_t hash)
{
    uint32_t *bucket = ghost_bucket(p, hash), *oldest = bucket;
    for (int i = 0; i < 4 && *oldest != 0; i++) {
        uint32_t age = ticks_since(p, bucket[i]), most = ticks_since(p, *oldest);
        oldest = bucket[i] == 0 || age > most ? &bucket[i] : oldest;
    }
    *oldest = ghost_print(hash) | p->tick;
}

/* Ticks since the key was evicted, -1 when not remembered; forgets it. */
static int32_t ghost_take(struct perf__policy *p, uint32_t hash)
{
    uint32_t *bucket = ghost_bucket(p, hash), print = ghost_print(hash);
    for (int i = 0; i < 4; i++) {
        if ((bucket[i] & 0xFFFF0000u) == print) {
            int32_t age = (int32_t)ticks_since(p, bucket[i]);
            bucket[i] = 0;
            return age;
        }
    }
    return -1;
}

/* ---- what the council sees ---- */

static void council_request(struct perf__policy *p, uint32_t hash, uint32_t weight)
{
    if (perf__policy_sampled(p, hash)) {
        perf__council_request(&p->council, hash, weight);
    }
}

static void drain_logs(struct perf__policy *p)
{
    for (int lane = 0; lane < PERF__LOG_LANES; lane++) {
        struct perf__log *log = &p->logs[lane];
        uint32_t used = atomic_load_explicit(&log->used, memory_order_acquire);
        for (uint32_t i = 0; i < used && i < PERF__LOG_SIZE; i++) {
            uint32_t hash = atomic_load_explicit(&log->hash[i], memory_order_relaxed);
            perf__council_request(&p->council, hash, 0);
        }
        if (used != 0) {
            atomic_store_explicit(&log->used, 0, memory_order_relaxed);
        }
    }
}

static bool full(const struct perf__policy *p)
{
    return p->sample_shift == 0;
}

/* Other experts than before would hold this entry. */
static void opinion_changed(void *ctx, uint32_t ref, unsigned resident)
{
    struct perf__policy *p = ctx;
    if (full(p)) {
        struct perf__node *node = node_at(p, ref);
        unlink_node(p, list_of(p, node), ref);
        set_meta(node, 127u << PERF__META_LIST_SHIFT, resident << PERF__META_LIST_SHIFT);
        link_newest(p, &p->lists[resident], ref);
    }
}

/* ---- the calls ---- */

static void *default_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return malloc(size);
}

static void default_free(void *ctx, void *memory)
{
    (void)ctx;
    free(memory);
}

int perf__policy_init(struct perf__policy *p, const struct perf__policy_config *config)
{
    *p = (struct perf__policy){.base = config->base,
                               .weight = config->weight,
                               .weight_ctx = config->weight_ctx,
                               .alloc = config->alloc ? config->alloc : default_alloc,
                               .free = config->alloc ? config->free : default_free,
                               .alloc_ctx = config->alloc_ctx,
                               .memory_max = config->memory};
    uint32_t entries = config->entries ? config->entries : ENTRIES_FULL + 1;
    uint32_t simulated = entries, ghosts = 0;
    size_t memory = config->memory ? config->memory : SIZE_MAX;
    while (simulated > 64 &&
           (simulated > ENTRIES_FULL ||
            ((p->sample_shift > 0 || config->is_part) && simulated > SAMPLE_ENTRIES) ||
            (size_t)simulated * RECORDS_PER_ENTRY * 70 > memory)) {
        p->sample_shift++;
        simulated = entries >> p->sample_shift;
    }
    p->sample_limit = UINT32_MAX >> p->sample_shift;
    uint32_t records = simulated * RECORDS_PER_ENTRY;
    records = records > RECORDS_MIN ? records : RECORDS_MIN;
    if (!full(p)) {
        for (ghosts = 64; ghosts < entries; ghosts *= 2) {
        }
    }
    size_t logs = sizeof(struct perf__log) * PERF__LOG_LANES;
    p->memory_size = 64 + logs + ghosts * sizeof(uint32_t);
    p->memory = p->alloc(p->alloc_ctx, p->memory_size);
    p->records = p->alloc(p->alloc_ctx, perf__council_bytes(records));
    p->record_count = records;
    if (p->memory == NULL || p->records == NULL) {
        perf__policy_destroy(p);
        return -1;
    }
    unsigned char *at = (unsigned char *)(((uintptr_t)p->memory + 63) & ~(uintptr_t)63);
    p->logs = (struct perf__log *)(void *)at;
    memset(p->logs, 0, logs);
    p->council.by_weight = config->by_weight;
    p->council.changed = opinion_changed;
    p->council.ctx = p;
    perf__council_reset(&p->council, p->records, records);
    uint64_t capacity = config->capacity ? config->capacity : entries;
    perf__council_resize(&p->council, capacity >> p->sample_shift, simulated);
    p->capacity = capacity;
    p->capacity_max = config->capacity;
    if (ghosts != 0) {
        p->ghosts = (uint32_t *)(void *)(at + logs);
        p->ghost_mask = ghosts - 1;
        memset(p->ghosts, 0, ghosts * sizeof(uint32_t));
    }
    return 0;
}

void perf__policy_destroy(struct perf__policy *p)
{
    if (p->memory != NULL) {
        p->free(p->alloc_ctx, p->memory);
        p->memory = NULL;
    }
    if (p->records != NULL) {
        p->free(p->alloc_ctx, p->records);
        p->records = NULL;
    }
}

size_t perf__policy_memory(const struct perf__policy *p)
{
    return sizeof *p + p->memory_size + perf__council_bytes(p->record_count);
}

/* More entries than announced, or smaller ones: the directory doubles (to 65535 records at most,
 * less than a millisecond's copy, and then stays). */
static void grow_when_short(struct perf__policy *p)
{
    uint32_t records = p->record_count * 2 < RECORDS_MAX ? p->record_count * 2 : RECORDS_MAX;
    if (!perf__council_is_full(&p->council) || records == p->record_count ||
        (p->entries >> p->sample_shift) * RECORDS_PER_ENTRY <= p->record_count ||
        (p->memory_max != 0 && perf__council_bytes(records) > p->memory_max)) {
        return;
    }
    void *memory = p->alloc(p->alloc_ctx, perf__council_bytes(records));
    if (memory == NULL) {
        return; /* as good as before, only less well informed */
    }
    perf__council_grow(&p->council, memory, records);
    p->free(p->alloc_ctx, p->records);
    p->records = memory;
    p->record_count = records;
}

/* A ghost that came back this soon belongs on the main list. */
static bool deserves_main(struct perf__policy *p, int32_t age)
{
    if (age < 0 || p->council.leader == PERF__LRU) {
        return false;
    }
    if (p->council.leader == PERF__LIRS && p->lists[1].oldest != 0) {
        uint32_t meta =
            atomic_load_explicit(&node_at(p, p->lists[1].oldest)->meta, memory_order_relaxed);
        return (uint32_t)age < ticks_since(p, meta >> PERF__META_TICK_SHIFT);
    }
    return age <= 256;
}

void perf__policy_insert(struct perf__policy *p, uint32_t ref)
{
    struct perf__node *node = node_at(p, ref);
    uint32_t weight = p->weight(p->weight_ctx, ref);
    if (!full(p)) {
        __builtin_prefetch(ghost_bucket(p, node->hash), 1);
    }
    drain_logs(p);
    grow_when_short(p);
    council_request(p, node->hash, weight);
    uint32_t meta = 0;
    if (full(p)) {
        struct perf__council_record *record = perf__council_find(&p->council, node->hash);
        if (record != NULL) {
            record->real = ref;
            meta = (uint32_t)record->resident << PERF__META_LIST_SHIFT;
        }
    } else {
        p->tick_progress += weight;
        if (p->tick_progress >= p->capacity / 256) {
            p->tick_progress = 0;
            p->tick = (p->tick + 1) & TICK_MASK;
        }
        if (deserves_main(p, ghost_take(p, node->hash))) {
            meta = 1u << PERF__META_LIST_SHIFT | (uint32_t)p->tick << PERF__META_TICK_SHIFT;
        }
    }
    set_meta(node, PERF__META_POLICY, meta);
    p->entries++;
    p->held += weight;
    link_newest(p, list_of(p, node), ref);
}

void perf__policy_update(struct perf__policy *p, uint32_t ref, uint32_t old_weight)
{
    struct perf__node *node = node_at(p, ref);
    struct perf__policy_list *list = list_of(p, node);
    uint32_t weight = p->weight(p->weight_ctx, ref);
    list->weight += (uint64_t)weight - old_weight;
    p->held += (uint64_t)weight - old_weight;
    perf__policy_hit(p, node);
    if (weight != old_weight) {
        drain_logs(p);
        council_request(p, node->hash, weight);
    }
}

void perf__policy_remove(struct perf__policy *p, uint32_t ref)
{
    struct perf__node *node = node_at(p, ref);
    if (perf__policy_sampled(p, node->hash)) {
        drain_logs(p);
        perf__council_forget(&p->council, node->hash);
    }
    unlink_node(p, list_of(p, node), ref);
    p->held -= p->weight(p->weight_ctx, ref);
    p->entries--;
}

void perf__policy_move(struct perf__policy *p, uint32_t old_ref, uint32_t new_ref)
{
    struct perf__node *node = node_at(p, new_ref);
    struct perf__policy_list *list = list_of(p, node);
    *(node->prev ? &node_at(p, node->prev)->next : &list->newest) = new_ref;
    *(node->next ? &node_at(p, node->next)->prev : &list->oldest) = new_ref;
    if (full(p)) {
        struct perf__council_record *record = perf__council_find(&p->council, node->hash);
        if (record != NULL && record->real == old_ref) {
            record->real = new_ref;
        }
    }
}

/* ---- victims ---- */

/* With a record for every entry: the oldest of those the leader would not hold and, of these, with
 * the fewest votes of the others by their scores. */
static uint32_t by_votes(const struct perf__policy *p)
{
    const struct perf__council *c = &p->council;
    double weight[PERF__EXPERTS], all = 1, fewest = 0;
    for (int e = 0; e < PERF__EXPERTS; e++) {
        weight[e] = c->score[e];
        all += c->score[e];
    }
    weight[c->leader] += all;
    uint32_t victim = 0;
    for (unsigned half = 0; half < 2; half++) {
        for (uint64_t sets = p->in_use[half]; sets != 0; sets &= sets - 1) {
            unsigned set = half * 64 + (unsigned)__builtin_ctzll(sets);
            double votes = 0;
            for (unsigned members = set; members != 0; members &= members - 1) {
                votes += weight[__builtin_ctz(members)];
            }
            if (victim == 0 || votes < fewest) {
                victim = p->lists[set].oldest;
                fewest = votes;
            }
        }
    }
    return victim;
}

/* GDSF's habit: of the next few, the one with the most weight for its uses. */
static uint32_t heaviest_near(const struct perf__policy *p, uint32_t ref)
{
    uint32_t victim = ref;
    double most = 0;
    for (int step = 0; step < STEPS_MAX / 2 && ref != 0; step++, ref = node_at(p, ref)->prev) {
        uint32_t meta = atomic_load_explicit(&node_at(p, ref)->meta, memory_order_relaxed);
        double weight = p->weight(p->weight_ctx, ref) / (1.0 + (meta & PERF__META_USES));
        if (weight > most) {
            most = weight;
            victim = ref;
        }
    }
    return victim;
}

/* Without: the leader's habits, on two lists with use counts. */
static uint32_t imitate_leader(struct perf__policy *p)
{
    const struct perf__council *c = &p->council;
    static const double part[PERF__EXPERTS] = {1, 0.1, 0, 0.01, 0.01, 0.2, 0.1};
    double room = part[c->leader] * (double)p->capacity;
    if (c->leader == PERF__ARC) { /* which finds its own */
        room = (double)c->held[LIST_ARC_RECENT] / (double)c->capacity * (double)p->capacity;
    }
    uint32_t ref = 0;
    for (int step = 0; step < STEPS_MAX; step++) {
        bool probation = p->lists[0].oldest != 0 &&
                         ((double)p->lists[0].weight >= room || p->lists[1].oldest == 0);
        struct perf__policy_list *list = probation ? &p->lists[0] : &p->lists[1];
        ref = list->oldest;
        if (ref == 0) {
            return 0;
        }
        struct perf__node *node = node_at(p, ref);
        if (node->prev != 0) {
            __builtin_prefetch(node_at(p, node->prev));
        }
        unsigned uses = atomic_load_explicit(&node->meta, memory_order_relaxed) & PERF__META_USES;
        if (uses < (probation && p->council.leader == PERF__S3FIFO ? 2u : 1u)) {
            break;
        }
        bool to_main = p->council.leader != PERF__LRU;
        unlink_node(p, list, ref);
        set_meta(node, PERF__META_POLICY,
                 (to_main ? 1u << PERF__META_LIST_SHIFT : 0u) | (probation ? 0 : uses - 1) |
                     (uint32_t)p->tick << PERF__META_TICK_SHIFT);
        link_newest(p, to_main ? &p->lists[1] : &p->lists[0], ref);
    }
    if (c->leader == PERF__GDSF) {
        ref = heaviest_near(p, ref);
    }
    return ref;
}

/* What is held after an eviction is the capacity; when one big entry left it is less than that, and
 * when more have to follow it is more, so it falls slowly and stays below what was announced. */
static void learn_capacity(struct perf__policy *p)
{
    uint64_t least = p->evicting ? p->capacity - p->capacity / 256 : 0;
    p->capacity = p->held > least ? p->held : least;
    if (p->capacity_max != 0 && p->capacity > p->capacity_max) {
        p->capacity = p->capacity_max;
    }
    p->evicting = true;
}

uint32_t perf__policy_victim(struct perf__policy *p)
{
    drain_logs(p);
    uint32_t ref = full(p) ? by_votes(p) : imitate_leader(p);
    if (ref == 0) {
        return 0;
    }
    struct perf__node *node = node_at(p, ref);
    if (!full(p)) {
        __builtin_prefetch(ghost_bucket(p, node->hash), 1);
        ghost_add(p, node->hash);
    } else {
        struct perf__council_record *record = perf__council_find(&p->council, node->hash);
        if (record != NULL) {
            record->real = 0;
        }
    }
    struct perf__policy_list *list = list_of(p, node);
    unlink_node(p, list, ref);
    if (list->oldest != 0) { /* it and its neighbour are what the next call needs */
        uint32_t newer = node_at(p, list->oldest)->prev;
        if (newer != 0) {
            __builtin_prefetch(node_at(p, newer), 1);
        }
    }
    p->held -= p->weight(p->weight_ctx, ref);
    p->entries--;
    learn_capacity(p);
    perf__council_resize(&p->council, p->capacity >> p->sample_shift,
                         (double)(p->entries >> p->sample_shift));
    return ref;
}
