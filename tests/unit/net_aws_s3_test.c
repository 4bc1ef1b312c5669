/* SPDX-License-Identifier: MIT */
/*
 * net_aws_s3_test.c - S3 without a network: where buckets and keys go in a URL, what is refused
 * before anything is sent, links, small XML documents, and memory that ends.
 */
#include "../../src/net/aws_s3.h"
#include "../../src/base/alloc.h"
#include "../../src/net/aws_xml.h"

#include "seams.h"
#include "test.h"

#define OK(call) cr_assert_eq((call), PERF_OK, "%s", perf_last_error())
#define IS(code, call)                                                               \
    do {                                                                             \
        int got_ = (call);                                                           \
        cr_assert_eq(got_, code, "%s: %s", perf_strstatus(got_), perf_last_error()); \
    } while (0)

struct fixture {
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

static int begin(struct fixture *f, const char *service, const char *url, const perf_host *host)
{
    perf_aws_credentials_provider p = PERF_AWS_CREDENTIALS_PROVIDER_INIT;
    perf_aws_credentials_options co = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    memset(f, 0, sizeof *f);
    test_unset_all("AWS_");
    OK(perf_aws_keys_new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", NULL,
                         0, NULL, &f->keys));
    p.ctx = f->keys;
    p.get = give_keys;
    co.provider = &p;
    OK(perf_aws_credentials_open(&co, &f->credentials));
    OK(perf_http_open(NULL, &f->http));
    o.service = service;
    o.region = "eu-north-1";
    o.endpoint_url = url;
    o.credentials = f->credentials;
    o.http = f->http;
    o.max_attempts = 1;
    o.no_breaker = 1;
    o.host = host;
    return perf_aws_open(&o, &f->s3);
}

static void end(struct fixture *f)
{
    perf_aws_close(f->s3);
    perf_http_close(f->http);
    perf_aws_credentials_close(f->credentials);
    perf_aws_keys_release(f->keys);
}

static void expect_place(perf_aws *s3, const char *bucket, const char *key, const char *prefix,
                         const char *path)
{
    static struct perf__s3_call c;
    OK(perf__s3_begin(&c, s3, "GetObject", "GET", bucket, key));
    cr_assert_str_eq(c.host_prefix, prefix);
    cr_assert_str_eq(c.path, path);
}

Test(s3, where_buckets_and_keys_go)
{
    struct fixture f;
    OK(begin(&f, "s3", NULL, NULL));
    cr_assert_str_eq(perf_aws_endpoint(f.s3), "https://s3.eu-north-1.amazonaws.com");
    expect_place(f.s3, "my-bucket", "a/b", "my-bucket.", "/a/b");
    expect_place(f.s3, "my-bucket", NULL, "my-bucket.", "/");
    expect_place(f.s3, "dots.in.it", "a", "", "/dots.in.it/a");
    expect_place(f.s3, "dots.in.it", NULL, "", "/dots.in.it");
    expect_place(f.s3, "OldUpperCase", "a", "", "/OldUpperCase/a");
    expect_place(f.s3, "b-1", "/lead//../x/.", "b-1.", "//lead//../x/.");
    expect_place(f.s3, "b-1", "a b+c%20\xc3\xbc?#&=~", "b-1.",
                 "/a%20b%2Bc%2520%C3%BC%3F%23%26%3D~");
    end(&f);
    OK(begin(&f, "s3", "http://127.0.0.1:1", NULL));
    expect_place(f.s3, "my-bucket", "a/b", "", "/my-bucket/a/b");
    end(&f);
}

