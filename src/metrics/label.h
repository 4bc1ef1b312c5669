/* SPDX-License-Identifier: MIT */
/*
 * label.h - what becomes of a string of strangers that is the value of a label,
 * for those who must tell two series apart before they make them. Any thread.
 */
#ifndef PERF_METRICS_LABEL_H
#define PERF_METRICS_LABEL_H

#include <stddef.h>

enum { PERF__VALUE_MAX = 128 /* bytes of a label's value */ };

/* Copies UTF-8, up to max bytes and a zero, up to the border of a character; what is no UTF-8
 * becomes U+FFFD. Returns the length. */
size_t perf__utf8_copy(char *out, size_t max, const char *text);

#endif
