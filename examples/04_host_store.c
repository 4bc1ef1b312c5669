/* SPDX-License-Identifier: MIT */
/*
 * 04_host_store.c - a storage backend of your own, complete: one file for each
 * record in a directory.
 *
 * A record is written to a temporary file and renamed, so a reader sees the old
 * one or the new one and a crash leaves one of them. Entries of the vtable that
 * are missing here have stated defaults: the library asks for records one by
 * one, invalidations by mark last as long as the process, and nobody sweeps (a
 * real one would bound the directory by config->max_bytes).
 *
 *     cc 04_host_store.c $(pkg-config --cflags --libs libperf) && ./a.out
 */
#include <errno.h>
#include <libperf/cache.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct directory {
    char path[256];
};

/* ------------------------------------------------------------- the backend */

static int dir_open(const perf_store_config *config, void **store)
{
    struct directory *dir = malloc(sizeof *dir);
    if (!dir)
        return PERF_ENOMEM;
    if (!config->location || strlen(config->location) >= sizeof dir->path ||
        access(config->location, R_OK | W_OK | X_OK)) {
        free(dir);
        return PERF_EINVAL;
    }
    strcpy(dir->path, config->location);
    *store = dir;
    return PERF_OK;
}

static void dir_close(void *store)
{
    free(store);
}

/* "<directory>/<id in hex><suffix>" */
static void file_name(const struct directory *dir, const perf_store_key *key, const char *suffix,
                      char *name, size_t size)
{
    int at = snprintf(name, size, "%s/", dir->path);
    for (int i = 0; i < PERF_STORE_ID_SIZE; i++)
        at += snprintf(name + at, size - (size_t)at, "%02x", key->id[i]);
    snprintf(name + at, size - (size_t)at, "%s", suffix);
}

static int dir_get(void *store, const perf_store_key *key, perf_store_reply *reply)
{
    char name[320];
    file_name(store, key, "", name, sizeof name);
    FILE *file = fopen(name, "rb");
    if (!file)
        return errno == ENOENT ? PERF_MISS : PERF_EIO;
    int rc = PERF_EIO;
    char *data = NULL;
    if (!fseek(file, 0, SEEK_END)) {
        long size = ftell(file);
        rewind(file);
        data = size < 0 ? NULL : malloc((size_t)size + 1);
        if (data && fread(data, 1, (size_t)size, file) == (size_t)size)
            rc = perf_store_reply_set(reply, data, (size_t)size);
    }
    free(data);
    fclose(file);
    return rc;
}

static int write_record(const struct directory *dir, const perf_store_op *op)
{
    char name[320], temporary[320];
    file_name(dir, &op->key, "", name, sizeof name);
    file_name(dir, &op->key, ".new", temporary, sizeof temporary);
    FILE *file = fopen(temporary, "wb");
    if (!file)
        return PERF_EIO;
    size_t written = fwrite(op->record.data, 1, op->record.len, file);
    int failed = fclose(file) || written != op->record.len || rename(temporary, name);
    return failed ? PERF_EIO : PERF_OK;
}

static int dir_apply(void *store, const perf_store_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int rc = PERF_OK;
        if (ops[i].kind == PERF_STORE_SET) {
            rc = write_record(store, &ops[i]);
        } else if (ops[i].kind == PERF_STORE_REMOVE) {
            char name[320];
            file_name(store, &ops[i].key, "", name, sizeof name);
            if (unlink(name) && errno != ENOENT)
                rc = PERF_EIO;
        }
        if (rc)
            return rc;
    }
    return PERF_OK;
}

/* PARTIAL: files are written one by one. SERIAL: two threads never meet at one ".new" file. */
static const perf_store_vtable directory_store = {
    .struct_size = sizeof(perf_store_vtable),
    .name = "directory",
    .capabilities = PERF_STORE_DURABLE | PERF_STORE_SERIAL | PERF_STORE_PARTIAL,
    .open = dir_open,
    .close = dir_close,
    .get = dir_get,
    .apply = dir_apply,
};

/* ------------------------------------------------------------------ its use */

static perf_cache *open_cache(const char *path)
{
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.store = &directory_store;
    tier.location = path;
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    options.tiers = &tier;
    options.tier_count = 1;
    perf_cache *cache;
    if (perf_cache_open(&options, &cache)) {
        fprintf(stderr, "%s\n", perf_last_error());
        exit(1);
    }
    return cache;
}

int main(void)
{
    char path[] = "/tmp/libperf-example-XXXXXX";
    if (!mkdtemp(path))
        return 1;

    perf_cache *cache = open_cache(path);
    if (perf_cache_set(cache, "greetings", NULL, "en", 2, "good morning", 12, PERF_TTL_FOREVER))
        fprintf(stderr, "%s\n", perf_last_error());
    perf_cache_close(cache);

    /* Another cache, as after a restart: its memory is empty, the directory is not. */
    cache = open_cache(path);
    perf_value *value = NULL;
    int rc = perf_cache_get(cache, "greetings", NULL, "en", 2, &value);
    if (rc == PERF_OK) {
        printf("from the directory: %.*s\n", (int)perf_value_size(value),
               (const char *)perf_value_data(value));
        perf_value_release(value);
    } else {
        fprintf(stderr, "not found: %s\n", perf_strerror(rc));
    }
    perf_cache_delete(cache, "greetings", NULL, "en", 2);
    perf_cache_close(cache);
    return rmdir(path) || rc; /* the delete left the directory empty */
}
