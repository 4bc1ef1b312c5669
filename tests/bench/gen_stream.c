/* SPDX-License-Identifier: MIT */
/*
 * gen_stream.c - writes the access streams that every subject replays, so that no two
 * languages need agree on a random generator.
 *
 * usage: gen-stream FILE KEYS LENGTH SKEW WRITE_PERCENT
 *
 * FILE becomes LENGTH native-endian uint32: bits 0..30 name a key below KEYS, bit 31 says
 * "set" rather than "get". Popularity is Zipf(SKEW), drawn exactly by the alias method (Vose
 * 1991). The ranks are shuffled over the key numbers: subjects insert keys in number order,
 * and the hot ones must not lie side by side in memory because of it.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t state = 0x5eed5eed5eed5eedULL; /* fixed: the same stream on every machine */

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dULL;
}

static double next_unit(void)
{
    return (double)(next_random() >> 11) * 0x1p-53;
}

static uint32_t next_below(uint32_t n)
{
    return (uint32_t)(((next_random() >> 32) * n) >> 32);
}

struct alias {
    double *keep;
    uint32_t *other;
};

/* Splits the n weights into n columns of equal height, each shared by at most two ranks. */
static void alias_build(struct alias *a, uint32_t n, double skew, uint32_t *work)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += pow(i + 1.0, -skew);
    }
    uint32_t small = 0;
    uint32_t large = n;
    for (uint32_t i = 0; i < n; i++) {
        a->keep[i] = pow(i + 1.0, -skew) * n / sum;
        a->other[i] = i;
        if (a->keep[i] < 1.0) {
            work[small++] = i;
        } else {
            work[--large] = i;
        }
    }
    while (small > 0 && large < n) {
        uint32_t s = work[--small];
        uint32_t l = work[large];
        a->other[s] = l;
        a->keep[l] -= 1.0 - a->keep[s];
        if (a->keep[l] < 1.0) {
            large++;
            work[small++] = l;
        }
    }
    while (small > 0) { /* what rounding left over is a full column */
        a->keep[work[--small]] = 1.0;
    }
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: gen-stream FILE KEYS LENGTH SKEW WRITE_PERCENT\n");
        return 2;
    }
    uint32_t keys = (uint32_t)strtoul(argv[2], NULL, 10);
    size_t length = (size_t)strtoul(argv[3], NULL, 10);
    double writes = strtod(argv[5], NULL) / 100.0;
    if (keys == 0 || keys > INT32_MAX || length == 0) {
        fprintf(stderr, "gen-stream: KEYS and LENGTH must be positive\n");
        return 2;
    }
    struct alias a = {malloc(keys * sizeof *a.keep), malloc(keys * sizeof *a.other)};
    uint32_t *shuffle = malloc(keys * sizeof *shuffle);
    uint32_t *out = malloc(length * sizeof *out);
    if (a.keep == NULL || a.other == NULL || shuffle == NULL || out == NULL) {
        fprintf(stderr, "gen-stream: out of memory\n");
        return 1;
    }
    alias_build(&a, keys, strtod(argv[4], NULL), shuffle);
    for (uint32_t i = 0; i < keys; i++) {
        shuffle[i] = i;
    }
    for (uint32_t i = keys - 1; i > 0; i--) {
        uint32_t j = next_below(i + 1);
        uint32_t swap = shuffle[i];
        shuffle[i] = shuffle[j];
        shuffle[j] = swap;
    }
    for (size_t i = 0; i < length; i++) {
        uint32_t rank = next_below(keys);
        rank = next_unit() < a.keep[rank] ? rank : a.other[rank];
        out[i] = shuffle[rank] | (next_unit() < writes ? 0x80000000U : 0);
    }
    FILE *file = fopen(argv[1], "wb");
    if (file == NULL || fwrite(out, sizeof *out, length, file) != length || fclose(file) != 0) {
        perror(argv[1]);
        return 1;
    }
    free(out);
    free(shuffle);
    free(a.other);
    free(a.keep);
    return 0;
}
