/* SPDX-License-Identifier: MIT */
/*
 * aws_signature.c - signing for hosts: the signer's texts as an object of their
 * own. Any thread.
 */
#include <openssl/crypto.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/options.h"
#include "../base/status.h"
#include "aws_keys.h"
#include "aws_sign.h"

struct perf_aws_signature {
    perf_allocator allocator;
    perf_aws_keys *keys; /* its token may be a header's value */
    struct perf__aws_signing s;
};

int perf_aws_sign(perf_aws_keys *keys, const perf_aws_sign_request *request,
                  perf_aws_signature **out)
{
    perf_aws_sign_request own;
    struct perf__host host;
    if (!keys || !request || !out)
        return perf__fail(PERF_EINVAL, "perf_aws_sign needs keys, a request and a place for the "
                                       "signature");
    int rc = perf__options_take("perf_aws_sign_request", request, &own, sizeof own);
    if (!rc)
        rc = perf__host_take(own.host, &host);
    if (rc)
        return rc;
    perf_aws_signature *signature = perf__alloc(&host.allocator, sizeof *signature);
    if (!signature)
        return perf__fail_nomem("a signature");
    signature->allocator = host.allocator;
    rc = perf__aws_sign(&signature->s, &signature->allocator, keys, &own,
                        own.time_ms ? own.time_ms : perf__realtime_ms(&host.clock));
    if (rc) {
        perf__free(&host.allocator, signature);
        return rc;
    }
    /* A payload's hash that the caller gave may be the value of a header that we add. */
    for (size_t i = 0; i < signature->s.header_count; i++)
        if (own.payload_hash && signature->s.headers[i].value == own.payload_hash) {
            const char *hash =
                signature->s.canonical.data + signature->s.canonical.len - strlen(own.payload_hash);
            signature->s.headers[i].value = hash; /* it ends the canonical request */
        }
    signature->keys = perf_aws_keys_share(keys);
    *out = signature;
    return PERF_OK;
}

int perf_aws_signature_header_at(const perf_aws_signature *signature, size_t i, const char **name,
                                 const char **value)
{
    if (!signature || !name || !value)
        return perf__fail(PERF_EINVAL, "perf_aws_signature_header_at needs a signature and places "
                                       "for name and value");
    if (i >= signature->s.header_count)
        return PERF_MISS;
    *name = signature->s.headers[i].name;
    *value = signature->s.headers[i].value;
    return PERF_OK;
}

const char *perf_aws_signature_target(const perf_aws_signature *signature)
{
    return signature->s.target.data;
}

const char *perf_aws_signature_hex(const perf_aws_signature *signature)
{
    return signature->s.signature;
}

const char *perf_aws_signature_canonical_request(const perf_aws_signature *signature)
{
    return signature->s.canonical.data;
}

const char *perf_aws_signature_string_to_sign(const perf_aws_signature *signature)
{
    return signature->s.to_sign.data;
}

void perf_aws_signature_release(perf_aws_signature *signature)
{
    if (!signature)
        return;
    perf__aws_signing_end(&signature->s);
    perf_aws_keys_release(signature->keys);
    perf__free(&signature->allocator, signature);
}
