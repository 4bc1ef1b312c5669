/* SPDX-License-Identifier: MIT */
/* hedge.h - hedging one attempt of somebody else's, for the policy. Any thread. */
#ifndef PERF_POOL_HEDGE_H
#define PERF_POOL_HEDGE_H

#include "part.h"

/** perf_hedge_run for an attempt that is there: its number and deadline are used, and the outcome
 *  of the winner is put into it. */
int perf__hedge_attempt(perf_hedge *hedge, struct perf_attempt *attempt, perf_run_fn fn, void *ctx);

#endif
