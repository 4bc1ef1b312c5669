/* SPDX-License-Identifier: MIT */
/* aws_reply.c - reading a service's reply. Immutable, any thread. */
#include "../base/alloc.h"
#include "aws_client.h"

int64_t perf_aws_reply_status(const perf_aws_reply *reply)
{
    return reply ? perf_http_reply_status(reply->http) : 0;
}

const char *perf_aws_reply_header(const perf_aws_reply *reply, const char *name)
{
    return reply ? perf_http_reply_header(reply->http, name) : NULL;
}

const void *perf_aws_reply_body(const perf_aws_reply *reply)
{
    return reply ? perf_http_reply_body(reply->http) : "";
}

size_t perf_aws_reply_size(const perf_aws_reply *reply)
{
    return reply ? perf_http_reply_size(reply->http) : 0;
}

const char *perf_aws_reply_request_id(const perf_aws_reply *reply)
{
    const char *id = perf_aws_reply_header(reply, "x-amzn-requestid");
    if (!id)
        id = perf_aws_reply_header(reply, "x-amz-request-id");
    return id ? id : "";
}

int64_t perf_aws_reply_attempts(const perf_aws_reply *reply)
{
    return reply ? reply->attempts : 0;
}

void perf_aws_reply_release(perf_aws_reply *reply)
{
    if (!reply)
        return;
    perf_allocator allocator = reply->allocator;
    perf_http_reply_release(reply->http);
    perf__free(&allocator, reply);
}
