/* SPDX-License-Identifier: MIT */
/*
 * aws_s3_test.c - the S3 client against moto, which checks signatures; through toxiproxy, which
 * cuts connections in the middle; and with what the real S3 would answer and moto does not, from
 * nginx.
 */
#include <libperf/aws_s3.h>

#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "leaks.h"
#include "server.h"
#include "test.h"

struct fixture {
    struct test_server *moto;
    perf_aws_keys *keys;
    perf_aws_credentials *credentials;
    perf_http *http;
    perf_aws *s3;
};

static int give_keys(void *ctx, int64_t timeout_ms, perf_aws_keys **out)
{
    (void)timeout_ms;
    *out = perf_aws_keys_share(ctx);
    return PERF_OK;
}

static perf_aws *open_s3(struct fixture *f, const char *url)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *s3 = NULL;
    o.service = "s3";
    o.region = "us-east-1";
    o.endpoint_url = url;
    o.timeout_ms = o.attempt_timeout_ms = TEST_PATIENCE_MS;
    o.credentials = f->credentials;
    o.http = f->http;
    cr_assert_eq(perf_aws_open(&o, &s3), PERF_OK, "%s", perf_last_error());
    return s3;
}

static void open_keys(struct fixture *f, const char *id, const char *secret)
{
    perf_aws_credentials_provider p = PERF_AWS_CREDENTIALS_PROVIDER_INIT;
    perf_aws_credentials_options o = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
    cr_assert_eq(perf_aws_keys_new(id, secret, NULL, 0, NULL, &f->keys), PERF_OK);
    p.ctx = f->keys;
    p.get = give_keys;
    o.provider = &p;
    cr_assert_eq(perf_aws_credentials_open(&o, &f->credentials), PERF_OK, "%s", perf_last_error());
}

static void make_bucket(perf_aws *s3, const char *bucket)
{
    perf_aws_request r = PERF_AWS_REQUEST_INIT;
    perf_aws_reply *reply = NULL;
    char path[100];
    snprintf(path, sizeof path, "/%s", bucket);
    r.operation = "CreateBucket";
    r.method = "PUT";
    r.path = path;
    cr_assert_eq(perf_aws_perform(s3, &r, &reply), PERF_OK, "%s", perf_last_error());
    perf_aws_reply_release(reply);
}

static bool begin(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    f->moto = test_server_moto();
    if (!f->moto)
        return false;
    open_keys(f, f->moto->access_key, f->moto->secret_key);
    cr_assert_eq(perf_http_open(NULL, &f->http), PERF_OK);
    f->s3 = open_s3(f, f->moto->url);
    make_bucket(f->s3, "data");
    return true;
}

static void close_keys(struct fixture *f)
{
    cr_assert_eq(perf_aws_credentials_close(f->credentials), PERF_OK);
    perf_aws_keys_release(f->keys);
}

static void end(struct fixture *f)
{
    cr_assert_eq(perf_aws_close(f->s3), PERF_OK, "%s", perf_last_error());
    perf_http_close(f->http);
    close_keys(f);
    test_server_stop(f->moto);
}

#define OK(call) cr_assert_eq((call), PERF_OK, "%s", perf_last_error())
#define IS(code, call)                                                               \
    do {                                                                             \
        int got_ = (call);                                                           \
        cr_assert_eq(got_, code, "%s: %s", perf_strstatus(got_), perf_last_error()); \
    } while (0)

/* Bytes that differ everywhere, without memory: the n-th is a hash of n. */
static uint8_t byte_at(uint64_t n)
{
    uint64_t x = (n >> 3) * 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    return (uint8_t)(x >> (8 * (n & 7)));
}

struct source {
    int64_t at, len;
    int rewinds;
    int64_t read;
    struct test_server
        *proxy; /* its toxic "cut" ends when the stream is rewound to be sent again */
};

static int64_t give(void *ctx, void *buf, size_t size)
{
    struct source *s = ctx;
    uint8_t *to = buf;
    size_t n = (uint64_t)(s->len - s->at) < size ? (size_t)(s->len - s->at) : size;
    for (size_t i = 0; i < n; i++)
        to[i] = byte_at((uint64_t)s->at + i);
    s->at += (int64_t)n;
    s->read += (int64_t)n;
    return (int64_t)n;
}

static int again(void *ctx)
{
    struct source *s = ctx;
    s->at = 0;
    s->rewinds++;
    if (s->rewinds > 1 && s->proxy)
        cr_assert(test_toxic_remove(s->proxy, "cut"), "%s", test_server_why());
    return PERF_OK;
}

