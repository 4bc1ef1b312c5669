// SPDX-License-Identifier: MIT
/*
 * policy-table: hit ratios of libperf's eviction policy beside the known ones.
 *
 *   policy-table [-p POLICY]... [-n REQUESTS] FILE RATIO...
 *
 * FILE holds `key` or `key,size` a line. Room is max(1, floor(RATIO x distinct keys)) objects.
 * Prints `FILE RATIO POLICY HIT_RATIO` lines.
 */
#include "policies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *bench_alloc(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (memory == NULL) {
        fputs("policy-table: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

void bench_links_init(struct bench_links *links, size_t keys, size_t lists)
{
    links->keys = keys;
    links->next = bench_alloc(keys + lists, sizeof *links->next);
    links->prev = bench_alloc(keys + lists, sizeof *links->prev);
    links->length = bench_alloc(lists, sizeof *links->length);
    for (size_t i = keys; i < keys + lists; i++) {
        links->next[i] = links->prev[i] = (uint32_t)i;
    }
}

void bench_links_free(struct bench_links *links)
{
    free(links->next);
    free(links->prev);
    free(links->length);
}

void bench_push(struct bench_links *links, size_t list, uint32_t key)
{
    uint32_t head = (uint32_t)(links->keys + list);
    links->next[key] = links->next[head];
    links->prev[key] = head;
    links->prev[links->next[head]] = key;
    links->next[head] = key;
    links->length[list]++;
}

void bench_unlink(struct bench_links *links, size_t list, uint32_t key)
{
    links->next[links->prev[key]] = links->next[key];
    links->prev[links->next[key]] = links->prev[key];
    links->length[list]--;
}

uint32_t bench_back(const struct bench_links *links, size_t list)
{
    return links->prev[links->keys + list];
}

/* Open-addressing map from the file's keys (any 64-bit number) to dense ones. */
struct densifier {
    uint64_t *key;
    uint32_t *dense;
    size_t slots, used;
};

static uint32_t densify(struct densifier *map, uint64_t key)
{
    if (map->used * 2 >= map->slots) {
        struct densifier grown = {.slots = map->slots ? map->slots * 2 : 1024, .used = map->used};
        grown.key = bench_alloc(grown.slots, sizeof *grown.key);
        grown.dense = bench_alloc(grown.slots, sizeof *grown.dense);
        for (size_t i = 0; i < map->slots; i++) {
            if (map->dense[i] != 0) {
                size_t at = (map->key[i] * 0x9E3779B97F4A7C15u >> 20) & (grown.slots - 1);
                while (grown.dense[at] != 0) {
                    at = (at + 1) & (grown.slots - 1);
                }
                grown.key[at] = map->key[i];
                grown.dense[at] = map->dense[i];
            }
        }
        free(map->key);
        free(map->dense);
        *map = grown;
    }
    size_t at = (key * 0x9E3779B97F4A7C15u >> 20) & (map->slots - 1);
    while (map->dense[at] != 0 && map->key[at] != key) {
        at = (at + 1) & (map->slots - 1);
    }
    if (map->dense[at] == 0) {
        map->key[at] = key;
        map->dense[at] = (uint32_t)++map->used;
    }
    return map->dense[at] - 1;
}

static int load(const char *path, size_t limit, struct bench_trace *trace)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        return -1;
    }
    const char *slash = strrchr(path, '/');
    *trace = (struct bench_trace){.name = slash ? slash + 1 : path};
    struct densifier map = {0};
    size_t room = 0;
    char line[128];
    while (trace->requests < limit && fgets(line, sizeof line, file) != NULL) {
        char *end;
        uint64_t key = strtoull(line, &end, 10);
        if (end == line) {
            continue;
        }
        if (trace->requests == room) {
            room = room ? room * 2 : 65536;
            trace->key = realloc(trace->key, room * sizeof *trace->key);
            trace->size = realloc(trace->size, room * sizeof *trace->size);
            if (trace->key == NULL || trace->size == NULL) {
                fputs("policy-table: out of memory\n", stderr);
                exit(1);
            }
        }
        trace->key[trace->requests] = densify(&map, key);
        trace->size[trace->requests++] = *end == ',' ? (uint32_t)strtoul(end + 1, NULL, 10) : 1;
    }
    trace->keys = map.used;
    free(map.key);
    free(map.dense);
    fclose(file);
    return 0;
}

static bool wanted(const char *name, char **only, int count)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(only[i], name) == 0) {
            return true;
        }
    }
    return count == 0;
}

int main(int argc, char **argv)
{
    static const struct bench_policy *const all[] = {bench_recency_policies, bench_queue_policies,
                                                     bench_count_policies, bench_our_policy};
    char *only[32];
    int only_count = 0;
    size_t limit = SIZE_MAX;
    int option;
    while ((option = getopt(argc, argv, "p:n:")) != -1) {
        if (option == 'p' && only_count < 32) {
            only[only_count++] = optarg;
        } else if (option == 'n') {
            limit = strtoull(optarg, NULL, 10);
        } else {
            return 2;
        }
    }
    if (argc - optind < 2) {
        fputs("usage: policy-table [-p POLICY]... [-n REQUESTS] FILE RATIO...\n", stderr);
        return 2;
    }
    struct bench_trace trace;
    if (load(argv[optind], limit, &trace) != 0) {
        return 1;
    }
    for (int r = optind + 1; r < argc; r++) {
        size_t capacity = (size_t)(strtod(argv[r], NULL) * (double)trace.keys);
        capacity = capacity ? capacity : 1;
        for (size_t set = 0; set < sizeof all / sizeof *all; set++) {
            for (const struct bench_policy *policy = all[set]; policy->name != NULL; policy++) {
                if (wanted(policy->name, only, only_count)) {
                    double hits = (double)policy->run(&trace, capacity);
                    printf("%s %s %s %.5f\n", trace.name, argv[r], policy->name,
                           hits / (double)trace.requests);
                    fflush(stdout);
                }
            }
        }
    }
    free(trace.key);
    free(trace.size);
    return 0;
}
