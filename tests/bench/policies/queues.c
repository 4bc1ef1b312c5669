// SPDX-License-Identifier: MIT
/*
 * Reference policies of several queues with ghosts: S3-FIFO (Yang et al., SOSP 2023), 2Q (Johnson
 * and Shasha, VLDB 1994), ARC (Megiddo and Modha, FAST 2003), LIRS (Jiang and Zhang, SIGMETRICS
 * 2002).
 */
#include "policies.h"

#include <stdlib.h>

/* ---- S3-FIFO: small 10 %, main 90 %, ghost as long as main ---- */

enum { NOWHERE, SMALL, MAIN, GHOST, LISTS };

static uint64_t run_s3fifo(const struct bench_trace *trace, size_t capacity)
{
    struct bench_links q;
    bench_links_init(&q, trace->keys, LISTS);
    uint8_t *where = bench_alloc(trace->keys, 1), *freq = bench_alloc(trace->keys, 1);
    size_t small_room = capacity / 10 ? capacity / 10 : 1;
    size_t ghost_room = capacity - small_room ? capacity - small_room : 1;
    uint64_t hits = 0;
    for (size_t i = 0; i < trace->requests; i++) {
        uint32_t key = trace->key[i];
        if (where[key] == SMALL || where[key] == MAIN) {
            hits++;
            freq[key] = (uint8_t)(freq[key] < 3 ? freq[key] + 1 : 3);
            continue;
        }
        bool to_main = where[key] == GHOST;
        if (to_main) {
            bench_unlink(&q, GHOST, key);
        }
        while (q.length[SMALL] + q.length[MAIN] >= capacity) {
            bool from_small = q.length[SMALL] >= small_room || q.length[MAIN] == 0;
            uint32_t victim = bench_back(&q, from_small ? SMALL : MAIN);
            bench_unlink(&q, from_small ? SMALL : MAIN, victim);
            if (from_small && freq[victim] < 2) {
                where[victim] = GHOST;
                bench_push(&q, GHOST, victim);
                if (q.length[GHOST] > ghost_room) {
                    uint32_t forgotten = bench_back(&q, GHOST);
                    bench_unlink(&q, GHOST, forgotten);
                    where[forgotten] = NOWHERE;
                }
            } else if (from_small || freq[victim] > 0) {
                freq[victim] = (uint8_t)(from_small ? 0 : freq[victim] - 1);
                where[victim] = MAIN;
                bench_push(&q, MAIN, victim);
            } else {
                where[victim] = NOWHERE;
            }
        }
        freq[key] = 0;
        where[key] = to_main ? MAIN : SMALL;
        bench_push(&q, where[key], key);
    }
    bench_links_free(&q);
    free(where);
    free(freq);
    return hits;
}

/* ---- 2Q, full version: Kin 25 %, Kout 50 % ---- */

static uint64_t run_2q(const struct bench_trace *trace, size_t capacity)
{
    struct bench_links q;
    bench_links_init(&q, trace->keys, LISTS);
    uint8_t *where = bench_alloc(trace->keys, 1);
    size_t in_room = capacity / 4 ? capacity / 4 : 1, out_room = capacity / 2 ? capacity / 2 : 1;
    uint64_t hits = 0;
    for (size_t i = 0; i < trace->requests; i++) {
        uint32_t key = trace->key[i];
        if (where[key] == MAIN) {
            bench_unlink(&q, MAIN, key);
            bench_push(&q, MAIN, key);
        }
        if (where[key] == MAIN || where[key] == SMALL) {
            hits++;
            continue;
        }
        bool known = where[key] == GHOST;
        if (known) {
            bench_unlink(&q, GHOST, key);
        }
        if (q.length[SMALL] + q.length[MAIN] == capacity) {
            if (q.length[SMALL] > in_room || q.length[MAIN] == 0) {
                uint32_t victim = bench_back(&q, SMALL);
                bench_unlink(&q, SMALL, victim);
                bench_push(&q, GHOST, victim);
                where[victim] = GHOST;
                if (q.length[GHOST] > out_room) {
                    uint32_t forgotten = bench_back(&q, GHOST);
                    bench_unlink(&q, GHOST, forgotten);
                    where[forgotten] = NOWHERE;
                }
            } else {
                uint32_t victim = bench_back(&q, MAIN);
                bench_unlink(&q, MAIN, victim);
                where[victim] = NOWHERE;
            }
        }
        where[key] = known ? MAIN : SMALL;
        bench_push(&q, where[key], key);
    }
    bench_links_free(&q);
    free(where);
    return hits;
}

