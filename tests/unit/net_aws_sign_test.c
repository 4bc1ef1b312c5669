/* SPDX-License-Identifier: MIT */
/* net_aws_sign_test.c - the signer: AWS's published examples, its refusals, its memory. */
#include <libperf/aws_auth.h>
#include <pthread.h>

#include "../../src/net/aws_canonical.h"
#include "../../src/net/aws_hash.h"
#include "../../src/net/aws_keys.h"
#include "../../src/net/aws_sign.h"
#include "seams.h"
#include "test.h"

/* Of AWS's documentation: no key of anybody. */
#define ID     "AKIAIOSFODNN7EXAMPLE"
#define SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

static perf_aws_keys *keys_of(const char *token)
{
    perf_aws_keys *keys = NULL;
    cr_assert_eq(perf_aws_keys_new(ID, SECRET, token, 0, NULL, &keys), PERF_OK);
    return keys;
}

/* 2013-05-24T00:00:00Z, GET /test.txt of examplebucket, as S3's documentation has it. */
static perf_aws_sign_request s3_request(void)
{
    static const perf_http_header headers[] = {
        {"Host", "examplebucket.s3.amazonaws.com"},
        {"Range", "bytes=0-9"},
    };
    perf_aws_sign_request r = PERF_AWS_SIGN_REQUEST_INIT;
    r.path = "/test.txt";
    r.headers = headers;
    r.header_count = 2;
    r.region = "us-east-1";
    r.service = "s3";
    r.time_ms = 1369353600000;
    return r;
}

static const char *header_of(const perf_aws_signature *signature, const char *wanted)
{
    const char *name, *value;
    for (size_t i = 0; perf_aws_signature_header_at(signature, i, &name, &value) == PERF_OK; i++)
        if (!strcmp(name, wanted))
            return value;
    return NULL;
}