struct drain {
    uint64_t at; /* of the object */
    int64_t got;
    int64_t wrong;
    int pieces;
    int fail_with; /* after the first piece */
};

static int take(void *ctx, const perf_http_reply *reply, const void *data, size_t len)
{
    struct drain *d = ctx;
    const uint8_t *bytes = data;
    (void)reply;
    for (size_t i = 0; i < len; i++)
        d->wrong += bytes[i] != byte_at(d->at + i);
    d->at += len;
    d->got += (int64_t)len;
    d->pieces++;
    return d->fail_with;
}

/* Sanitizers keep what was freed. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MEMORY_BOUND_KIB = 4096 * 1024 };
#else
enum { MEMORY_BOUND_KIB = 16 * 1024 };
#endif

static long peak_kib(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_maxrss;
}

/* -------------------------------------------------------------------- one request each */

static void put_get_head_delete(struct fixture *f)
{
    static const char *const keys[] = {"plain",
                                       "a/b//c",
                                       "./dots/../kept/.",
                                       "/leading",
                                       "gr\xc3\xbc\xc3\x9f e/\xe6\x97\xa5\xe6\x9c\xac",
                                       "percent%2Fis%20itself",
                                       "~tilde_-.!*'()&$@:,;?#[]"};
    perf_aws_reply *reply = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char body[64];
        snprintf(body, sizeof body, "body %zu", i);
        OK(perf_s3_put(f->s3, "data", keys[i], body, strlen(body), 0));
        OK(perf_s3_get(f->s3, "data", keys[i], 0, &reply));
        cr_assert_str_eq(perf_aws_reply_body(reply), body, "%s", keys[i]);
        cr_assert_not_null(perf_aws_reply_header(reply, "x-amz-checksum-crc32"));
        perf_aws_reply_release(reply);
        OK(perf_s3_head(f->s3, "data", keys[i], 0, &reply));
        cr_assert_str_eq(perf_aws_reply_header(reply, "content-length"), "6");
        perf_aws_reply_release(reply);
    }
    OK(perf_s3_copy(f->s3, "data", keys[4], "data", "copy of it", 0));
    OK(perf_s3_get(f->s3, "data", "copy of it", 0, &reply));
    cr_assert_str_eq(perf_aws_reply_body(reply), "body 4");
    perf_aws_reply_release(reply);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        OK(perf_s3_delete(f->s3, "data", keys[i], 0));
        IS(PERF_MISS, perf_s3_get(f->s3, "data", keys[i], 0, &reply));
        cr_assert_str_eq(perf_aws_error_code(), "NoSuchKey");
        IS(PERF_MISS, perf_s3_head(f->s3, "data", keys[i], 0, &reply));
        OK(perf_s3_delete(f->s3, "data", keys[i], 0));
    }
    IS(PERF_EREMOTE, perf_s3_get(f->s3, "nowhere", "k", 0, &reply));
    cr_assert_str_eq(perf_aws_error_code(), "NoSuchBucket");
    IS(PERF_MISS, perf_s3_copy(f->s3, "data", "nothing", "data", "x", 0));

    OK(perf_s3_put(f->s3, "data", "empty", NULL, 0, 0));
    OK(perf_s3_get(f->s3, "data", "empty", 0, &reply));
    cr_assert_eq(perf_aws_reply_size(reply), 0);
    perf_aws_reply_release(reply);
}

