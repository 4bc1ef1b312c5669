/* SPDX-License-Identifier: MIT */
/*
 * aws_s3_list.c - walking over a bucket, a page (ListObjectsV2) at a time.
 *
 * A page is read into one block of entries whose texts follow in another. Keys
 * are asked for percent-encoded, since XML cannot hold every byte of a key.
 * An iterator is one thread's at a time.
 */
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "aws_answer.h"
#include "aws_s3.h"
#include "aws_xml.h"

enum { PAGE_MAX = 1000 };

struct entry {
    size_t key, etag, storage_class; /* offsets in text */
    uint64_t size;
    int64_t modified_ms;
    bool is_prefix;
};

struct perf_s3_list {
    perf_aws *s3;
    char *bucket, *prefix, *delimiter, *start_after;
    int64_t page_size, timeout_ms;
    struct entry *entries; /* of the page */
    size_t count, room, next;
    char *text;
    size_t text_len, text_room;
    struct entry now; /* being read */
    bool encoded, truncated;
    size_t token;       /* offset in text; 0: none */
    char *continuation; /* the token of the page to come */
    bool over;
};

static char *copy(perf_aws *s3, const char *text)
{
    return perf__strndup(&s3->host.allocator, text, strlen(text));
}

static int check_text(const char *field, const char *text)
{
    return perf__check_len(field, text ? strnlen(text, PERF__S3_KEY_MAX + 1) : 0, 0,
                           PERF__S3_KEY_MAX);
}

int perf_s3_list_open(perf_aws *s3, const char *bucket, const perf_s3_list_options *options,
                      perf_s3_list **out)
{
    perf_s3_list_options o;
    struct perf__s3_call c;
    int rc = perf__options_take("perf_s3_list_options", options, &o, sizeof o);
    if (!rc && !out)
        rc = perf__fail(PERF_EINVAL, "perf_s3_list_open needs a place for the iterator");
    if (!rc)
        rc = perf__s3_begin(&c, s3, "ListObjectsV2", "GET", bucket, NULL); /* checks them */
    if (!rc)
        rc = perf__check_range("page_size", o.page_size, 0, PAGE_MAX);
    if (!rc)
        rc = perf__check_range("timeout_ms", o.timeout_ms, 0, INT64_MAX / 1000000);
    if (rc || (rc = check_text("prefix", o.prefix)) ||
        (rc = check_text("delimiter", o.delimiter)) ||
        (rc = check_text("start_after", o.start_after)))
        return rc;
    perf_s3_list *l = perf__calloc(&s3->host.allocator, 1, sizeof *l);
    if (!l)
        return perf__fail_nomem("a walk over a bucket");
    l->s3 = s3;
    l->page_size = o.page_size ? o.page_size : PAGE_MAX;
    l->timeout_ms = o.timeout_ms;
    l->bucket = copy(s3, bucket);
    l->prefix = copy(s3, o.prefix ? o.prefix : "");
    l->delimiter = copy(s3, o.delimiter ? o.delimiter : "");
    l->start_after = copy(s3, o.start_after ? o.start_after : "");
    if (!l->bucket || !l->prefix || !l->delimiter || !l->start_after) {
        perf_s3_list_close(l);
        return perf__fail_nomem("a walk over a bucket");
    }
    *out = l;
    return PERF_OK;
}

void perf_s3_list_close(perf_s3_list *l)
{
    if (!l)
        return;
    perf_allocator allocator = l->s3->host.allocator;
    perf__free(&allocator, l->bucket);
    perf__free(&allocator, l->prefix);
    perf__free(&allocator, l->delimiter);
    perf__free(&allocator, l->start_after);
    perf__free(&allocator, l->continuation);
    perf__free(&allocator, l->entries);
    perf__free(&allocator, l->text);
    perf__free(&allocator, l);
}

/* -------------------------------------------------------------------------- read */

/* Copies text behind the others; offset 0 is the empty text. */
static int keep(perf_s3_list *l, const char *text, size_t len, size_t *offset)
{
    if (!l->text_len || l->text_room - l->text_len < len + 1) {
        size_t room = 2 * l->text_room + len + 256;
        char *more = perf__realloc(&l->s3->host.allocator, l->text, room);
        if (!more)
            return perf__fail_nomem("a page of a bucket");
        l->text = more;
        l->text_room = room;
        if (!l->text_len)
            l->text[l->text_len++] = 0;
    }
    *offset = l->text_len;
    memcpy(l->text + l->text_len, text, len);
    l->text[l->text_len + len] = 0;
    l->text_len += len + 1;
    return PERF_OK;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* In place. What is no escape stays; a zero byte, which no key has, ends it. */
static void decode(char *text)
{
    char *to = text;
    for (; *text; text++) {
        int high = *text == '%' ? hex(text[1]) : -1, low = high < 0 ? -1 : hex(text[2]);
        if (low >= 0) {
            *to++ = (char)(high << 4 | low);
            text += 2;
        } else {
            *to = *text;
            if (*to == '+')
                *to = ' ';
            to++;
        }
    }
    *to = 0;
}

static int keep_entry(perf_s3_list *l, bool is_prefix)
{
    static const struct entry none = {0};
    if (!l->now.key)
        return perf__fail(PERF_EPROTOCOL, "S3's list has an object without a key");
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        struct entry *more =
            room > 65536 ? NULL
                         : perf__realloc(&l->s3->host.allocator, l->entries, room * sizeof *more);
        if (!more)
            return room > 65536 ? perf__fail(PERF_EPROTOCOL, "a page of S3's list has no end")
                                : perf__fail_nomem("a page of a bucket");
        l->entries = more;
        l->room = room;
    }
    l->now.is_prefix = is_prefix;
    l->entries[l->count++] = l->now;
    l->now = none;
    return PERF_OK;
}

