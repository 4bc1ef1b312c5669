/* SPDX-License-Identifier: MIT */
/*
 * stream.c - the requests: a skewed stream whose favourites change, or a trace.
 *
 * Skew: the package of rank r is asked for in proportion to 1/r (Zipf). Drift:
 * fifty times in a stream, two of a hundred ranks, wherever they are, go to
 * other packages. The same machine gets the same stream each time.
 */
#include "demo.h"

#include <stdlib.h>
#include <string.h>

enum { EPOCHS = 50, DRIFT_PERCENT = 2 };

uint64_t demo_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u); /* splitmix64, public domain, S. Vigna 2015 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t *shuffled(size_t n, uint64_t *random)
{
    uint32_t *order = malloc(n * sizeof *order);

    for (size_t i = 0; order && i < n; i++) {
        size_t j = demo_random(random) % (i + 1);

        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    return order;
}

static size_t rank_of(const double *sums, size_t n, double at)
{
    size_t low = 0, high = n - 1;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (sums[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct tally {
    uint32_t package, requests;
};

static int by_requests(const void *a, const void *b)
{
    const struct tally *x = a, *y = b;

    if (x->requests != y->requests)
        return x->requests < y->requests ? 1 : -1;
    return x->package < y->package ? -1 : x->package > y->package;
}

/* Finds the most requested packages. */
static int mark_hot(const struct demo_plan *plan, size_t packages, struct stream *stream)
{
    struct tally *tally = calloc(packages, sizeof *tally);

    stream->is_hot = calloc(packages, 1);
    if (!tally || !stream->is_hot) {
        free(tally);
        return -1;
    }
    for (size_t i = 0; i < packages; i++)
        tally[i].package = (uint32_t)i;
    for (size_t i = 0; i < stream->count; i++)
        tally[stream->keys[i]].requests++;
    qsort(tally, packages, sizeof *tally, by_requests);
    for (size_t i = 0; i < packages && i < plan->hot_keys && tally[i].requests; i++)
        stream->is_hot[tally[i].package] = 1;
    free(tally);
    return 0;
}

int stream_make(const struct demo_plan *plan, size_t packages, struct stream *stream)
{
    uint64_t random = 20;
    size_t popular = plan->popular < packages ? plan->popular : packages;
    double *sums = malloc(popular * sizeof *sums), sum = 0;
    uint32_t *order = shuffled(packages, &random);
    int rc = -1;

    memset(stream, 0, sizeof *stream);
    stream->keys = malloc(plan->requests * sizeof *stream->keys);
    if (!sums || !order || !stream->keys)
        goto out;
    for (size_t i = 0; i < popular; i++)
        sums[i] = sum += 1.0 / (double)(i + 1);
    for (size_t i = 0; i < plan->requests; i++) {
        double share = (double)(demo_random(&random) >> 11) * 0x1p-53;

        if (i % (plan->requests / EPOCHS + 1) == 0 && i)
            for (size_t k = 0; k < popular * DRIFT_PERCENT / 100; k++) {
                size_t a = demo_random(&random) % popular, b = demo_random(&random) % packages;
                uint32_t swap = order[a];

                order[a] = order[b];
                order[b] = swap;
            }
        stream->keys[i] = order[rank_of(sums, popular, share * sum)];
    }
    stream->count = plan->requests;
    snprintf(stream->what, sizeof stream->what,
             "%zu requests, Zipf 1.0 over %zu packages at a time, drifting", stream->count,
             popular);
    rc = mark_hot(plan, packages, stream);
out:
    free(sums);
    free(order);
    return rc;
}

/* -------------------------------------------------------------------- traces */

/* Distinct keys of a trace, each with the package that it stands for. */
struct names {
    size_t count, cap; /* cap is a power of two */
    struct {
        uint64_t hash; /* 0: free. Two keys of one 64-bit hash would share a package: harmless */
        uint32_t package;
    } * slots;
};