Test(net_aws_sign, s3_example_in_headers)
{
    perf_aws_keys *keys = keys_of(NULL);
    perf_aws_sign_request r = s3_request();
    perf_aws_signature *signature;
    cr_assert_eq(perf_aws_sign(keys, &r, &signature), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_aws_signature_hex(signature),
                     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    cr_assert_str_eq(header_of(signature, "X-Amz-Date"), "20130524T000000Z");
    cr_assert_str_eq(header_of(signature, "X-Amz-Content-Sha256"),
                     "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    cr_assert_str_eq(header_of(signature, "Authorization"),
                     "AWS4-HMAC-SHA256 Credential=" ID "/20130524/us-east-1/s3/aws4_request, "
                     "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature="
                     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    cr_assert_null(header_of(signature, "X-Amz-Security-Token"));
    cr_assert_str_eq(perf_aws_signature_target(signature), "/test.txt");
    cr_assert(strstr(perf_aws_signature_string_to_sign(signature),
                     "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972"));
    cr_assert(strstr(perf_aws_signature_canonical_request(signature), "range:bytes=0-9\n"));
    perf_aws_signature_release(signature);
    perf_aws_keys_release(keys);
}

Test(net_aws_sign, s3_example_as_url)
{
    perf_aws_keys *keys = keys_of(NULL);
    perf_aws_sign_request r = s3_request();
    perf_aws_signature *signature;
    const char *name, *value;
    r.header_count = 1;
    r.form = PERF_AWS_SIGN_URL;
    r.expires_s = 86400;
    cr_assert_eq(perf_aws_sign(keys, &r, &signature), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_aws_signature_hex(signature),
                     "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
    cr_assert_str_eq(perf_aws_signature_target(signature),
                     "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" ID
                     "%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
                     "&X-Amz-SignedHeaders=host&X-Amz-Expires=86400&X-Amz-Signature="
                     "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
    cr_assert_eq(perf_aws_signature_header_at(signature, 0, &name, &value), PERF_MISS);
    perf_aws_signature_release(signature);
    perf_aws_signature_release(NULL);
    perf_aws_keys_release(keys);
}

/* AWS General Reference, "Examples of how to derive a signing key". */
Test(net_aws_sign, signing_key_is_derived_and_remembered)
{
    perf_aws_keys *keys;
    uint8_t key[32];
    char hex[65] = "";
    cr_assert_eq(perf_aws_keys_new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", NULL,
                                   0, NULL, &keys),
                 PERF_OK);
    for (int again = 0; again < 2; again++) {
        memset(key, 0, sizeof key);
        cr_assert_eq(perf__aws_signing_key(keys, "20150830/us-east-1/iam/aws4_request", 9, 3, key),
                     PERF_OK);
        perf__hex(hex, key, sizeof key);
        cr_assert_str_eq(hex, "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
        cr_assert_eq(keys->next_slot, 1, "derived anew");
    }
    for (int i = 0; i < 40; i++) { /* bounded */
        char scope[64];
        snprintf(scope, sizeof scope, "202001%02d/us-east-1/iam/aws4_request", i);
        cr_assert_eq(perf__aws_signing_key(keys, scope, 9, 3, key), PERF_OK);
    }
    cr_assert_eq(perf__aws_signing_key(keys, "20150830/us-east-1/iam/aws4_request", 9, 3, key),
                 PERF_OK);
    perf__hex(hex, key, sizeof key);
    cr_assert_str_eq(hex, "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    perf_aws_keys_release(keys);
}

/* RFC 4231, test cases 1, 2 and 6 (a key longer than a block); FIPS 180-2, "abc". */
Test(net_aws_sign, hashes_are_the_published_ones)
{
    uint8_t digest[32], key[131];
    char hex[65] = "";
    perf__sha256("abc", 3, digest);
    perf__hex(hex, digest, 32);
    cr_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    memset(key, 0x0b, 20);
    perf__hmac_sha256(key, 20, "Hi There", 8, digest);
    perf__hex(hex, digest, 32);
    cr_assert_str_eq(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    perf__hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, digest);
    perf__hex(hex, digest, 32);
    cr_assert_str_eq(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key);
    perf__hmac_sha256(key, sizeof key, "Test Using Larger Than Block-Size Key - Hash Key First", 54,
                      digest);
    perf__hex(hex, digest, 32);
    cr_assert_str_eq(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void refuses(perf_aws_sign_request r, const char *why)
{
    perf_aws_keys *keys = keys_of("token");
    perf_aws_signature *signature = NULL;
    cr_assert_eq(perf_aws_sign(keys, &r, &signature), PERF_EINVAL, "no %s", why);
    cr_assert(strstr(perf_last_error(), why), "%s: %s", why, perf_last_error());
    cr_assert_null(signature);
    perf_aws_keys_release(keys);
}

Test(net_aws_sign, refusals_name_the_field)
{
    perf_aws_sign_request r = s3_request();
    perf_http_header headers[2] = {{"host", "h"}, {"X-AMZ-Date", "now"}};
    r.region = NULL;
    refuses(r, "region");
    r = s3_request(), r.service = "a/b";
    refuses(r, "service");
    r = s3_request(), r.path = "test.txt";
    refuses(r, "path");
    r = s3_request(), r.method = "GET\n";
    refuses(r, "method");
    r = s3_request(), r.expires_s = 604801;
    refuses(r, "expires_s");
    r = s3_request(), r.flags = 16;
    refuses(r, "flags");
    r = s3_request(), r.form = 2;
    refuses(r, "form");
    r = s3_request(), r.time_ms = -1;
    refuses(r, "time_ms");
    r = s3_request(), r.header_count = 257;
    refuses(r, "header_count");
    r = s3_request(), r.header_count = 0;
    refuses(r, "Host");
    r = s3_request(), r.payload.len = 3;
    refuses(r, "payload");
    r = s3_request(), r.headers = headers;
    refuses(r, "X-AMZ-Date");
    headers[1].name = "authorization";
    refuses(r, "authorization");
    headers[1].name = "X-Amz-Security-Token";
    refuses(r, "X-Amz-Security-Token");
    headers[1].name = "a b";
    refuses(r, "headers[1]");
    headers[1].value = NULL;
    refuses(r, "headers[1]");
    headers[1] = (perf_http_header){"x-amz-content-sha256", "UNSIGNED-PAYLOAD"};
    r.payload_hash = "UNSIGNED-PAYLOAD";
    refuses(r, "twice");
    cr_assert_eq(perf_aws_sign(NULL, &r, NULL), PERF_EINVAL);
}

Test(net_aws_sign, keys_are_checked_and_counted)
{
    perf_aws_keys *keys = NULL;
    cr_assert_eq(perf_aws_keys_new("", SECRET, NULL, 0, NULL, &keys), PERF_EINVAL);
    cr_assert_eq(perf_aws_keys_new(ID, NULL, NULL, 0, NULL, &keys), PERF_EINVAL);
    cr_assert_eq(perf_aws_keys_new(ID, "Secret\n", NULL, 0, NULL, &keys), PERF_EINVAL);
    cr_assert_null(strstr(perf_last_error(), "Secret"));
    cr_assert_eq(perf_aws_keys_new(ID, SECRET, "a\rb", 0, NULL, &keys), PERF_EINVAL);
    cr_assert_eq(perf_aws_keys_new(ID, SECRET, NULL, -1, NULL, &keys), PERF_EINVAL);
    cr_assert_null(keys);
    cr_assert_eq(perf_aws_keys_new(ID, SECRET, "token", 1369353600000, NULL, &keys), PERF_OK);
    cr_assert_eq(perf_aws_keys_share(keys), keys);
    perf_aws_keys_release(keys);
    cr_assert_str_eq(perf_aws_keys_id(keys), ID);
    cr_assert_str_eq(perf_aws_keys_secret(keys), SECRET);
    cr_assert_str_eq(perf_aws_keys_token(keys), "token");
    cr_assert_eq(perf_aws_keys_expires_ms(keys), 1369353600000);
    perf_aws_sign_request r = s3_request();
    perf_aws_signature *signature = NULL;
    cr_assert_eq(perf_aws_sign(keys, &r, &signature), PERF_EACCESS);
    r.time_ms--;
    cr_assert_eq(perf_aws_sign(keys, &r, &signature), PERF_OK);
    cr_assert_str_eq(header_of(signature, "X-Amz-Security-Token"), "token");
    perf_aws_keys_release(keys); /* the signature holds them */
    cr_assert_str_eq(header_of(signature, "X-Amz-Security-Token"), "token");
    perf_aws_signature_release(signature);
    perf_aws_keys_release(NULL);
}

/* Requests of every size around the room that a signature brings along. */
Test(net_aws_sign, any_size_fits)
{
    perf_aws_keys *keys = keys_of("token");
    static char path[20000], query[20000], value[20000];
    perf_http_header headers[2] = {{"Host", "h"}, {"X-Long", value}};
    for (size_t n = 1; n < 19000; n += n < 1500 ? 7 : 601) {
        perf_aws_sign_request r = s3_request();
        perf_aws_signature *signature;
        memset(path, '\xe9', n), path[0] = '/', path[n] = '\0';
        memset(query, '&', n), query[n] = '\0';
        for (size_t i = 0; i < n; i += 2)
            query[i] = '?';
        memset(value, 'v', n), value[n] = '\0';
        r.path = path, r.query = query, r.headers = headers;
        r.form = n & 1;
        cr_assert_eq(perf_aws_sign(keys, &r, &signature), PERF_OK, "%zu: %s", n, perf_last_error());
        perf_aws_signature_release(signature);
    }
    perf_aws_keys_release(keys);
}

static const char *path_of(const char *path, bool raw, bool once)
{
    static char out[256];
    struct perf__writer w = {out, out + sizeof out - 1, false};
    perf__put_canonical_path(&w, path, strlen(path), raw, once);
    *w.at = '\0';
    cr_assert(!w.bad);
    return out;
}

Test(net_aws_sign, paths)
{
    cr_assert_str_eq(path_of("/a/../../b//c/./d/", false, false), "/b/c/d/");
    cr_assert_str_eq(path_of("/..", false, false), "/");
    cr_assert_str_eq(path_of("/a/b/..", false, false), "/a");
    cr_assert_str_eq(path_of("/a%20b", false, false), "/a%2520b");
    cr_assert_str_eq(path_of("/a%20b/../c", false, true), "/c");
    cr_assert_str_eq(path_of("/a%2fb=c d", true, true), "/a%2fb%3Dc%20d");
    cr_assert_str_eq(path_of("//a/./%zz%", true, true), "//a/./%25zz%25");
    cr_assert_str_eq(path_of("", true, false), "/");
}

Test(net_aws_sign, a_full_writer_is_bad_and_writes_no_more)
{
    char out[4] = "xxx";
    struct perf__writer w = {out, out + 2, false};
    perf__put(&w, "abc", 3);
    cr_assert(w.bad);
    cr_assert_str_eq(out, "xxx");
    perf__put_encoded(&w, "%", 1, 0);
    cr_assert_str_eq(out, "xxx");
}

Test(net_aws_sign, every_allocation_may_fail)
{
    struct test_host th;
    const perf_host *host = test_host_init(&th);
    static char big[9000];
    memset(big, 'q', sizeof big - 1);
    int done = 0;
    for (int i = 1; i < 20 && !done; i++) {
        perf_aws_keys *keys = NULL;
        perf_aws_signature *signature = NULL;
        perf_aws_sign_request r = s3_request();
        r.query = big;
        r.host = host;
        th.fail_at = i;
        int rc = perf_aws_keys_new(ID, SECRET, "token", 0, host, &keys);
        if (!rc)
            rc = perf_aws_sign(keys, &r, &signature);
        done = rc == PERF_OK;
        cr_assert(done || rc == PERF_ENOMEM);
        perf_aws_signature_release(signature);
        perf_aws_keys_release(keys);
        cr_assert_eq(th.live, 0);
    }
    cr_assert(done && th.failed >= 4);
}

/* The slots are overwritten all the time; every signature must be right nevertheless. */
static void *sign_many(void *ctx)
{
    perf_aws_keys *keys = ctx;
    static const char *const expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c603"
                                        "6bdb41";
    intptr_t wrong = 0;
    for (int i = 0; i < 2000; i++) {
        perf_aws_sign_request r = s3_request();
        struct perf__aws_signing s;
        if (i % 3)
            r.time_ms += (int64_t)(i % 17) * 86400000;
        if (perf__aws_sign(&s, &keys->allocator, keys, &r, 0)) {
            wrong++;
            continue;
        }
        wrong += (i % 3 == 0 || i % 17 == 0) && strcmp(s.signature, expected) != 0;
        perf__aws_signing_end(&s);
    }
    return (void *)wrong;
}

Test(net_aws_sign, threads_share_keys)
{
    perf_aws_keys *keys = keys_of(NULL);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, sign_many, keys), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        cr_assert_null(wrong);
    }
    perf_aws_keys_release(keys);
}