static void conditions_ranges_headers(struct fixture *f)
{
    perf_s3_put_options p = PERF_S3_PUT_OPTIONS_INIT;
    perf_s3_get_options g = PERF_S3_GET_OPTIONS_INIT;
    perf_http_header meta[] = {{"x-amz-meta-color", "gray blue"}, {"Cache-Control", "no-store"}};
    perf_aws_reply *reply = NULL, *put = NULL;
    char etag[100];
    p.body = (perf_bytes){"0123456789", 10};
    p.content_type = "text/plain";
    p.headers = meta;
    p.header_count = 2;
    OK(perf_s3_put_object(f->s3, "data", "digits", &p, &put));
    snprintf(etag, sizeof etag, "%s", perf_aws_reply_header(put, "etag"));
    perf_aws_reply_release(put);
    cr_assert_str_eq(etag, "\"781e5e245d69b566979b86e28d23f2c7\"", "the MD5 of it");

    OK(perf_s3_get_object(f->s3, "data", "digits", &g, &reply));
    cr_assert_str_eq(perf_aws_reply_header(reply, "content-type"), "text/plain");
    cr_assert_str_eq(perf_aws_reply_header(reply, "x-amz-meta-color"), "gray blue");
    perf_aws_reply_release(reply);

    g.if_none_match = etag;
    OK(perf_s3_get_object(f->s3, "data", "digits", &g, &reply));
    cr_assert_eq(perf_aws_reply_status(reply), 304);
    cr_assert_eq(perf_aws_reply_size(reply), 0);
    perf_aws_reply_release(reply);
    g.if_none_match = NULL;
    g.if_match = "\"00000000000000000000000000000000\"";
    IS(PERF_ECONFLICT, perf_s3_get_object(f->s3, "data", "digits", &g, &reply));
    g.if_match = etag;
    g.offset = 3;
    g.length = 4;
    OK(perf_s3_get_object(f->s3, "data", "digits", &g, &reply));
    cr_assert_eq(perf_aws_reply_status(reply), 206);
    cr_assert_str_eq(perf_aws_reply_body(reply), "3456");
    cr_assert_str_eq(perf_aws_reply_header(reply, "content-range"), "bytes 3-6/10");
    perf_aws_reply_release(reply);
    g.length = 0;
    OK(perf_s3_get_object(f->s3, "data", "digits", &g, &reply));
    cr_assert_str_eq(perf_aws_reply_body(reply), "3456789");
    perf_aws_reply_release(reply);
    g.offset = 10;
    IS(PERF_EREMOTE, perf_s3_get_object(f->s3, "data", "digits", &g, &reply));
    cr_assert_str_eq(perf_aws_error_code(), "InvalidRange");

    p.if_none_match = "*";
    IS(PERF_ECONFLICT, perf_s3_put_object(f->s3, "data", "digits", &p, NULL));
    OK(perf_s3_put_object(f->s3, "data", "digits, too", &p, NULL));
}

static void wrong_secret(struct fixture *f)
{
    struct fixture other = *f;
    perf_aws_reply *reply = NULL;
    open_keys(&other, f->moto->access_key, "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00");
    perf_aws *s3 = open_s3(&other, f->moto->url);
    IS(PERF_EACCESS, perf_s3_get(s3, "data", "digits", 0, &reply));
    cr_assert_str_eq(perf_aws_error_code(), "SignatureDoesNotMatch");
    IS(PERF_EACCESS, perf_s3_put(s3, "data", "digits", "x", 1, 0));
    cr_assert_null(strstr(perf_last_error(), "wJalrX"));
    perf_aws_close(s3);
    close_keys(&other);
}

/* -------------------------------------------------------------------- lists, deletes, links */

enum { MANY = 2500 };

static void list_2500_in_three_pages(struct fixture *f)
{
    static char names[MANY][40];
    const char *keys[MANY];
    perf_s3_list_options o = PERF_S3_LIST_OPTIONS_INIT;
    perf_s3_entry e = PERF_S3_ENTRY_INIT;
    perf_s3_list *list = NULL;
    perf_aws_stats before = PERF_AWS_STATS_INIT, after = PERF_AWS_STATS_INIT;
    int rc, prefixes = 0, objects = 0;
    size_t n = 0, failed = 1;
    for (size_t i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "many/%zu/k+ %%%04zu\xc3\xa9&<", i % 5, i);
        keys[i] = names[i];
        OK(perf_s3_put(f->s3, "data", names[i], names[i], i % 7, 0));
    }
    o.prefix = "many/";
    OK(perf_s3_list_open(f->s3, "data", &o, &list));
    perf_aws_get_stats(f->s3, &before);
    char last[64] = "";
    bool seen[MANY] = {false};
    while ((rc = perf_s3_list_next(list, &e)) == PERF_OK) {
        unsigned group, i = MANY;
        cr_assert_gt(strcmp(e.key, last), 0, "in order");
        snprintf(last, sizeof last, "%s", e.key);
        cr_assert_eq(sscanf(e.key, "many/%u/k+ %%%4u\xc3\xa9&<", &group, &i), 2, "%s", e.key);
        cr_assert(i < MANY && !seen[i]);
        cr_assert_str_eq(e.key, names[i]);
        cr_assert_eq(e.size, i % 7);
        cr_assert_eq(strlen(e.etag), 34);
        cr_assert_str_eq(e.storage_class, "STANDARD");
        int64_t age = (int64_t)time(NULL) * 1000 - e.modified_ms;
        cr_assert(age > -5000 && age < 600000, "%lld ms", (long long)age);
        cr_assert_eq(e.is_prefix, 0);
        seen[i] = true;
        n++;
    }
    IS(PERF_MISS, rc);
    IS(PERF_MISS, perf_s3_list_next(list, &e));
    perf_s3_list_close(list);
    perf_aws_get_stats(f->s3, &after);
    cr_assert_eq(n, MANY);
    cr_assert_eq(after.calls - before.calls, 3, "three pages");

    o.delimiter = "/";
    OK(perf_s3_list_open(f->s3, "data", &o, &list));
    while ((rc = perf_s3_list_next(list, &e)) == PERF_OK) {
        cr_assert_eq(e.is_prefix, 1);
        cr_assert_eq(e.key[5], '0' + prefixes);
        prefixes++;
    }
    IS(PERF_MISS, rc);
    cr_assert_eq(prefixes, 5);
    perf_s3_list_close(list);

    o.delimiter = NULL;
    o.prefix = "many/3/";
    o.start_after = names[2003];
    o.page_size = 7;
    OK(perf_s3_list_open(f->s3, "data", &o, &list));
    while ((rc = perf_s3_list_next(list, &e)) == PERF_OK)
        objects++;
    IS(PERF_MISS, rc);
    cr_assert_eq(objects, 99);
    perf_s3_list_close(list);

    OK(perf_s3_delete_many(f->s3, "data", keys, MANY, 0, &failed));
    cr_assert_eq(failed, 0);
    o = (perf_s3_list_options)PERF_S3_LIST_OPTIONS_INIT;
    o.prefix = "many/";
    OK(perf_s3_list_open(f->s3, "data", &o, &list));
    IS(PERF_MISS, perf_s3_list_next(list, &e));
    perf_s3_list_close(list);
    OK(perf_s3_list_open(f->s3, "nowhere", NULL, &list));
    IS(PERF_EREMOTE, perf_s3_list_next(list, &e));
    IS(PERF_EREMOTE, perf_s3_list_next(list, &e));
    perf_s3_list_close(list);
}