static int on_element(void *ctx, const char *path, const char *text, size_t len)
{
    perf_s3_list *l = ctx;
    unsigned long long size;
    static const char root[] = "ListBucketResult/";
    if (strncmp(path, root, sizeof root - 1) != 0)
        return PERF_OK;
    path += sizeof root - 1;
    if (!strcmp(path, "Contents/Key") || !strcmp(path, "CommonPrefixes/Prefix"))
        return keep(l, text, len, &l->now.key);
    if (!strcmp(path, "Contents/ETag"))
        return keep(l, text, len, &l->now.etag);
    if (!strcmp(path, "Contents/StorageClass"))
        return keep(l, text, len, &l->now.storage_class);
    if (!strcmp(path, "NextContinuationToken"))
        return keep(l, text, len, &l->token);
    if (!strcmp(path, "Contents"))
        return keep_entry(l, false);
    if (!strcmp(path, "CommonPrefixes"))
        return keep_entry(l, true);
    if (!strcmp(path, "IsTruncated"))
        l->truncated = !strcmp(text, "true");
    else if (!strcmp(path, "EncodingType"))
        l->encoded = !strcmp(text, "url");
    else if (!strcmp(path, "Contents/LastModified"))
        perf__aws_parse_time(text, &l->now.modified_ms);
    else if (!strcmp(path, "Contents/Size")) {
        if (sscanf(text, "%19llu", &size) != 1)
            return perf__fail(PERF_EPROTOCOL, "S3's list has an object of no size");
        l->now.size = size;
    }
    return PERF_OK;
}

static int fetch(perf_s3_list *l)
{
    struct perf__s3_call c;
    perf_aws_reply *reply = NULL;
    char page[24], *continuation = NULL;
    int rc = perf__s3_begin(&c, l->s3, "ListObjectsV2", "GET", l->bucket, NULL);
    if (rc)
        return rc;
    snprintf(page, sizeof page, "%lld", (long long)l->page_size);
    perf__s3_query(&c, "list-type", "2");
    perf__s3_query(&c, "encoding-type", "url");
    perf__s3_query(&c, "max-keys", page);
    perf__s3_query(&c, "prefix", *l->prefix ? l->prefix : NULL);
    perf__s3_query(&c, "delimiter", *l->delimiter ? l->delimiter : NULL);
    perf__s3_query(&c, "continuation-token", l->continuation);
    if (!l->continuation)
        perf__s3_query(&c, "start-after", *l->start_after ? l->start_after : NULL);
    c.request.timeout_ms = l->timeout_ms;
    rc = perf__s3_send(&c, &reply);
    if (rc)
        return rc;
    l->count = l->next = l->text_len = l->token = 0;
    l->truncated = l->encoded = false;
    memset(&l->now, 0, sizeof l->now);
    rc = perf__xml_read(&l->s3->host.allocator, "S3's list", perf_aws_reply_body(reply),
                        perf_aws_reply_size(reply), on_element, l);
    if (!rc && l->truncated && !l->token)
        rc = perf__fail(PERF_EPROTOCOL, "S3's list goes on, and does not say where");
    if (!rc && l->truncated) {
        continuation = copy(l->s3, l->text + l->token);
        if (!continuation)
            rc = perf__fail_nomem("a page of a bucket");
        else if (l->continuation && !strcmp(l->continuation, continuation))
            rc = perf__fail(PERF_EPROTOCOL, "S3's list goes on with the same page for ever");
    }
    perf_aws_reply_release(reply);
    if (rc) {
        l->count = 0;
        perf__free(&l->s3->host.allocator, continuation);
        return rc;
    }
    for (size_t i = 0; l->encoded && i < l->count; i++)
        decode(l->text + l->entries[i].key);
    perf__free(&l->s3->host.allocator, l->continuation);
    l->continuation = continuation;
    l->over = !l->truncated;
    return PERF_OK;
}

int perf_s3_list_next(perf_s3_list *l, perf_s3_entry *entry)
{
    perf_s3_entry e = PERF_S3_ENTRY_INIT;
    size_t size;
    if (!l)
        return perf__fail(PERF_EINVAL, "the iterator is NULL");
    int rc = perf__options_check_out("perf_s3_entry", entry, &size);
    while (!rc && l->next == l->count) {
        if (l->over)
            return PERF_MISS;
        rc = fetch(l);
        if (rc == PERF_MISS) /* of a bucket; never the end of a list */
            rc = PERF_EREMOTE;
    }
    if (rc)
        return rc;
    const struct entry *found = &l->entries[l->next++];
    e.key = l->text + found->key;
    e.is_prefix = found->is_prefix;
    e.size = found->size;
    e.etag = l->text + found->etag;
    e.modified_ms = found->modified_ms;
    e.storage_class = l->text + found->storage_class;
    perf__options_give(entry, size, &e, sizeof e);
    return PERF_OK;
}
