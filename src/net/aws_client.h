/* SPDX-License-Identifier: MIT */
/*
 * aws_client.h - what the parts of the AWS client share.
 *
 * A call is the same whether its caller waits (aws_call.c) or not (aws_async.c):
 * perf__aws_begin fills in what all attempts have in common, perf__aws_attempt
 * makes one signed HTTP request, perf__aws_judge says what became of it and
 * whether there is another one. In between somebody sends, or sleeps.
 */
#ifndef PERF_NET_AWS_CLIENT_H
#define PERF_NET_AWS_CLIENT_H

#include <libperf/aws.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/options.h"
#include "../metrics/counter.h"
#include "../metrics/histogram.h"
#include "aws_sign.h"

enum {
    PERF__AWS_NAME_MAX = 128,    /* service, operation, region */
    PERF__AWS_HEADERS_OURS = 16, /* beside the request's own */
    PERF__AWS_ERROR_BODY = 65536,
};

/* What is known of a service. */
struct perf__aws_service {
    const char *name;         /* in its host name */
    const char *signing_name; /* NULL: the same */
    int64_t protocol;
    const char *target;                     /* JSON */
    const char *version;                    /* QUERY */
    const char *json;                       /* content type */
    int64_t timeout_ms, attempt_timeout_ms; /* 0: the common ones */
    bool global;                            /* one host for all regions, signed for us-east-1 */
};

/* Never NULL: a service that is not known is REST. */
const struct perf__aws_service *perf__aws_service_find(const char *name);

enum {
    PERF__AWS_COUNT_CALLS,
    PERF__AWS_COUNT_SUCCEEDED,
    PERF__AWS_COUNT_FAILED,
    PERF__AWS_COUNT_ATTEMPTS,
    PERF__AWS_COUNT_THROTTLED,
    PERF__AWS_COUNT_REJECTED,
    PERF__AWS_COUNTS
};

struct perf_aws {
    struct perf__host host;
    uint64_t fork_generation;
    struct perf__aws_service service; /* with the options' wishes filled in */
    char name[PERF__AWS_NAME_MAX], signing_name[PERF__AWS_NAME_MAX], target[PERF__AWS_NAME_MAX],
        version[PERF__AWS_NAME_MAX];
    char region[PERF__AWS_NAME_MAX], signing_region[PERF__AWS_NAME_MAX];
    char endpoint[512];        /* scheme://host[:port] */
    const char *endpoint_host; /* within it */
    bool own_endpoint;         /* not AWS's: S3 then puts buckets into the path */
    bool https;
    int64_t timeout_ms, attempt_timeout_ms;
    perf_http *http;
    perf_aws_credentials *credentials;
    perf_retry *retry;
    perf_breaker *breaker;
    bool shares_http, shares_credentials, owns_credentials, owns_retry, owns_breaker;
    _Atomic int64_t skew_ms; /* AWS's clock minus ours */
    _Atomic int64_t in_flight;
    struct perf__counters counters;
    struct perf__histogram latency;

    pthread_mutex_t mutex;  /* guards the rest */
    pthread_cond_t changed; /* an operation is over, or the client closes */
    pthread_cond_t work;    /* the same for the client's thread: something is due */
    _Atomic bool closing;
    /* aws_async.c */
    pthread_t thread;
    bool thread_runs;
    uint64_t operations; /* not over */
    uint64_t handles;    /* not released */
    perf_aws_operation *all, *due,
        *done; /* under way; to be continued by the thread; not fetched */
    perf_aws_operation *done_tail;
    int done_fd;
};

/* A reply, or the error that came instead. */
struct perf_aws_reply {
    perf_allocator allocator;
    perf_http_reply *http;
    int64_t attempts;
};

/* What a service said about an error; bounded, and without control bytes. */
struct perf__aws_error {
    int64_t status;
    int64_t attempts; /* that the call took, also when no service answered */
    char code[96], message[256], request_id[96];
};

