/* SPDX-License-Identifier: MIT */
/*
 * hit_ratio.c - replays a trace through the real memory tier, by the public API: get, and on a
 * miss set.
 *
 * usage: hit-ratio [--bytes] FILE [RATIO...]
 *
 * FILE has one request a line, `key` or `key,size`; keys are any words of up to 64 bytes ("-"
 * reads standard input). For each RATIO (0.001 0.01 0.1 when none is given) it prints
 * "FILE RATIO HIT_RATIO".
 *
 * Without --bytes, room is max(1, floor(RATIO * distinct keys)) objects, and every object counts
 * alike. With --bytes, room is RATIO * the sum of the distinct keys' sizes (as they were first
 * asked for), and HIT_RATIO is the bytes found over the bytes asked for. A missing size is 1.
 *
 * The library's own memory limit is set out of reach, so that only this room decides.
 */
#include <libperf/cache.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_KEY 64

struct object {
    const char *key; /* into the file's text */
    size_t len;
    uint64_t size; /* as first asked for */
};

struct trace {
    char *text;
    uint32_t *object; /* of each request */
    uint64_t *size;   /* of each request */
    size_t requests, request_room;
    struct object *objects;
    size_t distinct, object_room;
    uint32_t *slots; /* object number + 1, by the key's hash; 0 is empty */
    size_t slot_count;
    uint64_t distinct_bytes;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "hit-ratio: %s: %s\n", what, why);
    exit(1);
}

static void *grow(void *block, size_t *room, size_t item)
{
    *room = *room == 0 ? 4096 : *room * 2;
    block = realloc(block, *room * item);
    if (block == NULL) {
        fail("memory", "there is not enough for this trace");
    }
    return block;
}

static char *read_all(const char *path, size_t *len)
{
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        perror(path);
        exit(1);
    }
    char *text = NULL;
    size_t room = 0;
    ssize_t got = 1;
    for (*len = 0; got > 0; *len += (size_t)got) {
        if (*len == room) {
            text = grow(text, &room, 1);
        }
        got = read(fd, text + *len, room - *len);
        if (got < 0) {
            perror(path);
            exit(1);
        }
    }
    close(fd);
    return text;
}

static uint64_t hash_bytes(const char *p, size_t len)
{
    uint64_t h = 0xcbf29ce484222325ULL; /* FNV-1a, and a final mix for the low bits */
    for (size_t i = 0; i < len; i++) {
        h = (h ^ (unsigned char)p[i]) * 0x100000001b3ULL;
    }
    return h ^ (h >> 29);
}

static size_t find_slot(const struct trace *t, const char *key, size_t len)
{
    size_t i = hash_bytes(key, len) & (t->slot_count - 1);
    while (t->slots[i] != 0) {
        const struct object *o = &t->objects[t->slots[i] - 1];
        if (o->len == len && memcmp(o->key, key, len) == 0) {
            break;
        }
        i = (i + 1) & (t->slot_count - 1);
    }
    return i;
}

static void widen(struct trace *t)
{
    t->slot_count = t->slot_count == 0 ? 8192 : t->slot_count * 2;
    free(t->slots);
    t->slots = calloc(t->slot_count, sizeof *t->slots);
    if (t->slots == NULL) {
        fail("memory", "there is not enough for this trace");
    }
    for (size_t i = 0; i < t->distinct; i++) {
        t->slots[find_slot(t, t->objects[i].key, t->objects[i].len)] = (uint32_t)i + 1;
    }
}

static uint32_t number_of(struct trace *t, const char *key, size_t len, uint64_t size)
{
    if (t->distinct * 2 >= t->slot_count) {
        widen(t);
    }
    size_t slot = find_slot(t, key, len);
    if (t->slots[slot] == 0) {
        if (t->distinct == t->object_room) {
            t->objects = grow(t->objects, &t->object_room, sizeof *t->objects);
        }
        t->objects[t->distinct] = (struct object){key, len, size};
        t->distinct_bytes += size;
        t->slots[slot] = (uint32_t)++t->distinct;
    }
    return t->slots[slot] - 1;
}

static void add_request(struct trace *t, const char *key, size_t len, uint64_t size)
{
    if (t->requests == t->request_room) {
        size_t room = t->request_room;
        t->object = grow(t->object, &room, sizeof *t->object);
        t->size = grow(t->size, &t->request_room, sizeof *t->size);
    }
    t->object[t->requests] = number_of(t, key, len, size);
    t->size[t->requests++] = size;
}