Test(s3, what_is_refused)
{
    struct fixture f;
    static struct perf__s3_call c;
    perf_aws_reply *reply = NULL;
    char long_key[1026], url[100];
    memset(long_key, 'k', sizeof long_key);
    long_key[1025] = 0;
    OK(begin(&f, "dynamodb", NULL, NULL));
    IS(PERF_EINVAL, perf_s3_get(f.s3, "bucket", "k", 0, &reply));
    cr_assert_not_null(strstr(perf_last_error(), "dynamodb"));
    end(&f);
    OK(begin(&f, "s3", "http://127.0.0.1:1", NULL));
    static const char *const bad[] = {"", "a/b", "a b", "..", ".", "caf\xc3\xa9", "a\nb"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        IS(PERF_EINVAL, perf_s3_get(f.s3, bad[i], "k", 0, &reply));
    IS(PERF_EINVAL, perf_s3_get(NULL, "bucket", "k", 0, &reply));
    IS(PERF_EINVAL, perf_s3_get(f.s3, NULL, "k", 0, &reply));
    IS(PERF_EINVAL, perf_s3_get(f.s3, "bucket", NULL, 0, &reply));
    IS(PERF_EINVAL, perf_s3_get(f.s3, "bucket", "", 0, &reply));
    IS(PERF_EINVAL, perf_s3_get(f.s3, "bucket", long_key, 0, &reply));
    long_key[1024] = 0;
    OK(perf__s3_begin(&c, f.s3, "GetObject", "GET", "bucket", long_key));
    IS(PERF_EINVAL, perf_s3_put(f.s3, "bucket", "k", NULL, 5, 0));
    perf_s3_put_options p = PERF_S3_PUT_OPTIONS_INIT;
    perf_http_header none = {"x", NULL};
    p.headers = &none;
    p.header_count = 1;
    IS(PERF_EINVAL, perf_s3_put_object(f.s3, "bucket", "k", &p, NULL));
    p.header_count = 49;
    IS(PERF_EINVAL, perf_s3_put_object(f.s3, "bucket", "k", &p, NULL));
    IS(PERF_EINVAL, perf_s3_presign(f.s3, "GET", "bucket", "k", 0, url, sizeof url));
    IS(PERF_EUNAVAILABLE, perf_s3_head(f.s3, "bucket", "k", 0, &reply));
    IS(PERF_EUNAVAILABLE, perf_s3_delete(f.s3, "bucket", "k", 0));
    end(&f);
}

/* Its signature is compared with botocore's in tests/live/aws_s3_test.c. */
Test(s3, a_link)
{
    struct fixture f;
    struct test_host th;
    char url[1024];
    OK(begin(&f, "s3", NULL, test_host_init(&th)));
    OK(perf_s3_presign(f.s3, "GET", "examplebucket", "test.txt", 86400, url, sizeof url));
    static const char begins[] = "https://examplebucket.s3.eu-north-1.amazonaws.com/test.txt?"
                                 "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
                                 "AKIAIOSFODNN7EXAMPLE%2F";
    cr_assert(!strncmp(url, begins, sizeof begins - 1), "%s", url);
    cr_assert_not_null(strstr(url, "%2Feu-north-1%2Fs3%2Faws4_request"), "%s", url);
    cr_assert_not_null(strstr(url, "&X-Amz-SignedHeaders=host&X-Amz-Expires=86400&"), "%s", url);
    cr_assert_null(strstr(url, "wJalr"));
    end(&f);
}

/* -------------------------------------------------------------------------------- XML */

struct paths {
    char all[512];
};

static int note(void *ctx, const char *path, const char *text, size_t len)
{
    struct paths *p = ctx;
    size_t at = strlen(p->all);
    cr_assert_eq(strlen(text), len);
    snprintf(p->all + at, sizeof p->all - at, "%s=%s;", path, text);
    return PERF_OK;
}

static int read_xml(const char *document, struct paths *p)
{
    p->all[0] = 0;
    return perf__xml_read(&perf__default_allocator, "a test", document, strlen(document), note, p);
}

Test(s3, xml)
{
    struct paths p;
    OK(read_xml("<?xml version=\"1.0\"?>\n<a xmlns=\"http://x\"><b>1</b>t<c><d x='y'>&lt;&#65;"
                "<![CDATA[<]]></d></c><b/>u</a>",
                &p));
    cr_assert_str_eq(p.all, "a/b=1;a/c/d=<A<;a/c=;a/b=;a=tu;");
    static const char *const bad[] = {"",
                                      "x",
                                      "<a>",
                                      "<a></b>",
                                      "<a/><b/>",
                                      "<!DOCTYPE a><a/>",
                                      "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
                                      "<a>&unknown;</a>"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        IS(PERF_EPROTOCOL, read_xml(bad[i], &p));
    char deep[400] = "";
    for (int i = 0; i < PERF__XML_DEPTH; i++)
        strcat(deep, "<a>");
    for (int i = 0; i < PERF__XML_DEPTH; i++)
        strcat(deep, "</a>");
    OK(read_xml(deep, &p));
    memmove(deep + 3, deep, strlen(deep) + 1);
    memcpy(deep, "<a>", 3);
    strcat(deep, "</a>");
    IS(PERF_EPROTOCOL, read_xml(deep, &p));

    char out[64];
    cr_assert_eq(perf__xml_escape(NULL, "a<b>&\n"), 20);
    cr_assert_eq(perf__xml_escape(out, "a<b>&\n"), 20);
    cr_assert_str_eq(out, "a&lt;b&gt;&amp;&#10;");
}

/* ------------------------------------------------------------------------------ memory */

static int64_t give(void *ctx, void *buf, size_t size)
{
    int64_t *left = ctx;
    int64_t n = *left < (int64_t)size ? *left : (int64_t)size;
    memset(buf, 'x', (size_t)n);
    *left -= n;
    return n;
}

static int again(void *ctx)
{
    *(int64_t *)ctx = 1000;
    return PERF_OK;
}

static int use(perf_aws *s3, int what)
{
    perf_aws_reply *reply = NULL;
    perf_s3_list *list = NULL;
    perf_s3_entry e = PERF_S3_ENTRY_INIT;
    perf_s3_put_options p = PERF_S3_PUT_OPTIONS_INIT;
    perf_s3_upload_options u = PERF_S3_UPLOAD_OPTIONS_INIT;
    const char *const keys[] = {"a", "b"};
    char url[1024];
    int64_t left = 1000;
    int rc;
    switch (what) {
    case 0:
        return perf_s3_delete_many(s3, "bucket", keys, 2, 0, NULL);
    case 1:
        rc = perf_s3_list_open(s3, "bucket", NULL, &list);
        rc = rc ? rc : perf_s3_list_next(list, &e);
        perf_s3_list_close(list);
        return rc;
    case 2:
        p.read = give;
        p.read_ctx = &left;
        p.read_len = 1000;
        p.rewind = again;
        return perf_s3_put_object(s3, "bucket", "k", &p, NULL);
    case 3:
        u.read = give;
        u.read_ctx = &left;
        u.total = 1000;
        return perf_s3_upload(s3, "bucket", "k", &u, NULL);
    case 4:
        rc = perf_s3_presign(s3, "GET", "bucket", "k", 60, url, sizeof url);
        return rc ? rc : PERF_EUNAVAILABLE;
    default:
        return perf_s3_get(s3, "bucket", "k", 0, &reply);
    }
}

Test(s3, each_allocation_fails_once)
{
    int refused = 0;
    for (int what = 0; what < 6; what++) {
        struct fixture f;
        struct test_host th;
        OK(begin(&f, "s3", "http://127.0.0.1:1", test_host_init(&th)));
        IS(PERF_EUNAVAILABLE, use(f.s3, what));
        for (int64_t n = 1;; n++) {
            int64_t failed = th.failed;
            th.fail_at = n;
            int rc = use(f.s3, what);
            if (th.failed == failed)
                break;
            /* A thread that cannot count goes on without. */
            cr_assert(rc == PERF_ENOMEM || rc == PERF_EUNAVAILABLE, "%d, %lld: %s", what,
                      (long long)n, perf_strstatus(rc));
            refused += rc == PERF_ENOMEM;
        }
        th.fail_at = 0;
        end(&f);
        cr_assert_eq(th.live, 0);
    }
    cr_assert_gt(refused, 10);
}