/* ---- ARC ---- */

enum { T1 = 1, T2, B1, B2, ARC_LISTS };

static void arc_replace(struct bench_links *q, uint8_t *where, double p, bool in_b2)
{
    size_t t1 = q->length[T1];
    bool recent = t1 > 0 && ((double)t1 > p || (in_b2 && (double)t1 >= p));
    recent = recent || q->length[T2] == 0;
    uint32_t victim = bench_back(q, recent ? T1 : T2);
    bench_unlink(q, recent ? T1 : T2, victim);
    where[victim] = recent ? B1 : B2;
    bench_push(q, where[victim], victim);
}

static void arc_drop(struct bench_links *q, uint8_t *where, size_t list)
{
    uint32_t victim = bench_back(q, list);
    bench_unlink(q, list, victim);
    where[victim] = NOWHERE;
}

static uint64_t run_arc(const struct bench_trace *trace, size_t capacity)
{
    struct bench_links q;
    bench_links_init(&q, trace->keys, ARC_LISTS);
    uint8_t *where = bench_alloc(trace->keys, 1);
    double p = 0, room = (double)capacity;
    uint64_t hits = 0;
    for (size_t i = 0; i < trace->requests; i++) {
        uint32_t key = trace->key[i];
        uint8_t at = where[key];
        double b1 = (double)q.length[B1], b2 = (double)q.length[B2];
        size_t total = q.length[T1] + q.length[T2] + q.length[B1] + q.length[B2];
        if (at == T1 || at == T2) {
            hits++;
            bench_unlink(&q, at, key);
        } else if (at == B1 || at == B2) {
            if (at == B1) {
                p += b2 > b1 ? b2 / b1 : 1;
                p = p > room ? room : p;
            } else {
                p -= b1 > b2 ? b1 / b2 : 1;
                p = p < 0 ? 0 : p;
            }
            arc_replace(&q, where, p, at == B2);
            bench_unlink(&q, at, key);
        } else {
            if (q.length[T1] + q.length[B1] == capacity) {
                if (q.length[T1] < capacity) {
                    arc_drop(&q, where, B1);
                    arc_replace(&q, where, p, false);
                } else {
                    arc_drop(&q, where, T1);
                }
            } else if (total >= capacity) {
                if (total == 2 * capacity) {
                    arc_drop(&q, where, B2);
                }
                arc_replace(&q, where, p, false);
            }
        }
        where[key] = at == NOWHERE ? T1 : T2;
        bench_push(&q, where[key], key);
    }
    bench_links_free(&q);
    free(where);
    return hits;
}

/* ---- LIRS: 1 % of the room for HIR blocks, as in the paper; at most 2 x capacity ghosts ---- */

enum { LIR = 1, HIR, HIR_GHOST };

struct lirs {
    struct bench_links stack, queue, ghosts; /* S, Q, and the ghosts in S by age */
    uint8_t *state;
    bool *in_stack;
    size_t lir, hir;
};

static void lirs_prune(struct lirs *l)
{
    while (l->stack.length[0] > 0) {
        uint32_t bottom = bench_back(&l->stack, 0);
        if (l->state[bottom] == LIR) {
            return;
        }
        bench_unlink(&l->stack, 0, bottom);
        l->in_stack[bottom] = false;
        if (l->state[bottom] == HIR_GHOST) {
            bench_unlink(&l->ghosts, 0, bottom);
            l->state[bottom] = 0;
        }
    }
}

