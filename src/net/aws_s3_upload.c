/* SPDX-License-Identifier: MIT */
/*
 * aws_s3_upload.c - objects of any size, in parallel parts.
 *
 * The calling thread reads a part into a slot, starts it, and goes on with the
 * next free slot; it sleeps when all are under way. So max_in_flight parts are
 * the whole memory, and the caller's read may block. A part's bytes are handed
 * to HTTP by a read function of ours, which is how progress is known within a
 * part. done callbacks come on the I/O thread and only note what happened.
 *
 * Parts: 5 MiB to 5 GiB, at most 10,000. When the total is not known, the size
 * of parts doubles every 1000 of them, which is enough for 5 TiB.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "aws_s3.h"
#include "aws_xml.h"

enum { PARTS_MAX = 10000, GROW_AFTER = 1000, MIB = 1 << 20, PROGRESS_MS = 100 };
enum { ID_MAX = 1024, ETAG_MAX = 80, COMPLETE_TRIES = 3 };
static const uint64_t PART_MIN = 5 * MIB, PART_DEFAULT = 8 * MIB, PART_MAX = 5ull << 30;
static const int64_t OBJECT_MAX = 5ll << 40;

struct sent {
    char etag[ETAG_MAX], crc[PERF__S3_CRC_TEXT];
};

struct slot {
    struct upload *u;
    char *data;
    size_t room, len;
    size_t at; /* what HTTP has read; its thread's */
    int number;
    char crc[PERF__S3_CRC_TEXT];
    perf_aws_operation *operation;
    bool busy, over; /* over: mutex */
    int status;
    perf_aws_reply *reply;
    char why[512];
    struct perf__aws_error error;
};

struct upload {
    perf_aws *s3;
    const char *bucket, *key;
    perf_s3_upload_options o;
    int64_t deadline_ms; /* host's monotonic clock; 0: none */
    uint64_t part_bytes;
    char id[ID_MAX];
    struct slot *slots;
    size_t slot_count;
    struct sent *parts; /* by number - 1 */
    int part_count, part_room;
    int64_t read_bytes;
    bool at_end;
    _Atomic int64_t sent_bytes;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
};

/* ------------------------------------------------------------------------- pieces */

static int left_ms(struct upload *u, int64_t *out)
{
    *out = 0;
    if (!u->deadline_ms)
        return PERF_OK;
    int64_t left = u->deadline_ms - perf__now_ms(&u->s3->host.clock);
    if (left <= 0)
        return perf__fail(PERF_ETIMEDOUT, "the %lld ms of the upload are over",
                          (long long)u->o.timeout_ms);
    *out = left < u->s3->timeout_ms ? left : u->s3->timeout_ms;
    return PERF_OK;
}

/* Fills a slot from the host's read, up to the size of a part. */
static int fill(struct upload *u, struct slot *s, uint64_t part)
{
    if (u->o.total >= 0 && part > (uint64_t)(u->o.total - u->read_bytes))
        part = (uint64_t)(u->o.total - u->read_bytes);
    if (s->room < part) {
        char *more = perf__realloc(&u->s3->host.allocator, s->data, part);
        if (!more)
            return perf__fail_nomem("a part of an upload");
        s->data = more;
        s->room = part;
    }
    s->len = 0;
    while (s->len < part) {
        int64_t n = u->o.read(u->o.read_ctx, s->data + s->len, part - s->len);
        if (n < 0)
            return n < INT32_MIN ? PERF_EIO : (int)n;
        if (n == 0) {
            u->at_end = true;
            break;
        }
        if ((uint64_t)n > part - s->len)
            return perf__fail(PERF_EINVAL, "read gave more bytes than it was asked for");
        s->len += (size_t)n;
    }
    u->read_bytes += (int64_t)s->len;
    if (u->read_bytes > OBJECT_MAX)
        return perf__fail(PERF_ETOOBIG, "an object of S3 has at most 5 TiB");
    if (u->at_end && u->read_bytes < u->o.total)
        return perf__fail(PERF_EINVAL, "read ended after %lld of the %lld bytes of total",
                          (long long)u->read_bytes, (long long)u->o.total);
    if (u->read_bytes == u->o.total)
        u->at_end = true;
    return PERF_OK;
}

