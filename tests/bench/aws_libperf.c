/* SPDX-License-Identifier: MIT */
/*
 * aws_libperf.c - GetItem through libperf's AWS client.
 *
 * usage: aws-libperf URL. Modes: "one" calls from one thread and looks for the value in the reply's
 * text; "json" also parses the text as a host would that wants the item, which is what the SDKs of
 * other languages do unasked; "async" keeps 64 calls in flight by callbacks that start the next;
 * "threads" has 64 threads that block.
 */
#include "aws_subject.h"

#include <cjson/cJSON.h>
#include <libperf/perf.h>

static perf_aws *aws;

static int is_right(const perf_aws_reply *reply)
{
    return bench_aws_holds_value(perf_aws_reply_body(reply), perf_aws_reply_size(reply));
}

static int is_right_parsed(const perf_aws_reply *reply)
{
    cJSON *json = cJSON_ParseWithLength(perf_aws_reply_body(reply), perf_aws_reply_size(reply));
    cJSON *item = cJSON_GetObjectItemCaseSensitive(json, "Item");
    cJSON *v = cJSON_GetObjectItemCaseSensitive(item, "v");
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "S"));
    int right = text && !strcmp(text, bench_aws_value());
    cJSON_Delete(json);
    return right;
}

static void calls(struct bench_aws_share *share, int (*check)(const perf_aws_reply *))
{
    while (bench_aws_take(share)) {
        perf_aws_reply *reply;
        if (perf_aws_call(aws, "GetItem", bench_aws_request, sizeof bench_aws_request - 1, 0,
                          &reply)) {
            fprintf(stderr, "%s\n", perf_last_error());
            atomic_fetch_add(share->wrong, 1);
            continue;
        }
        if (!check(reply))
            atomic_fetch_add(share->wrong, 1);
        perf_aws_reply_release(reply);
    }
}

static void plain(struct bench_aws_share *share)
{
    calls(share, is_right);
}

static void parsed(struct bench_aws_share *share)
{
    calls(share, is_right_parsed);
}

/* ------------------------------------------------------------------------ callbacks */

struct flight {
    struct bench_aws_share share;
    pthread_mutex_t mutex;
    pthread_cond_t landed;
    int flying;
};

static void land(struct flight *f)
{
    pthread_mutex_lock(&f->mutex);
    if (--f->flying == 0)
        pthread_cond_signal(&f->landed);
    pthread_mutex_unlock(&f->mutex);
}

static void done(void *ctx, int status, perf_aws_reply *reply);

static void take_off(struct flight *f)
{
    while (bench_aws_take(&f->share)) {
        perf_aws_request request = PERF_AWS_REQUEST_INIT;
        request.operation = "GetItem";
        request.body = (perf_bytes){bench_aws_request, sizeof bench_aws_request - 1};
        request.done = done;
        request.done_ctx = f;
        if (!perf_aws_start(aws, &request, NULL))
            return;
        fprintf(stderr, "%s\n", perf_last_error());
        atomic_fetch_add(f->share.wrong, 1);
    }
    land(f);
}

static void done(void *ctx, int status, perf_aws_reply *reply)
{
    struct flight *f = ctx;
    if (status || !is_right(reply))
        atomic_fetch_add(f->share.wrong, 1);
    perf_aws_reply_release(reply);
    take_off(f);
}

static void fly(unsigned count, _Atomic unsigned *wrong)
{
    struct flight f = {{NULL, count, wrong},
                       PTHREAD_MUTEX_INITIALIZER,
                       PTHREAD_COND_INITIALIZER,
                       BENCH_AWS_FLIGHT};
    for (int i = 0; i < BENCH_AWS_FLIGHT; i++)
        take_off(&f);
    pthread_mutex_lock(&f.mutex);
    while (f.flying)
        pthread_cond_wait(&f.landed, &f.mutex);
    pthread_mutex_unlock(&f.mutex);
}

static int subject_run(const char *mode, unsigned count, _Atomic unsigned *wrong)
{
    struct bench_aws_share share = {plain, count, wrong};
    if (!strcmp(mode, "one"))
        plain(&share);
    else if (!strcmp(mode, "json"))
        parsed(&share);
    else if (!strcmp(mode, "threads"))
        bench_aws_threads(&share, BENCH_AWS_FLIGHT);
    else if (!strcmp(mode, "async"))
        fly(count, wrong);
    else
        return 0;
    return 1;
}

int main(int argc, char **argv)
{
    perf_aws_options options = PERF_AWS_OPTIONS_INIT;
    options.service = "dynamodb";
    options.region = "us-east-1";
    options.endpoint_url = argc > 1 ? argv[1] : NULL;
    if (perf_aws_open(&options, &aws)) {
        fprintf(stderr, "%s\n", perf_last_error());
        return 1;
    }
    bench_aws_loop();
    perf_aws_close(aws);
    return 0;
}