/* What anybody may do with the link, by plain HTTP. */
static int64_t fetch(perf_http *http, const char *method, const char *url, const char *body,
                     char *out, size_t size)
{
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    perf_http_reply *reply = NULL;
    r.method = method;
    r.url = url;
    if (body)
        r.body = (perf_bytes){body, strlen(body)};
    OK(perf_http_perform(http, &r, &reply));
    int64_t status = perf_http_reply_status(reply);
    snprintf(out, size, "%s", (const char *)perf_http_reply_body(reply));
    perf_http_reply_release(reply);
    return status;
}

/* moto cannot check the signature of a link, but botocore can make the same one. */
static void expect_same_link(struct fixture *f, const char *method, const char *url)
{
    static const char script[] =
        "import sys, datetime, botocore.auth as auth\n"
        "from botocore.awsrequest import AWSRequest\n"
        "from botocore.credentials import Credentials\n"
        "from urllib.parse import urlsplit, parse_qs\n"
        "method, url, key, secret = sys.argv[1:]\n"
        "query = parse_qs(urlsplit(url).query)\n"
        "time = datetime.datetime.strptime(query['X-Amz-Date'][0], '%Y%m%dT%H%M%SZ')\n"
        "auth.get_current_datetime = lambda *a, **k: time\n"
        "signer = auth.S3SigV4QueryAuth(Credentials(key, secret), 's3', 'us-east-1', expires=60)\n"
        "request = AWSRequest(method, url.split('?')[0])\n"
        "signer.add_auth(request)\n"
        "theirs = parse_qs(urlsplit(request.url).query)\n"
        "assert theirs == query, (theirs, query)\n";
    const char *python = test_server_python();
    cr_assert_not_null(python);
    const char *const argv[] = {
        python, "-c", script, method, url, f->moto->access_key, f->moto->secret_key, NULL};
    cr_assert(test_server_run(f->moto, argv), "%s", test_server_why());
}

static void links(struct fixture *f)
{
    char url[4096], body[256];
    cr_assert_eq(test_http(f->moto->port, "POST", "/moto-api/reset-auth", NULL, "inf", NULL), 200);
    OK(perf_s3_presign(f->s3, "PUT", "data", "linked/file +1", 60, url, sizeof url));
    expect_same_link(f, "PUT", url);
    cr_assert_eq(fetch(f->http, "PUT", url, "by a link", body, sizeof body), 200, "%s", body);
    OK(perf_s3_presign(f->s3, "GET", "data", "linked/file +1", 60, url, sizeof url));
    expect_same_link(f, "GET", url);
    cr_assert_eq(fetch(f->http, "GET", url, NULL, body, sizeof body), 200, "%s", body);
    cr_assert_str_eq(body, "by a link");
    cr_assert_eq(test_http(f->moto->port, "POST", "/moto-api/reset-auth", NULL, "0", NULL), 200);
    IS(PERF_ETOOSMALL, perf_s3_presign(f->s3, "GET", "data", "k", 60, url, 100));
    IS(PERF_EINVAL, perf_s3_presign(f->s3, "POST", "data", "k", 60, url, sizeof url));
    IS(PERF_EINVAL, perf_s3_presign(f->s3, "GET", "data", "k", 604801, url, sizeof url));
}