static void lirs_demote_bottom(struct lirs *l)
{
    uint32_t bottom = bench_back(&l->stack, 0);
    bench_unlink(&l->stack, 0, bottom);
    l->in_stack[bottom] = false;
    l->state[bottom] = HIR;
    bench_push(&l->queue, 0, bottom);
    l->lir--;
    l->hir++;
    lirs_prune(l);
}

static void lirs_touch_stack(struct lirs *l, uint32_t key)
{
    if (l->in_stack[key]) {
        bench_unlink(&l->stack, 0, key);
    }
    bench_push(&l->stack, 0, key);
    l->in_stack[key] = true;
}

static bool lirs_access(struct lirs *l, uint32_t key, size_t capacity, size_t lir_room)
{
    uint8_t state = l->state[key];
    if (state == LIR) {
        lirs_touch_stack(l, key);
        lirs_prune(l);
        return true;
    }
    if (state == HIR) {
        bool known = l->in_stack[key];
        lirs_touch_stack(l, key);
        bench_unlink(&l->queue, 0, key);
        if (known && lir_room > 0) {
            l->state[key] = LIR;
            l->lir++;
            l->hir--;
            lirs_demote_bottom(l);
        } else {
            bench_push(&l->queue, 0, key);
        }
        return true;
    }
    if (l->lir + l->hir == capacity) {
        uint32_t victim = bench_back(&l->queue, 0);
        bench_unlink(&l->queue, 0, victim);
        l->hir--;
        l->state[victim] = 0;
        if (l->in_stack[victim]) {
            l->state[victim] = HIR_GHOST;
            bench_push(&l->ghosts, 0, victim);
            if (l->ghosts.length[0] > 2 * capacity) {
                uint32_t oldest = bench_back(&l->ghosts, 0);
                bench_unlink(&l->ghosts, 0, oldest);
                bench_unlink(&l->stack, 0, oldest);
                l->in_stack[oldest] = false;
                l->state[oldest] = 0;
            }
        }
        state = l->state[key];
    }
    if (state == HIR_GHOST) {
        bench_unlink(&l->ghosts, 0, key);
    }
    lirs_touch_stack(l, key);
    if (l->lir < lir_room && l->hir == 0) {
        l->state[key] = LIR;
        l->lir++;
    } else if (state == HIR_GHOST && lir_room > 0) {
        l->state[key] = LIR;
        l->lir++;
        lirs_demote_bottom(l);
    } else {
        l->state[key] = HIR;
        l->hir++;
        bench_push(&l->queue, 0, key);
    }
    return false;
}

static uint64_t run_lirs(const struct bench_trace *trace, size_t capacity)
{
    struct lirs l = {0};
    bench_links_init(&l.stack, trace->keys, 1);
    bench_links_init(&l.queue, trace->keys, 1);
    bench_links_init(&l.ghosts, trace->keys, 1);
    l.state = bench_alloc(trace->keys, 1);
    l.in_stack = bench_alloc(trace->keys, sizeof *l.in_stack);
    size_t hir_room = capacity / 100 ? capacity / 100 : 1;
    uint64_t hits = 0;
    for (size_t i = 0; i < trace->requests; i++) {
        hits += lirs_access(&l, trace->key[i], capacity, capacity - hir_room);
    }
    bench_links_free(&l.stack);
    bench_links_free(&l.queue);
    bench_links_free(&l.ghosts);
    free(l.state);
    free(l.in_stack);
    return hits;
}

const struct bench_policy bench_queue_policies[] = {
    {"s3fifo", run_s3fifo}, {"2q", run_2q}, {"arc", run_arc}, {"lirs", run_lirs}, {NULL, NULL}};