static int report(struct upload *u)
{
    if (!u->o.progress)
        return PERF_OK;
    return u->o.progress(u->o.progress_ctx, atomic_load(&u->sent_bytes), u->o.total);
}

/* The I/O thread asks. */
static int64_t read_slot(void *ctx, void *buf, size_t size)
{
    struct slot *s = ctx;
    size_t n = s->len - s->at < size ? s->len - s->at : size;
    memcpy(buf, s->data + s->at, n);
    s->at += n;
    atomic_fetch_add(&s->u->sent_bytes, (int64_t)n);
    return (int64_t)n;
}

static int rewind_slot(void *ctx)
{
    struct slot *s = ctx;
    atomic_fetch_sub(&s->u->sent_bytes, (int64_t)s->at);
    s->at = 0;
    return PERF_OK;
}

static void on_done(void *ctx, int status, perf_aws_reply *reply)
{
    struct slot *s = ctx;
    struct upload *u = s->u;
    pthread_mutex_lock(&u->mutex);
    s->status = status;
    s->reply = reply;
    if (status) {
        snprintf(s->why, sizeof s->why, "%s", perf_last_error());
        snprintf(s->error.code, sizeof s->error.code, "%s", perf_aws_error_code());
        snprintf(s->error.request_id, sizeof s->error.request_id, "%s",
                 perf_aws_error_request_id());
        s->error.status = perf_aws_error_status();
    }
    s->over = true;
    pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->mutex);
}

static void common_headers(struct upload *u, struct perf__s3_call *c)
{
    perf__s3_header(c, "content-type",
                    u->o.content_type ? u->o.content_type : "application/octet-stream");
    perf__s3_headers(c, u->o.headers, u->o.header_count);
}

/* The body of c: the slot's bytes, through read_slot. */
static int give_slot(struct perf__s3_call *c, struct slot *s)
{
    int rc = perf__s3_body(c, s->data, s->len);
    memcpy(s->crc, c->crc, sizeof s->crc);
    c->request.body = (perf_bytes){NULL, 0};
    c->request.read = read_slot;
    c->request.read_ctx = s;
    c->request.read_len = (int64_t)s->len;
    c->request.rewind = rewind_slot;
    s->at = 0;
    return rc;
}

static int start(struct upload *u, struct slot *s, struct perf__s3_call *c)
{
    int rc = left_ms(u, &c->request.timeout_ms);
    if (!rc)
        rc = give_slot(c, s);
    if (!rc)
        rc = perf__s3_end(c);
    if (rc)
        return rc;
    c->request.done = on_done;
    c->request.done_ctx = s;
    s->over = false;
    s->busy = true;
    rc = perf_aws_start(u->s3, &c->request, &s->operation);
    s->busy = !rc;
    return rc;
}

/* Small and part alike: a PUT. */
static int start_part(struct upload *u, struct slot *s, int number)
{
    struct perf__s3_call c;
    char text[16];
    int rc =
        perf__s3_begin(&c, u->s3, number ? "UploadPart" : "PutObject", "PUT", u->bucket, u->key);
    if (rc)
        return rc;
    s->number = number;
    if (number) {
        snprintf(text, sizeof text, "%d", number);
        perf__s3_query(&c, "partNumber", text);
        perf__s3_query(&c, "uploadId", u->id);
    } else {
        common_headers(u, &c);
    }
    return start(u, s, &c);
}

static int keep_part(struct upload *u, const struct slot *s)
{
    const char *etag = perf_aws_reply_header(s->reply, "etag");
    size_t len = etag ? strlen(etag) : 0;
    if (s->number == 0)
        return PERF_OK;
    if (!len || len >= ETAG_MAX || strpbrk(etag, "<>& "))
        return perf__fail(PERF_EPROTOCOL, "S3 took part %d and gave no ETag for it", s->number);
    memcpy(u->parts[s->number - 1].etag, etag, len + 1);
    memcpy(u->parts[s->number - 1].crc, s->crc, sizeof s->crc);
    return PERF_OK;
}