/* ------------------------------------------------------------------------------ streams */

static void put_stream(perf_aws *s3, const char *key, struct source *s)
{
    perf_s3_put_options p = PERF_S3_PUT_OPTIONS_INIT;
    p.read = give;
    p.read_ctx = s;
    p.read_len = s->len;
    p.rewind = again;
    OK(perf_s3_put_object(s3, "data", key, &p, NULL));
}

static void get_stream(perf_aws *s3, const char *key, int64_t len)
{
    perf_s3_get_options g = PERF_S3_GET_OPTIONS_INIT;
    struct drain d = {0};
    perf_aws_reply *reply = NULL;
    g.write = take;
    g.write_ctx = &d;
    OK(perf_s3_get_object(s3, "data", key, &g, &reply));
    perf_aws_reply_release(reply);
    cr_assert_eq(d.got, len, "%lld", (long long)d.got);
    cr_assert_eq(d.wrong, 0);
}

static void streams(struct fixture *f)
{
    perf_s3_put_options p = PERF_S3_PUT_OPTIONS_INIT;
    struct source s = {.len = 3000000};
    put_stream(f->s3, "stream", &s);
    cr_assert_eq(s.rewinds, 1, "once for its hash");
    get_stream(f->s3, "stream", s.len);

    p.read = give;
    p.read_ctx = &s;
    p.read_len = s.len;
    IS(PERF_EINVAL, perf_s3_put_object(f->s3, "data", "no", &p, NULL));
    cr_assert_not_null(strstr(perf_last_error(), "rewind"), "%s", perf_last_error());
    s.at = 0;
    s.len = 1000;
    p.rewind = again;
    IS(PERF_EINVAL, perf_s3_put_object(f->s3, "data", "no", &p, NULL));

    perf_s3_get_options g = PERF_S3_GET_OPTIONS_INIT;
    struct drain d = {.fail_with = PERF_EBUSY};
    perf_aws_reply *reply = NULL;
    g.write = take;
    g.write_ctx = &d;
    IS(PERF_EBUSY, perf_s3_get_object(f->s3, "data", "stream", &g, &reply));
    cr_assert_eq(d.pieces, 1, "its own no is not tried again");
    d = (struct drain){.at = 2000};
    g.offset = 2000;
    g.length = 500000;
    OK(perf_s3_get_object(f->s3, "data", "stream", &g, &reply));
    perf_aws_reply_release(reply);
    cr_assert_eq(d.got, 500000);
    cr_assert_eq(d.wrong, 0);
}

struct watch {
    int calls;
    int64_t last, total;
    bool back;
    int64_t fail_at; /* end it when so much was sent; 0: never */
};

static int watch(void *ctx, int64_t sent, int64_t total)
{
    struct watch *w = ctx;
    w->calls++;
    w->back = w->back || sent < w->last;
    w->last = sent;
    w->total = total;
    return w->fail_at && sent >= w->fail_at ? PERF_ECANCELED : PERF_OK;
}

static int uploads_under_way(struct fixture *f)
{
    perf_aws_request r = PERF_AWS_REQUEST_INIT;
    perf_aws_reply *reply = NULL;
    r.operation = "ListMultipartUploads";
    r.path = "/data";
    r.query = "uploads=";
    OK(perf_aws_perform(f->s3, &r, &reply));
    int count = 0;
    for (const char *at = perf_aws_reply_body(reply); (at = strstr(at, "<UploadId>")); at++)
        count++;
    perf_aws_reply_release(reply);
    return count;
}

static void upload(struct fixture *f, int64_t len, bool known)
{
    perf_s3_upload_options o = PERF_S3_UPLOAD_OPTIONS_INIT;
    struct source s = {.len = len};
    struct watch w = {0};
    perf_aws_reply *reply = NULL;
    o.read = give;
    o.read_ctx = &s;
    o.total = known ? len : -1;
    o.part_bytes = 5 << 20;
    o.max_in_flight = 3;
    o.progress = watch;
    o.progress_ctx = &w;
    o.content_type = "text/x-numbers";
    OK(perf_s3_upload(f->s3, "data", "uploaded", &o, &reply));
    perf_aws_reply_release(reply);
    cr_assert_eq(w.last, len, "%lld", (long long)w.last);
    cr_assert_eq(w.total, known ? len : -1);
    cr_assert_geq(w.calls, 2);
    get_stream(f->s3, "uploaded", len);
    OK(perf_s3_head(f->s3, "data", "uploaded", 0, &reply));
    cr_assert_str_eq(perf_aws_reply_header(reply, "content-type"), "text/x-numbers");
    const char *etag = perf_aws_reply_header(reply, "etag");
    int64_t parts = (len + (5 << 20) - 1) / (5 << 20);
    char ending[16];
    snprintf(ending, sizeof ending, "-%d\"", (int)parts);
    bool split = parts > 1 || (!known && len == 5 << 20); /* it did not know that this was all */
    cr_assert_eq(split, strstr(etag, ending) != NULL, "%s", etag);
    perf_aws_reply_release(reply);
    cr_assert_eq(uploads_under_way(f), 0);
}