/* One call, wherever it lives. Not to be moved: headers point into it. */
struct perf__aws_call {
    perf_aws *aws;
    const perf_aws_request *request; /* a whole struct of this version */
    const char *url;                 /* as sent */
    char *url_heap;                  /* when it is longer than url_room */
    char url_room[512];
    const char *path, *query;
    char host[300];
    char target[2 * PERF__AWS_NAME_MAX + 2];
    char invocation[40];
    char *body_heap;
    bool gzipped;
    perf_bytes body;
    int64_t timeout_ms;
    perf_retry_call retry;
    bool retries;
    bool tried_other_keys, tried_other_clock;
    int64_t begun_ns, attempt_ns; /* the host's clock */
    int64_t deadline_ns;          /* the host's clock; INT64_MAX: none */
    int64_t attempt;
    perf_aws_keys *keys;
    uint64_t permit;
    bool has_permit;
    bool admitted;    /* the retry policy let the next attempt pass already */
    bool has_written; /* something to request->write */
    char *error_body; /* of a reply that goes to request->write */
    size_t error_len;
    struct perf__aws_error error;
    char why[256]; /* the HTTP client's sentence */

    /* One attempt. */
    perf_http_request http;
    perf_http_header headers[64 + PERF__AWS_HEADERS_OURS];
    char attempt_text[64];
    struct perf__aws_signing signing;
    bool signed_;
};

/* aws_call.c */

/* On PERF_OK perf__aws_end is due. */
int perf__aws_begin(struct perf__aws_call *c, perf_aws *aws, const perf_aws_request *request);
void perf__aws_end(struct perf__aws_call *c);
/* Makes c->http, signed with c->keys. */
int perf__aws_attempt(struct perf__aws_call *c);
/* Takes the breaker's permit; *wait_ms: the adaptive rate wants that first. */
int perf__aws_admit(struct perf__aws_call *c, int64_t *wait_ms);
/* After an attempt: status and reply of the HTTP client. Takes reply. PERF_OK in *again and a
 * delay: another attempt; else the call's own status is returned and *out set if that is PERF_OK.
 */
int perf__aws_judge(struct perf__aws_call *c, int status, perf_http_reply *reply, bool *again,
                    int64_t *delay_ms, perf_aws_reply **out);
/* The call ends without an attempt: gives the permit back and counts. */
int perf__aws_give_up(struct perf__aws_call *c, int status);
int64_t perf__aws_left_of_call(const struct perf__aws_call *c);
/* Sleeps; PERF_ECLOSED when the client is being closed meanwhile. */
int perf__aws_pause(perf_aws *aws, int64_t ms);
/* PERF_OK, or PERF_EINVAL (NULL, or another service or protocol; what is the function), or
 * PERF_EFORKED. service: NULL for any. */
int perf__aws_check_client(const perf_aws *aws, const char *what, const char *service,
                           int64_t protocol);
int perf__aws_check_request(const perf_aws *aws, const perf_aws_request *given,
                            perf_aws_request *own);

/* aws_error.c */

/* Reads code, message and request id out of a reply. body: when it is not in reply. */
void perf__aws_error_read(const struct perf__aws_service *service, const perf_http_reply *reply,
                          const char *body, size_t len, struct perf__aws_error *out);
/* What the public functions say about this thread's last call. */
void perf__aws_error_remember(const struct perf__aws_error *error);
/* How many attempts this thread's last failed call took. */
int64_t perf__aws_error_attempts(void);
/* The status for a code and an HTTP status that are an error. */
int perf__aws_error_status_of(const struct perf__aws_error *error);
bool perf__aws_error_is_clock(const char *code);
bool perf__aws_error_is_expired(const char *code);
/* A Date header in milliseconds since 1970, or -1. */
int64_t perf__aws_parse_date(const char *text);

/* aws_gzip.c */

/* data as one gzip member in *out, which the caller frees. PERF_ENOMEM. */
int perf__gzip(const perf_allocator *allocator, const void *data, size_t len, char **out,
               size_t *out_len);

/* aws_async.c */
void perf__aws_stop_async(perf_aws *aws);

/* aws_shared.c */
int perf__aws_http_share(perf_http **out);
void perf__aws_http_unshare(void);
int perf__aws_credentials_share(perf_aws_credentials **out);
void perf__aws_credentials_unshare(void);

#endif