/* Takes the result of a part that is over. */
static int settle(struct upload *u, struct slot *s, perf_aws_reply **last)
{
    int rc = s->status;
    s->busy = false;
    perf_aws_operation_release(s->operation);
    s->operation = NULL;
    if (rc) {
        perf__aws_error_remember(&s->error);
        rc = perf__fail(rc, "%s", s->why);
    } else {
        rc = keep_part(u, s);
    }
    if (!rc && s->number == 0) {
        *last = s->reply;
        s->reply = NULL;
    }
    perf_aws_reply_release(s->reply);
    s->reply = NULL;
    return rc;
}

/* Waits until a slot is over and settles it. PERF_MISS: none is busy. */
static int wait_for_one(struct upload *u, perf_aws_reply **last)
{
    for (;;) {
        struct slot *over = NULL;
        bool any = false;
        pthread_mutex_lock(&u->mutex);
        for (int again = 0; again < 2 && !over; again++) {
            for (size_t i = 0; i < u->slot_count && !over; i++) {
                any = any || u->slots[i].busy;
                if (u->slots[i].busy && u->slots[i].over)
                    over = &u->slots[i];
            }
            if (!over && any && !again)
                perf__cond_wait(&u->changed, &u->mutex,
                                perf__deadline_after(u->o.progress ? PROGRESS_MS : 1000));
        }
        pthread_mutex_unlock(&u->mutex);
        if (!any)
            return PERF_MISS;
        int rc = over ? settle(u, over, last) : PERF_OK;
        int64_t ignored;
        if (!rc)
            rc = report(u);
        if (!rc && !over)
            rc = left_ms(u, &ignored);
        if (rc || over)
            return rc;
    }
}

/* ------------------------------------------------------------ create, complete, abort */

struct found {
    struct upload *u;
    bool has_id;
};

static int on_created(void *ctx, const char *path, const char *text, size_t len)
{
    struct found *f = ctx;
    if (!strcmp(path, "InitiateMultipartUploadResult/UploadId") && len && len < ID_MAX) {
        memcpy(f->u->id, text, len + 1);
        f->has_id = true;
    }
    return PERF_OK;
}

static int create(struct upload *u)
{
    struct perf__s3_call c;
    struct found f = {u, false};
    perf_aws_reply *reply = NULL;
    int rc = perf__s3_begin(&c, u->s3, "CreateMultipartUpload", "POST", u->bucket, u->key);
    if (!rc)
        rc = left_ms(u, &c.request.timeout_ms);
    if (rc)
        return rc;
    perf__s3_query(&c, "uploads", "");
    common_headers(u, &c);
    perf__s3_header(&c, "x-amz-checksum-algorithm", "CRC32");
    rc = perf__s3_send(&c, &reply);
    if (!rc)
        rc = perf__xml_read(&u->s3->host.allocator, "S3's answer to CreateMultipartUpload",
                            perf_aws_reply_body(reply), perf_aws_reply_size(reply), on_created, &f);
    if (!rc && !f.has_id)
        rc = perf__fail(PERF_EPROTOCOL, "S3 began an upload and gave no id for it");
    perf_aws_reply_release(reply);
    return rc;
}

static int complete(struct upload *u, perf_aws_reply **last)
{
    static const char format[] = "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag>"
                                 "<ChecksumCRC32>%s</ChecksumCRC32></Part>";
    static const char head[] =
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
    static const char tail[] = "</CompleteMultipartUpload>";
    const perf_allocator *a = &u->s3->host.allocator;
    size_t each = sizeof format + 16 + sizeof(struct sent);
    char *body = perf__alloc(a, sizeof head + sizeof tail + (size_t)u->part_count * each), *at;
    int rc = PERF_OK;
    if (!body)
        return perf__fail_nomem("the end of an upload");
    at = stpcpy(body, head);
    for (int i = 0; i < u->part_count; i++)
        at += snprintf(at, each, format, i + 1, u->parts[i].etag, u->parts[i].crc);
    at = stpcpy(at, tail);
    /* It answers 200 before it knows how it ends, and then says InternalError within. */
    for (int try = 0; try < COMPLETE_TRIES; try++) {
        struct perf__s3_call c;
        perf_aws_reply *reply = NULL;
        if (try)
            nanosleep(&(struct timespec){.tv_nsec = 200000000L << try}, NULL);
        rc = perf__s3_begin(&c, u->s3, "CompleteMultipartUpload", "POST", u->bucket, u->key);
        if (!rc)
            rc = left_ms(u, &c.request.timeout_ms);
        if (rc)
            break;
        perf__s3_query(&c, "uploadId", u->id);
        perf__s3_header(&c, "content-type", "application/xml");
        rc = perf__s3_body(&c, body, (size_t)(at - body));
        if (!rc)
            rc = perf__s3_send(&c, &reply);
        bool answered = !rc;
        if (answered)
            rc = perf__s3_check_reply(u->s3, "CompleteMultipartUpload", reply);
        if (!rc)
            *last = reply;
        else
            perf_aws_reply_release(reply);
        if (!rc || !answered)
            break;
    }
    perf__free(a, body);
    return rc;
}