static void uploads(struct fixture *f)
{
    upload(f, 0, true);
    upload(f, 0, false);
    upload(f, 100, true);
    upload(f, 100, false);
    upload(f, 5 << 20, true);
    upload(f, 5 << 20, false);
    upload(f, (5 << 20) + 1, false);
    upload(f, 21 << 20, true);

    perf_s3_upload_options o = PERF_S3_UPLOAD_OPTIONS_INIT;
    struct source s = {.len = 30 << 20};
    struct watch w = {.fail_at = 11 << 20};
    o.read = give;
    o.read_ctx = &s;
    o.total = s.len;
    o.part_bytes = 5 << 20;
    o.max_in_flight = 2;
    o.progress = watch;
    o.progress_ctx = &w;
    IS(PERF_ECANCELED, perf_s3_upload(f->s3, "data", "never", &o, NULL));
    cr_assert_eq(uploads_under_way(f), 0, "its parts are taken back");
    perf_aws_reply *reply = NULL;
    IS(PERF_MISS, perf_s3_head(f->s3, "data", "never", 0, &reply));
    s = (struct source){.len = 12 << 20};
    w.fail_at = 0;
    IS(PERF_EINVAL, perf_s3_upload(f->s3, "data", "never", &o, NULL));
    cr_assert_not_null(strstr(perf_last_error(), "read ended after"), "%s", perf_last_error());
    cr_assert_eq(uploads_under_way(f), 0);
    s = (struct source){.len = 30 << 20};
    IS(PERF_EREMOTE, perf_s3_upload(f->s3, "nowhere", "never", &o, NULL));
    o.part_bytes = 1 << 20;
    IS(PERF_EINVAL, perf_s3_upload(f->s3, "data", "never", &o, NULL));
}

Test(s3_live, objects, .timeout = 300)
{
    struct fixture f;
    if (!begin(&f))
        PERF_TEST_SKIP(test_server_why());
    put_get_head_delete(&f);
    conditions_ranges_headers(&f);
    wrong_secret(&f);
    links(&f);
    streams(&f);
    uploads(&f);
    list_2500_in_three_pages(&f);
    end(&f);
}

/* ------------------------------------------------------------------- broken in the middle */

enum { BIG = 64 << 20 };

Test(s3_live, resets_in_the_middle, .timeout = 300)
{
    struct fixture f;
    if (!begin(&f))
        PERF_TEST_SKIP(test_server_why());
    struct test_server *proxy = test_server_toxiproxy(f.moto->port);
    if (!proxy) {
        end(&f);
        PERF_TEST_SKIP(test_server_why());
    }
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", proxy->ports[1]);
    perf_aws *s3 = open_s3(&f, url);
    perf_aws_stats stats = PERF_AWS_STATS_INIT;

    /* Up: the first connection ends after 20 MiB, the second goes through. */
    cr_assert(test_toxic_add(proxy, "cut", "limit_data", false, "\"bytes\": 20971520"));
    struct source s = {.len = BIG, .proxy = proxy};
    put_stream(s3, "big", &s);
    cr_assert_eq(s.rewinds, 2, "to be sent, and to be sent again");
    cr_assert_gt(s.read, 2 * (int64_t)BIG + (10 << 20), "it broke in the middle");
    perf_aws_reply *reply = NULL;
    OK(perf_s3_head(f.s3, "data", "big", 0, &reply));
    cr_assert_str_eq(perf_aws_reply_header(reply, "content-length"), "67108864");
    perf_aws_reply_release(reply);

    /* Down: every connection ends after 10 MiB, and each goes on where the last one was. */
    cr_assert(test_toxic_add(proxy, "cut", "limit_data", true, "\"bytes\": 10485760"));
    perf_aws_get_stats(s3, &stats);
    uint64_t before = stats.calls;
    get_stream(s3, "big", BIG);
    perf_aws_get_stats(s3, &stats);
    cr_assert_geq(stats.calls - before, 7, "%llu", (unsigned long long)(stats.calls - before));
    perf_aws_close(s3);
    test_server_stop(proxy);
    end(&f);
}

