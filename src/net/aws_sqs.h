/* SPDX-License-Identifier: MIT */
/* aws_sqs.h - what single messages and batches of SQS share. Any thread. */
#ifndef PERF_NET_AWS_SQS_H
#define PERF_NET_AWS_SQS_H

#include <libperf/aws_sqs.h>
#include <openssl/evp.h>

#include "aws_hash.h"
#include "aws_json.h"

enum { PERF__SQS_BYTES = 1 << 20 }; /* of a message, and of a batch's messages together */

/** PERF_OK, PERF_EINVAL, PERF_EFORKED: the client, the URL. what names the function. */
int perf__sqs_check(const perf_aws *aws, const char *what, const char *queue_url);

/** Takes a caller's message and checks it. */
int perf__sqs_check_message(const perf_sqs_message *given, perf_sqs_message *m);

/** An open brace and the queue. */
void perf__sqs_begin(struct perf__text *t, const perf_aws *aws, const char *queue_url);

/** A message's members, without braces. */
void perf__sqs_put_message(struct perf__text *t, const perf_sqs_message *m);

/** Is the member the MD5 of the bytes? True where libcrypto has none. */
bool perf__sqs_has_md5(struct perf__json object, const char *member, const void *data, size_t len);

#endif
