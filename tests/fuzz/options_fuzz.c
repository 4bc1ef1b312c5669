/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as options, with any struct_size: every call answers, and nothing
 * beyond the size that the caller named is read. Pointers cannot be random, so
 * they are put in after the bytes; what costs much memory or time is bounded.
 */
#include <libperf/cache.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char data_of_value[] = "value";

struct input {
    const uint8_t *at;
    size_t left;
};

static void take(struct input *in, void *to, size_t len)
{
    size_t n = len < in->left ? len : in->left;
    memset(to, 0, len);
    if (n)
        memcpy(to, in->at, n);
    in->at += n;
    in->left -= n;
}

static uint8_t byte(struct input *in)
{
    uint8_t b;
    take(in, &b, 1);
    return b;
}

/*
 * own, of own_size bytes, as a caller of another version has it: a block of exactly the size
 * it names, shorter or with a tail. A quarter of them name a size that is garbage.
 */
static void *as_sent(struct input *in, const void *own, size_t own_size)
{
    size_t size = own_size;
    uint8_t how = byte(in);
    if (how & 1)
        size = sizeof(size_t) + byte(in) % (2 * own_size);
    unsigned char *block = calloc(1, size);
    if (!block)
        abort();
    memcpy(block, own, size < own_size ? size : own_size);
    if (how & 2 && size > own_size)
        block[own_size + byte(in) % (size - own_size)] = byte(in);
    memcpy(block, &size, sizeof size);
    if (how % 16 == 4) { /* refused by this alone, before anything else is read */
        size_t wrong = byte(in) % sizeof(size_t);
        memcpy(block, &wrong, sizeof wrong);
    } else if (how % 16 == 12) {
        memset(block, 0xff, sizeof size);
    }
    return block;
}

static perf_cache *open_some(struct input *in)
{
    perf_cache_options o;
    perf_cache *cache = NULL;
    take(in, &o, sizeof o);
    o.memory_max_bytes %= 8u << 20;
    o.max_namespaces %= 2048;
    o.durable_path = NULL;
    o.tiers = NULL;
    o.host = NULL;
    void *sent = as_sent(in, &o, sizeof o);
    if (perf_cache_open(sent, &cache) != PERF_OK && perf_cache_open(NULL, &cache) != PERF_OK)
        abort();
    free(sent);
    return cache;
}

static void configure_some(struct input *in, perf_cache *cache)
{
    perf_namespace_options o;
    take(in, &o, sizeof o);
    void *sent = as_sent(in, &o, sizeof o);
    (void)!perf_cache_configure_namespace(cache, "ns", sent);
    free(sent);
}

static void put_some(struct input *in, perf_cache *cache)
{
    static const char *const tags[16] = {"a", "b", "",  NULL, "c", "d", "e", "f",
                                         "g", "h", "i", "j",  "k", "l", "m", "n"};
    perf_set_options o;
    uint8_t key = byte(in);
    take(in, &o, sizeof o);
    o.tags = o.tag_count <= 16 ? tags : NULL;
    void *sent = as_sent(in, &o, sizeof o);
    uint64_t version;
    (void)!perf_cache_put(cache, "ns", key & 1 ? "u" : NULL, &key, 1, data_of_value, 5, sent,
                          &version);
    free(sent);
}

static void stats_some(struct input *in, perf_cache *cache)
{
    perf_cache_stats s;
    perf_cache_event e;
    perf_cache_entry entry;
    perf_cache_iter *iter;
    take(in, &s, sizeof s);
    void *sent = as_sent(in, &s, sizeof s);
    (void)!perf_cache_get_stats(cache, NULL, sent);
    free(sent);
    take(in, &e, sizeof e);
    sent = as_sent(in, &e, sizeof e);
    (void)!perf_cache_poll_event(cache, sent);
    free(sent);
    take(in, &entry, sizeof entry);
    sent = as_sent(in, &entry, sizeof entry);
    if (perf_cache_iter_open(cache, NULL, &iter) == PERF_OK) {
        (void)!perf_cache_iter_next(iter, sent);
        perf_cache_iter_close(iter);
    }
    free(sent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    char buf[8];
    size_t len;
    perf_cache *cache = open_some(&in);
    (void)!perf_cache_listen(cache, byte(&in), 4, NULL, NULL);
    for (int i = 0; i < 16 && in.left; i++) {
        switch (byte(&in) % 4) {
        case 0:
            configure_some(&in, cache);
            break;
        case 1:
            stats_some(&in, cache);
            break;
        default:
            put_some(&in, cache);
        }
        uint8_t key = byte(&in);
        if (perf_cache_get_copy(cache, "ns", key & 1 ? "u" : NULL, &key, 1, buf, sizeof buf,
                                &len) == PERF_OK &&
            (len != 5 || memcmp(buf, data_of_value, 5) != 0))
            abort();
    }
    perf_cache_close(cache);
    return 0;
}