Test(s3_live, memory_is_bounded, .timeout = 600)
{
    enum { HUGE_LEN = 256 << 20 };
    struct fixture f;
    if (!begin(&f))
        PERF_TEST_SKIP(test_server_why());
    struct source s = {.len = 6 << 20};
    put_stream(f.s3, "warm", &s);
    get_stream(f.s3, "warm", s.len);
    long before = peak_kib();
    s = (struct source){.len = HUGE_LEN};
    put_stream(f.s3, "huge", &s);
    get_stream(f.s3, "huge", HUGE_LEN);
    long grown = peak_kib() - before;
    fprintf(stderr, "[ s3 ] 256 MiB up and down: %ld KiB more memory\n", grown);
    cr_assert_lt(grown, MEMORY_BOUND_KIB, "%ld KiB", grown);
    perf_s3_upload_options o = PERF_S3_UPLOAD_OPTIONS_INIT;
    s = (struct source){.len = HUGE_LEN};
    o.read = give;
    o.read_ctx = &s;
    o.total = HUGE_LEN;
    o.part_bytes = 5 << 20;
    o.max_in_flight = 2;
    OK(perf_s3_upload(f.s3, "data", "huge", &o, NULL));
    grown = peak_kib() - before;
    fprintf(stderr, "[ s3 ] 256 MiB in parts of 5, two at once: %ld KiB more memory\n", grown);
    cr_assert_lt(grown, MEMORY_BOUND_KIB, "%ld KiB", grown);
    end(&f);
}

/* -------------------------------------------------------------------------------- https */

static const char tls[] = "    ssl_certificate_key @DIR@/key.pem;\n"
                          "    client_max_body_size 100m;\n"
                          "    server {\n"
                          "        listen 127.0.0.1:@PORT@ ssl;\n"
                          "        ssl_certificate @DIR@/cert.pem;\n"
                          "        location / {\n"
                          "            proxy_pass http://127.0.0.1:@UPSTREAM@;\n"
                          "            proxy_http_version 1.1;\n"
                          "            proxy_set_header Host $http_host;\n"
                          "        }\n"
                          "    }\n";

/* Nothing is read for a hash, and a source that cannot begin anew will do. */
Test(s3_live, over_https, .timeout = 120)
{
    struct fixture f;
    if (!begin(&f))
        PERF_TEST_SKIP(test_server_why());
    struct test_server *s = test_server_nginx(tls, f.moto->port);
    if (!s) {
        end(&f);
        PERF_TEST_SKIP(test_server_why());
    }
    struct fixture secure = f;
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    char url[64], ca[128];
    snprintf(ca, sizeof ca, "%s", test_server_file(s, "ca.pem"));
    snprintf(url, sizeof url, "https://127.0.0.1:%d", s->port);
    o.ca_file = ca;
    OK(perf_http_open(&o, &secure.http));
    secure.s3 = open_s3(&secure, url);

    perf_s3_put_options p = PERF_S3_PUT_OPTIONS_INIT;
    struct source source = {.len = 3000000};
    p.read = give;
    p.read_ctx = &source;
    p.read_len = source.len;
    OK(perf_s3_put_object(secure.s3, "data", "over tls", &p, NULL));
    cr_assert_eq(source.read, source.len, "read once");
    get_stream(secure.s3, "over tls", source.len);
    OK(perf_s3_put(secure.s3, "data", "small", "abc", 3, 0));
    upload(&secure, 11 << 20, true);
    perf_aws_close(secure.s3);
    perf_http_close(secure.http);
    test_server_stop(s);
    end(&f);
}

/* ------------------------------------------------------------- what moto does not answer */

