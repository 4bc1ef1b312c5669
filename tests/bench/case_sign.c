/* SPDX-License-Identifier: MIT */
/*
 * case_sign.c - what signing a DynamoDB request costs with a warm key: POST /, five headers, a body
 * of 200 bytes, into the caller's memory, as the AWS client does it before every call.
 *
 * usage: case-sign [ROUNDS]
 *
 * libperf is the signer; libperf-object the public call with its result as an object; floor the
 * hash operations alone that a signature cannot do without (body, canonical request, and the two
 * halves of the HMAC, over bytes that are already laid out, one context, algorithm fetched once).
 * Rounds alternate between them. sign-token is the same with a session token of 1000 bytes.
 */
#include <openssl/evp.h>

#include "../../src/base/alloc.h"
#include "../../src/net/aws_sign.h"
#include "protocol.h"

enum { CALLS = 100000, ROUNDS_MAX = 64 };

static perf_http_header headers[5] = {
    {"Host", "dynamodb.us-east-1.amazonaws.com"},
    {"Content-Type", "application/x-amz-json-1.0"},
    {"X-Amz-Target", "DynamoDB_20120810.GetItem"},
    {"Content-Length", "200"},
    {"User-Agent", "libperf/1.0"},
};
static char body[200];
static perf_aws_keys *plain, *with_token;
static perf_aws_sign_request request = PERF_AWS_SIGN_REQUEST_INIT;
static size_t canonical_len, to_sign_len;
static EVP_MD *sha256;
static EVP_MD_CTX *context;

static void sign(perf_aws_keys *keys)
{
    struct perf__aws_signing s;
    if (perf__aws_sign(&s, &perf__default_allocator, keys, &request, 0))
        bench_die(perf_last_error());
    canonical_len = s.canonical.len;
    to_sign_len = s.to_sign.len;
    perf__aws_signing_end(&s);
}

static void sign_plain(void)
{
    sign(plain);
}

static void sign_token(void)
{
    sign(with_token);
}

static void sign_object(void)
{
    perf_aws_signature *signature;
    if (perf_aws_sign(plain, &request, &signature))
        bench_die(perf_last_error());
    perf_aws_signature_release(signature);
}

static void hash(size_t len)
{
    static unsigned char data[4096];
    unsigned char digest[32];
    EVP_DigestInit_ex2(context, sha256, NULL);
    EVP_DigestUpdate(context, data, len);
    EVP_DigestFinal_ex(context, digest, NULL);
    data[0] ^= digest[0];
}

static void floor_hashes(void)
{
    hash(sizeof body);
    hash(canonical_len);
    hash(64 + to_sign_len);
    hash(64 + 32);
}

static const struct {
    const char *subject, *name;
    void (*call)(void);
} subjects[] = {
    {"libperf", "sign", sign_plain},         {"floor", "sign", floor_hashes},
    {"libperf-object", "sign", sign_object}, {"libperf", "sign-token", sign_token},
    {"floor", "sign-token", floor_hashes},
};
enum { SUBJECTS = sizeof subjects / sizeof *subjects };

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static double ns[SUBJECTS][ROUNDS_MAX];
    int rounds = argc > 1 ? atoi(argv[1]) : 7;
    char token[1001];
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: case-sign [ROUNDS up to %d]\n", ROUNDS_MAX);
        return 2;
    }
    memset(token, 't', 1000);
    token[1000] = '\0';
    memset(body, 'b', sizeof body);
    request.method = "POST";
    request.headers = headers;
    request.header_count = 5;
    request.payload = (perf_bytes){body, sizeof body};
    request.region = "us-east-1";
    request.service = "dynamodb";
    request.time_ms = 1700000000000;
    if (perf_aws_keys_new("AKIDEXAMPLE", "secret", NULL, 0, NULL, &plain) ||
        perf_aws_keys_new("AKIDEXAMPLE", "secret", token, 0, NULL, &with_token))
        bench_die(perf_last_error());
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    context = EVP_MD_CTX_new();
    for (int r = -1; r < rounds; r++) /* the first one warms up */
        for (int s = 0; s < SUBJECTS; s++) {
            if (subjects[s].call == floor_hashes)
                sign(strcmp(subjects[s].name, "sign") ? with_token : plain);
            uint64_t start = bench_now_ns();
            for (int i = 0; i < CALLS; i++)
                subjects[s].call();
            if (r >= 0)
                ns[s][r] = (double)(bench_now_ns() - start) / CALLS;
        }
    for (int s = 0; s < SUBJECTS; s++) {
        qsort(ns[s], (size_t)rounds, sizeof **ns, compare);
        printf("{\"bench\": \"aws\", \"case\": \"%s\", \"subject\": \"%s\", \"unit\": \"ns\", "
               "\"median\": %.1f, \"min\": %.1f, \"max\": %.1f, \"runs\": %d}\n",
               subjects[s].name, subjects[s].subject, ns[s][rounds / 2], ns[s][0],
               ns[s][rounds - 1], rounds);
    }
    EVP_MD_CTX_free(context);
    EVP_MD_free(sha256);
    perf_aws_keys_release(plain);
    perf_aws_keys_release(with_token);
    return 0;
}
