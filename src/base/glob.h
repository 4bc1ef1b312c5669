/* SPDX-License-Identifier: MIT */
/*
 * glob.h - shell patterns over bytes: '*', '?', '[a-z]', '[!a-z]', and '\' to quote.
 *
 * Works on any bytes in both arguments, without recursion or memory, in
 * O(pattern * text) at the worst. An unclosed '[' stands for itself. Any thread.
 */
#ifndef PERF_BASE_GLOB_H
#define PERF_BASE_GLOB_H

#include <stdbool.h>
#include <stddef.h>

bool perf__glob_match(const void *pattern, size_t pattern_len, const void *text, size_t text_len);

#endif