static const char strange[] =
    "    server {\n"
    "        listen 127.0.0.1:@PORT@;\n"
    "        default_type application/xml;\n"
    "        client_max_body_size 100m;\n"
    "        location /wrong-crc/ { add_header x-amz-checksum-crc32 AAAAAA==; return 200 hello; }\n"
    "        location /right-crc/ { add_header x-amz-checksum-crc32 NhCmhg==; return 200 hello; }\n"
    "        location /parts-crc/ { add_header x-amz-checksum-crc32 AAAAAA==-2; return 200 hello; "
    "}\n"
    "        location /not-the-range/ { return 200 hello; }\n"
    "        location /copy/ { return 200 '<Error><Code>InternalError</Code><Message>We are sorry"
    "</Message></Error>'; }\n"
    "        location = /no-xml { return 200 'hello'; }\n"
    "        location = /bomb { return 200 '<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>'; }\n"
    "        location = /no-token { return 200 '<ListBucketResult><IsTruncated>true</IsTruncated>"
    "</ListBucketResult>'; }\n"
    "        location = /no-key { return 200 '<ListBucketResult><Contents><Size>1</Size></Contents>"
    "</ListBucketResult>'; }\n"
    "        location = /for-ever { return 200 '<ListBucketResult><IsTruncated>true</IsTruncated>"
    "<NextContinuationToken>t</NextContinuationToken></ListBucketResult>'; }\n"
    "        location = /kept { return 200 '<DeleteResult><Error><Key>b</Key><Code>AccessDenied"
    "</Code><Message>it is locked</Message></Error></DeleteResult>'; }\n"
    "        location /upload/ {\n"
    "            if ($arg_partNumber) { add_header ETag '\"e\"'; return 200; }\n"
    "            if ($request_method = DELETE) { return 500; }\n"
    "            if ($arg_uploadId) { return 200 '<Error><Code>InternalError</Code></Error>'; }\n"
    "            return 200 '<InitiateMultipartUploadResult><UploadId>the-id</UploadId>"
    "</InitiateMultipartUploadResult>';\n"
    "        }\n"
    "    }\n";

static int first_of(perf_aws *s3, const char *bucket)
{
    perf_s3_entry e = PERF_S3_ENTRY_INIT;
    perf_s3_list *list = NULL;
    OK(perf_s3_list_open(s3, bucket, NULL, &list));
    int rc = perf_s3_list_next(list, &e);
    perf_s3_list_close(list);
    return rc;
}

static void ask_for_strange_answers(struct test_server *s)
{
    struct fixture f = {NULL, NULL, NULL, NULL, NULL};
    perf_aws_reply *reply = NULL;
    open_keys(&f, "AKIDEXAMPLE", "secret");
    OK(perf_http_open(NULL, &f.http));
    f.s3 = open_s3(&f, s->url);
    IS(PERF_ECORRUPT, perf_s3_get(f.s3, "wrong-crc", "k", 0, &reply));
    OK(perf_s3_get(f.s3, "right-crc", "k", 0, &reply));
    perf_aws_reply_release(reply);
    OK(perf_s3_get(f.s3, "parts-crc", "k", 0, &reply));
    perf_aws_reply_release(reply);
    perf_s3_get_options g = PERF_S3_GET_OPTIONS_INIT;
    struct drain d = {.at = 3};
    g.write = take;
    g.write_ctx = &d;
    g.offset = 3;
    IS(PERF_EPROTOCOL, perf_s3_get_object(f.s3, "not-the-range", "k", &g, &reply));
    cr_assert_eq(d.got, 0);
    IS(PERF_EREMOTE, perf_s3_copy(f.s3, "copy", "a", "copy", "b", 0));
    cr_assert_str_eq(perf_aws_error_code(), "InternalError");
    IS(PERF_EPROTOCOL, first_of(f.s3, "no-xml"));
    IS(PERF_EPROTOCOL, first_of(f.s3, "bomb"));
    IS(PERF_EPROTOCOL, first_of(f.s3, "no-token"));
    IS(PERF_EPROTOCOL, first_of(f.s3, "no-key"));
    IS(PERF_EPROTOCOL, first_of(f.s3, "for-ever"));
    const char *const keys[] = {"a", "b", "c"};
    size_t failed = 0;
    IS(PERF_EACCESS, perf_s3_delete_many(f.s3, "kept", keys, 3, 0, &failed));
    cr_assert_eq(failed, 1);
    cr_assert_not_null(strstr(perf_last_error(), "1 of 3 were kept; 'b': AccessDenied"), "%s",
                       perf_last_error());

    perf_s3_upload_options o = PERF_S3_UPLOAD_OPTIONS_INIT;
    struct source source = {.len = 12 << 20};
    o.read = give;
    o.read_ctx = &source;
    o.total = source.len;
    o.timeout_ms = 20000;
    IS(PERF_EREMOTE, perf_s3_upload(f.s3, "upload", "k", &o, NULL));
    cr_assert_str_eq(perf_aws_error_code(), "InternalError");
    cr_assert_not_null(strstr(perf_last_error(), "upload id the-id"), "%s", perf_last_error());
    perf_aws_close(f.s3);
    perf_http_close(f.http);
    close_keys(&f);
}

Test(s3_live, strange_answers, .timeout = 120)
{
    struct test_server *s = test_server_nginx(strange, 0);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    ask_for_strange_answers(s);
    struct test_leaks leaks = test_leaks_begin();
    ask_for_strange_answers(s);
    test_leaks_end(&leaks);
    test_server_stop(s);
}