/* One pass over the text; blank lines are nothing, anything else odd ends the program. */
static void parse(struct trace *t, const char *path)
{
    size_t length;
    t->text = read_all(path, &length);
    const char *end = t->text + length;
    for (const char *line = t->text; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const char *next = stop == NULL ? end : stop + 1;
        stop = stop == NULL ? end : stop;
        while (stop > line && (stop[-1] == '\r' || stop[-1] == ' ')) {
            stop--;
        }
        if (stop > line) {
            const char *comma = memchr(line, ',', (size_t)(stop - line));
            size_t len = (size_t)((comma == NULL ? stop : comma) - line);
            uint64_t size = 1;
            if (comma != NULL) {
                size = 0;
                for (const char *p = comma + 1; p < stop && *p >= '0' && *p <= '9'; p++) {
                    size = size * 10 + (uint64_t)(*p - '0');
                }
            }
            if (len == 0 || len > MAX_KEY) {
                fail(path, "a key must have 1 to 64 bytes");
            }
            add_request(t, line, len, size == 0 ? 1 : size);
        }
        line = next;
    }
    if (t->requests == 0) {
        fail(path, "there is no request in it");
    }
}

static double replay(const struct trace *t, double ratio, int in_bytes)
{
    perf_cache *cache;
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    options.memory_max_bytes = (uint64_t)t->distinct * 1024 + ((uint64_t)256 << 20);
    double room = ratio * (double)(in_bytes ? t->distinct_bytes : t->distinct);
    uint64_t capacity = room < 1.0 ? 1 : (uint64_t)room;
    if (in_bytes) {
        options.memory_max_weight = capacity;
    } else {
        options.memory_max_entries = capacity;
    }
    if (perf_cache_open(&options, &cache) != PERF_OK) {
        fail("open", perf_last_error());
    }
    uint64_t hits = 0;
    uint64_t hit_bytes = 0;
    uint64_t bytes = 0;
    perf_set_options set = PERF_SET_OPTIONS_INIT;
    for (size_t i = 0; i < t->requests; i++) {
        const struct object *o = &t->objects[t->object[i]];
        char value[1] = {0};
        size_t len;
        int status = perf_cache_get_copy(cache, "trace", NULL, o->key, o->len, value, 1, &len);
        bytes += t->size[i];
        if (status == PERF_OK) {
            hits++;
            hit_bytes += t->size[i];
            continue;
        }
        set.weight = in_bytes ? t->size[i] : 0;
        if (status == PERF_MISS) {
            status = perf_cache_put(cache, "trace", NULL, o->key, o->len, value, 1, &set, NULL);
        }
        if (status != PERF_OK && status != PERF_ETOOBIG) { /* too heavy: not kept, still a miss */
            fail(perf_strerror(status), perf_last_error());
        }
    }
    perf_cache_close(cache);
    return in_bytes ? (double)hit_bytes / (double)bytes : (double)hits / (double)t->requests;
}

int main(int argc, char **argv)
{
    static char *defaults[] = {"0.001", "0.01", "0.1"};
    int in_bytes = argc > 1 && strcmp(argv[1], "--bytes") == 0;
    if (argc < 2 + in_bytes) {
        fprintf(stderr, "usage: hit-ratio [--bytes] FILE [RATIO...]\n");
        return 2;
    }
    const char *path = argv[1 + in_bytes];
    char **ratios = &argv[2 + in_bytes];
    int count = argc - 2 - in_bytes;
    if (count == 0) {
        ratios = defaults;
        count = 3;
    }
    struct trace trace = {0};
    for (int i = 0; i < count; i++) {
        char *end;
        double ratio = strtod(ratios[i], &end);
        if (*end != '\0' || !(ratio > 0)) {
            fail(ratios[i], "a ratio must be a positive number such as 0.01");
        }
    }
    parse(&trace, path);
    for (int i = 0; i < count; i++) {
        double ratio = replay(&trace, strtod(ratios[i], NULL), in_bytes);
        printf("%s %s %.6f\n", path, ratios[i], ratio);
        fflush(stdout);
    }
    free(trace.text);
    free(trace.object);
    free(trace.size);
    free(trace.objects);
    free(trace.slots);
    return 0;
}