/* The parts stay and cost money unless this succeeds; keeps the error that led here. */
static int take_back(struct upload *u, int status)
{
    char why[512], code[96];
    struct perf__aws_error error = {.status = perf_aws_error_status()};
    struct perf__s3_call c;
    snprintf(why, sizeof why, "%s", perf_last_error());
    snprintf(code, sizeof code, "%s", perf_aws_error_code());
    snprintf(error.request_id, sizeof error.request_id, "%s", perf_aws_error_request_id());
    memcpy(error.code, code, sizeof error.code);
    int rc = perf__s3_begin(&c, u->s3, "AbortMultipartUpload", "DELETE", u->bucket, u->key);
    if (!rc) {
        perf__s3_query(&c, "uploadId", u->id);
        c.request.timeout_ms = u->s3->timeout_ms < 10000 ? u->s3->timeout_ms : 10000;
        rc = perf__s3_send(&c, NULL);
    }
    bool gone = !rc || rc == PERF_MISS || !strcmp(perf_aws_error_code(), "NoSuchUpload");
    perf__aws_error_remember(&error);
    if (gone)
        return perf__fail(status, "%s", why);
    return perf__fail(status, "%.300s; and its parts could not be taken back: upload id %.160s",
                      why, u->id);
}

/* -------------------------------------------------------------------------- upload */

static uint64_t size_of_part(const struct upload *u, int number)
{
    int doublings = u->o.total >= 0 ? 0 : (number - 1) / GROW_AFTER;
    uint64_t size = u->part_bytes << doublings;
    return size < PART_MAX ? size : PART_MAX;
}

static int room_for_part(struct upload *u)
{
    int room = u->part_room ? u->part_room * 2 : 64;
    if (u->part_count < u->part_room && u->part_count < PARTS_MAX)
        return PERF_OK;
    if (u->part_count == PARTS_MAX)
        return perf__fail(PERF_ETOOBIG, "more than 10000 parts are needed; give a larger "
                                        "part_bytes");
    struct sent *more =
        perf__realloc(&u->s3->host.allocator, u->parts, (size_t)room * sizeof *more);
    if (!more)
        return perf__fail_nomem("the parts of an upload");
    u->parts = more;
    u->part_room = room;
    return PERF_OK;
}

static struct slot *free_slot(struct upload *u)
{
    for (size_t i = 0; i < u->slot_count; i++)
        if (!u->slots[i].busy)
            return &u->slots[i];
    return NULL;
}

static int run(struct upload *u, perf_aws_reply **last)
{
    struct slot *s = &u->slots[0];
    int rc = report(u);
    if (!rc)
        rc = fill(u, s, size_of_part(u, 1));
    if (rc)
        return rc;
    if (u->at_end) { /* all of it fits into one request */
        rc = start_part(u, s, 0);
        return rc ? rc : wait_for_one(u, last);
    }
    rc = create(u);
    while (!rc) {
        rc = room_for_part(u);
        if (!rc)
            rc = start_part(u, s, u->part_count + 1);
        if (rc || (u->part_count++, u->at_end))
            break;
        while (!rc && !(s = free_slot(u)))
            rc = wait_for_one(u, last);
        if (!rc)
            rc = fill(u, s, size_of_part(u, u->part_count + 1));
        if (!rc && s->len == 0)
            break; /* the end was a part's end */
    }
    while (!rc)
        rc = wait_for_one(u, last);
    return rc == PERF_MISS ? complete(u, last) : rc;
}