static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    while (len--)
        h = (h ^ (unsigned char)*text++) * 0x100000001b3u;
    h = demo_random(&h);
    return h ? h : 1;
}

/* The package of a key: keys take the packages of order[] in turn, and begin again at the end. */
static uint32_t package_for(struct names *names, uint64_t hash, const uint32_t *order,
                            size_t packages)
{
    size_t at = hash & (names->cap - 1);

    while (names->slots[at].hash && names->slots[at].hash != hash)
        at = (at + 1) & (names->cap - 1);
    if (!names->slots[at].hash) {
        names->slots[at].hash = hash;
        names->slots[at].package = order[names->count++ % packages];
    }
    return names->slots[at].package;
}

static void read_keys(FILE *in, size_t max, struct names *names, const uint32_t *order,
                      size_t packages, struct stream *stream)
{
    char line[4096];

    while (stream->count < max && !demo_interrupted && fgets(line, sizeof line, in)) {
        size_t len = strcspn(line, ",\r\n");
        int c;

        if (!strchr(line, '\n'))
            while (!demo_interrupted && (c = getc(in)) != EOF && c != '\n')
                continue;
        if (len > 0)
            stream->keys[stream->count++] =
                package_for(names, hash_text(line, len), order, packages);
    }
}

int stream_read(const char *path, const struct demo_plan *plan, size_t packages,
                struct stream *stream)
{
    static char xzcat[] = "xzcat", no_more[] = "--";
    uint64_t random = 20;
    uint32_t *order = shuffled(packages, &random);
    struct names names = {.cap = 16};
    char *copy = strdup(path), *argv[] = {xzcat, no_more, copy, NULL};
    size_t len = strlen(path);
    FILE *in = NULL;
    int pid = 0, rc = -1;

    memset(stream, 0, sizeof *stream);
    while (names.cap < plan->requests * 2)
        names.cap *= 2;
    names.slots = calloc(names.cap, sizeof *names.slots);
    stream->keys = malloc(plan->requests * sizeof *stream->keys);
    if (!order || !copy || !names.slots || !stream->keys)
        goto out;
    if (len > 3 && strcmp(path + len - 3, ".xz") == 0)
        open_command(argv, &in, &pid);
    else
        in = fopen(path, "r");
    if (!in)
        goto out;
    read_keys(in, plan->requests, &names, order, packages, stream);
    if (pid)
        close_command(in, pid);
    else
        fclose(in);
    if (stream->count == 0)
        goto out;
    snprintf(stream->what, sizeof stream->what, "the first %zu requests (%zu keys) of %.150s",
             stream->count, names.count, path);
    rc = mark_hot(plan, packages, stream);
out:
    if (rc != 0)
        fprintf(stderr, "demo: cannot read requests from %s\n", path);
    free(order);
    free(copy);
    free(names.slots);
    return rc;
}

/* --------------------------------------------------- across the process restart */

int stream_save(const struct stream *stream, const char *path)
{
    FILE *out = fopen(path, "wb");
    int failed;

    if (!out)
        return -1;
    failed = fwrite(stream->keys, sizeof *stream->keys, stream->count, out) != stream->count;
    failed |= fclose(out) != 0;
    return failed ? -1 : 0;
}

int stream_restore(const char *path, const struct demo_plan *plan, size_t packages,
                   struct stream *stream)
{
    FILE *in = fopen(path, "rb");

    memset(stream, 0, sizeof *stream);
    stream->keys = malloc(plan->requests * sizeof *stream->keys);
    if (in && stream->keys)
        stream->count = fread(stream->keys, sizeof *stream->keys, plan->requests, in);
    if (in)
        fclose(in);
    for (size_t i = 0; i < stream->count; i++)
        if (stream->keys[i] >= packages)
            return -1;
    return stream->count ? mark_hot(plan, packages, stream) : -1;
}

void stream_free(struct stream *stream)
{
    free(stream->keys);
    free(stream->is_hot);
    memset(stream, 0, sizeof *stream);
}
