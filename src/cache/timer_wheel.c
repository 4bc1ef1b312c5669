/* SPDX-License-Identifier: MIT */
/* timer_wheel.c - see timer_wheel.h. Under the shard's lock. */
#include "timer_wheel.h"

static struct perf__extension *extension(const struct perf__timer_wheel *wheel, uint32_t ref)
{
    return perf__entry_extension((struct perf__entry *)(void *)(wheel->base + (size_t)ref * 8));
}

void perf__wheel_init(struct perf__timer_wheel *wheel, unsigned char *base, int64_t now)
{
    memset(wheel, 0, sizeof *wheel);
    wheel->base = base;
    wheel->tick = now >> PERF__WHEEL_TICK_SHIFT;
}

void perf__wheel_add(struct perf__timer_wheel *wheel, uint32_t ref)
{
    struct perf__extension *x = extension(wheel, ref);
    /* The tick after dead_at, so that it has passed when its slot's turn comes. */
    int64_t due =
        (atomic_load_explicit(&x->dead_at, memory_order_relaxed) >> PERF__WHEEL_TICK_SHIFT) + 1;
    int64_t ahead = due - wheel->tick;
    if (ahead < 0) {
        due = wheel->tick;
        ahead = 0;
    }
    int level = 0;
    while (level < PERF__WHEEL_LEVELS - 1 && ahead >= (int64_t)1 << (6 * (level + 1)))
        level++;
    const int64_t reach = ((int64_t)1 << (6 * PERF__WHEEL_LEVELS)) - ((int64_t)1 << 18);
    if (ahead > reach) /* beyond the last wheel: sorted in anew when it comes round */
        due = wheel->tick + reach;
    uint32_t slot = (uint32_t)(due >> (6 * level)) & (PERF__WHEEL_SLOTS - 1);
    uint32_t *head = &wheel->slots[level][slot];
    x->wheel_prev = 0;
    x->wheel_next = *head;
    if (*head)
        extension(wheel, *head)->wheel_prev = ref;
    *head = ref;
    x->wheel_slot = (uint16_t)(1 + level * PERF__WHEEL_SLOTS + (int)slot);
    wheel->occupied[level] |= (uint64_t)1 << slot;
    wheel->count++;
}

/* The list that an entry without a predecessor heads. */
static uint32_t *head_of(struct perf__timer_wheel *wheel, const struct perf__extension *x,
                         uint32_t ref)
{
    uint32_t at = x->wheel_slot - 1u, level = at / PERF__WHEEL_SLOTS;
    uint32_t *head = &wheel->slots[level][at % PERF__WHEEL_SLOTS];
    return *head == ref ? head : &wheel->cascading[level];
}

void perf__wheel_remove(struct perf__timer_wheel *wheel, uint32_t ref)
{
    struct perf__extension *x = extension(wheel, ref);
    if (!x->wheel_slot)
        return;
    if (x->wheel_next)
        extension(wheel, x->wheel_next)->wheel_prev = x->wheel_prev;
    if (x->wheel_prev)
        extension(wheel, x->wheel_prev)->wheel_next = x->wheel_next;
    else
        *head_of(wheel, x, ref) = x->wheel_next;
    uint32_t at = x->wheel_slot - 1u, level = at / PERF__WHEEL_SLOTS, slot = at % PERF__WHEEL_SLOTS;
    if (!wheel->slots[level][slot])
        wheel->occupied[level] &= ~((uint64_t)1 << slot);
    x->wheel_slot = 0;
    wheel->count--;
}

void perf__wheel_move(struct perf__timer_wheel *wheel, uint32_t old_ref, uint32_t new_ref)
{
    struct perf__extension *x = extension(wheel, new_ref);
    if (!x->wheel_slot)
        return;
    if (x->wheel_next)
        extension(wheel, x->wheel_next)->wheel_prev = new_ref;
    if (x->wheel_prev)
        extension(wheel, x->wheel_prev)->wheel_next = new_ref;
    else
        *head_of(wheel, x, old_ref) = new_ref;
}

/* Goes to the next tick that can matter, taking the coarser slots that begin there. */
static void step(struct perf__timer_wheel *wheel, int64_t target)
{
    int64_t next = wheel->tick + 1;
    if (!wheel->count)
        next = target + 1;
    else if (!wheel->occupied[0] && !wheel->occupied[1])
        next = (wheel->tick | 4095) + 1;
    else if (!wheel->occupied[0])
        next = (wheel->tick | 63) + 1;
    if (next > target + 1)
        next = target + 1;
    wheel->tick = next;
    for (int level = 1; level < PERF__WHEEL_LEVELS; level++) {
        if (next & (((int64_t)1 << (6 * level)) - 1))
            break;
        uint32_t slot = (uint32_t)(next >> (6 * level)) & (PERF__WHEEL_SLOTS - 1);
        wheel->cascading[level] = wheel->slots[level][slot];
        wheel->slots[level][slot] = 0;
        wheel->occupied[level] &= ~((uint64_t)1 << slot);
    }
}

uint32_t perf__wheel_expired(struct perf__timer_wheel *wheel, int64_t now, int64_t *budget)
{
    int64_t target = now >> PERF__WHEEL_TICK_SHIFT;
    for (; *budget > 0; --*budget) {
        int level = PERF__WHEEL_LEVELS - 1;
        while (level > 0 && !wheel->cascading[level])
            level--;
        uint32_t ref = level ? wheel->cascading[level]
                             : wheel->slots[0][wheel->tick & (PERF__WHEEL_SLOTS - 1)];
        if (!level && wheel->tick > target)
            return 0;
        if (ref) {
            perf__wheel_remove(wheel, ref);
            if (atomic_load_explicit(&extension(wheel, ref)->dead_at, memory_order_relaxed) <= now)
                return ref;
            perf__wheel_add(wheel, ref);
        } else {
            step(wheel, target);
        }
    }
    return 0;
}
