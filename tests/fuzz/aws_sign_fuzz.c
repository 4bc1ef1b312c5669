/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as method, path, query, headers and payload: signing ends, writes nothing past its
 * bound (which it would say as PERF_ETOOBIG), and comes to the same twice. The canonical path and
 * query hold nothing but what may be in them.
 */
#include <libperf/aws_auth.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next text up to a line end, in memory of its own size. */
static char *next(const uint8_t **data, size_t *size)
{
    const uint8_t *end = *size ? memchr(*data, '\n', *size) : NULL;
    size_t len = end ? (size_t)(end - *data) : *size;
    char *text = malloc(len + 1);
    if (!text)
        abort();
    if (len)
        memcpy(text, *data, len);
    text[len] = '\0';
    *data += len + (end ? 1 : 0);
    *size -= len + (end ? 1 : 0);
    return text;
}

static void check_line(const char **at, const char *allowed)
{
    size_t len = strspn(*at, allowed);
    if ((*at)[len] != '\n')
        abort();
    *at += len + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static perf_aws_keys *keys; /* one for all inputs */
    if (!keys && perf_aws_keys_new("AKID", "secret", "token/+=", 0, NULL, &keys))
        abort();
    if (size < 2)
        return 0;
    perf_aws_sign_request r = PERF_AWS_SIGN_REQUEST_INIT;
    perf_http_header headers[6] = {{"Host", "h"}};
    char *texts[12];
    size_t count = 0;
    r.flags = data[0] & 15;
    r.form = data[1] & 1;
    r.service = data[1] & 2 ? "s3" : "dynamodb";
    r.region = "us-east-1";
    r.time_ms = 1440938160000;
    data += 2, size -= 2;
    r.path = texts[count++] = next(&data, &size);
    r.query = texts[count++] = next(&data, &size);
    for (r.header_count = 1; r.header_count < 6 && size; r.header_count++) {
        headers[r.header_count].name = texts[count++] = next(&data, &size);
        headers[r.header_count].value = texts[count++] = next(&data, &size);
    }
    r.headers = headers;
    r.payload = (perf_bytes){data, size};
    perf_aws_signature *one = NULL, *two = NULL;
    int rc = perf_aws_sign(keys, &r, &one);
    if (rc && rc != PERF_EINVAL)
        abort();
    if (!rc) {
        const char *at = perf_aws_signature_canonical_request(one);
        check_line(&at, "GET");
        check_line(&at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%/");
        check_line(&at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%=&");
        if (perf_aws_sign(keys, &r, &two) ||
            strcmp(perf_aws_signature_hex(one), perf_aws_signature_hex(two)) != 0)
            abort();
    }
    perf_aws_signature_release(one);
    perf_aws_signature_release(two);
    while (count)
        free(texts[--count]);
    return 0;
}
