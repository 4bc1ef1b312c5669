/* SPDX-License-Identifier: MIT */
/*
 * perf.h - all of libperf in one include.
 *
 * Start with cache.h: it reads as a tutorial. macros.h holds the sugar
 * (PERF_CACHED), backend/store.h the contract for storage of your own.
 */
#ifndef LIBPERF_PERF_H
#define LIBPERF_PERF_H

#include <libperf/alert.h>
#include <libperf/aws.h>
#include <libperf/aws_auth.h>
#include <libperf/aws_bedrock.h>
#include <libperf/aws_cloudwatch.h>
#include <libperf/aws_dynamodb.h>
#include <libperf/aws_eventstream.h>
#include <libperf/aws_s3.h>
#include <libperf/aws_sqs.h>
#include <libperf/aws_tables.h>
#include <libperf/backend/queue.h>
#include <libperf/backend/store.h>
#include <libperf/cache.h>
#include <libperf/executor.h>
#include <libperf/http.h>
#include <libperf/macros.h>
#include <libperf/metrics.h>
#include <libperf/monitor.h>
#include <libperf/pool.h>
#include <libperf/redis.h>
#include <libperf/resilience.h>
#include <libperf/system.h>
#include <libperf/task.h>
#include <libperf/types.h>
#include <libperf/version.h>

#endif