static void stop_all(struct upload *u)
{
    char why[512];
    snprintf(why, sizeof why, "%s", perf_last_error());
    for (size_t i = 0; i < u->slot_count; i++)
        if (u->slots[i].busy)
            perf_aws_operation_cancel(u->slots[i].operation);
    for (size_t i = 0; i < u->slot_count; i++) {
        struct slot *s = &u->slots[i];
        pthread_mutex_lock(&u->mutex);
        while (s->busy && !s->over)
            perf__cond_wait(&u->changed, &u->mutex, 0);
        pthread_mutex_unlock(&u->mutex);
        if (s->busy)
            perf_aws_operation_release(s->operation);
        perf_aws_reply_release(s->reply);
        perf__free(&u->s3->host.allocator, s->data);
    }
    perf__fail(PERF_EIO, "%s", why); /* the sentence is as it was */
}

static int take_options(const perf_s3_upload_options *options, perf_s3_upload_options *o)
{
    int rc = perf__options_take("perf_s3_upload_options", options, o, sizeof *o);
    if (!rc && !o->read)
        rc = perf__fail(PERF_EINVAL, "perf_s3_upload_options.read is NULL");
    if (!rc)
        rc = perf__check_range("total", o->total, -1, OBJECT_MAX);
    if (!rc && o->part_bytes)
        rc = perf__check_range("part_bytes", (int64_t)o->part_bytes, (int64_t)PART_MIN,
                               (int64_t)PART_MAX);
    if (!rc)
        rc = perf__check_range("max_in_flight", o->max_in_flight, 0, 64);
    if (!rc)
        rc = perf__check_range("timeout_ms", o->timeout_ms, 0, INT64_MAX / 1000000);
    return rc;
}

/* Large enough that 10,000 are enough, in whole MiB. */
static uint64_t choose_part(const perf_s3_upload_options *o)
{
    uint64_t size = o->part_bytes ? o->part_bytes : PART_DEFAULT;
    uint64_t least = o->total > 0 ? ((uint64_t)o->total + PARTS_MAX - 1) / PARTS_MAX : 0;
    least = (least + MIB - 1) / MIB * MIB;
    return size > least ? size : least;
}

int perf_s3_upload(perf_aws *s3, const char *bucket, const char *key,
                   const perf_s3_upload_options *options, perf_aws_reply **out)
{
    struct upload u = {.s3 = s3, .bucket = bucket, .key = key};
    struct perf__s3_call check;
    perf_aws_reply *last = NULL;
    int rc = take_options(options, &u.o);
    if (!rc && !key)
        rc = perf__fail(PERF_EINVAL, "the key is NULL");
    if (!rc)
        rc = perf__s3_begin(&check, s3, "PutObject", "PUT", bucket, key);
    if (rc)
        return rc;
    u.part_bytes = choose_part(&u.o);
    u.slot_count = (size_t)(u.o.max_in_flight ? u.o.max_in_flight : 4);
    if (u.o.timeout_ms)
        u.deadline_ms = perf__now_ms(&s3->host.clock) + u.o.timeout_ms;
    u.slots = perf__calloc(&s3->host.allocator, u.slot_count, sizeof *u.slots);
    if (!u.slots)
        return perf__fail_nomem("an upload");
    for (size_t i = 0; i < u.slot_count; i++)
        u.slots[i].u = &u;
    bool has_mutex = !pthread_mutex_init(&u.mutex, NULL);
    if (!has_mutex || perf__cond_init(&u.changed)) {
        if (has_mutex)
            pthread_mutex_destroy(&u.mutex);
        perf__free(&s3->host.allocator, u.slots);
        return perf__fail_nomem("an upload's lock");
    }
    rc = run(&u, &last);
    if (!rc && (rc = report(&u))) { /* too late to stop: it is there */
        rc = PERF_OK;
    }
    stop_all(&u);
    if (rc && *u.id)
        rc = take_back(&u, rc);
    pthread_cond_destroy(&u.changed);
    pthread_mutex_destroy(&u.mutex);
    perf__free(&s3->host.allocator, u.slots);
    perf__free(&s3->host.allocator, u.parts);
    if (!rc && out)
        *out = last;
    else
        perf_aws_reply_release(last);
    return rc;
}
