/* SPDX-License-Identifier: MIT */
/*
 * aws_bedrock.h - what Bedrock's files share: a request, and the ear, which
 * turns a reply's bytes into events.
 */
#ifndef PERF_NET_AWS_BEDROCK_H
#define PERF_NET_AWS_BEDROCK_H

#include <libperf/aws_bedrock.h>
#include <libperf/aws_eventstream.h>

#include "aws_client.h"

enum { PERF__BEDROCK_MODEL_MAX = 2048, PERF__BEDROCK_HEADERS = 8 };

struct perf__bedrock_call {
    perf_bedrock_options options;
    perf_aws_request request;
    perf_http_header headers[PERF__BEDROCK_HEADERS];
    char path[3 * PERF__BEDROCK_MODEL_MAX + 64];
};

/** kind: PERF_BEDROCK_...; streamed: its streaming sister. */
int perf__bedrock_begin(struct perf__bedrock_call *c, perf_aws *bedrock, int64_t kind,
                        bool streamed, const char *model_id, const void *body, size_t len,
                        const perf_bedrock_options *options);

/** Hears one stream; one thread's at a time. */
struct perf__bedrock_ear {
    perf_aws *aws;
    perf_eventstream *events;
    perf_bedrock_event_fn on_event;
    void *ctx;
    int64_t kind;
    struct perf__aws_error error; /* an exception within the stream */
    int rc;                       /* why it stopped hearing */
    char why[512];
};

int perf__bedrock_ear_open(struct perf__bedrock_ear *ear, perf_aws *aws, int64_t kind,
                           perf_bedrock_event_fn on_event, void *ctx);
void perf__bedrock_ear_close(struct perf__bedrock_ear *ear);
/** A perf_http_write_fn. */
int perf__bedrock_ear_hear(void *ear, const perf_http_reply *reply, const void *data, size_t len);
/** The call is over with rc: what became of the stream. */
int perf__bedrock_ear_end(struct perf__bedrock_ear *ear, int rc);

#endif
