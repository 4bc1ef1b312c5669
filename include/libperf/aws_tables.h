/* SPDX-License-Identifier: MIT */
/*
 * aws_tables.h - the four DynamoDB tables that libperf keeps things in: made,
 * checked and brought up to date by one call, and the IAM policies for them.
 *
 *     perf_aws_tables_options o = PERF_AWS_TABLES_OPTIONS_INIT;
 *     perf_aws_tables_report *report;
 *     o.dry_run = 1;
 *     if (perf_aws_tables_ensure(&o, &report) == PERF_OK)
 *         puts(perf_aws_tables_text(report));        // what it would do
 *     perf_aws_tables_release(report);
 *
 * Who may create tables runs this once, and again after an update of libperf; a
 * service in production needs no such right (perf_aws_tables_policy). Nothing is
 * ever deleted, and a table that is right is left alone. Which table has which
 * keys and indexes, and what for, is in perf_aws_tables_ensure(3).
 *
 * Any thread. fork(): as the client.
 */
#ifndef LIBPERF_AWS_TABLES_H
#define LIBPERF_AWS_TABLES_H

#include <libperf/aws.h>

PERF_BEGIN_DECLS

/** The tables; flags. */
enum {
    PERF_AWS_TABLE_CACHE = 1,   /**< records of the cache's "dynamodb" tier */
    PERF_AWS_TABLE_METRICS = 2, /**< series of figures over time */
    PERF_AWS_TABLE_TASKS = 4,   /**< background tasks and their results */
    PERF_AWS_TABLE_QUEUE = 8    /**< what is to be done, by priority and time */
};

/** Says what is being done: table is its name, doing a sentence, of steps that are total in all
 *  the one that has number step, from 1; 0 while it waits. In the thread that called. */
typedef void (*perf_aws_tables_progress_fn)(void *ctx, const char *table, const char *doing,
                                            int64_t step, int64_t total);

/** Which tables, and how long. Zero in a field means the default. */
typedef struct perf_aws_tables_options {
    size_t struct_size;
    perf_aws *aws;             /**< a client of "dynamodb"; default perf_aws_shared */
    const char *cache_table;   /**< default CACHE_TABLE_NAME, else "lms-performance-cache" */
    const char *metrics_table; /**< default METRICS_TABLE_NAME, else "lms-performance-metrics" */
    const char *tasks_table;   /**< default ASYNC_TASKS_TABLE, else "lms-async-tasks" */
    const char *queue_table;   /**< default BACKGROUND_QUEUE_TABLE, else "lms-background-queue" */
    int64_t tables;            /**< PERF_AWS_TABLE_... flags; default all four */
    int64_t dry_run;           /**< 1: change nothing, only say what would be done */
    int64_t timeout_ms;        /**< for everything together; default 600000: an index on a table
                                    that is not empty takes minutes */
    perf_aws_tables_progress_fn progress; /**< NULL: silence */
    void *progress_ctx;
} perf_aws_tables_options;
#define PERF_AWS_TABLES_OPTIONS_INIT                                  \
    {                                                                 \
        sizeof(perf_aws_tables_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** What was done, or would be. Immutable; valid until released. */
typedef struct perf_aws_tables_report perf_aws_tables_report;

/**
 * Makes the tables as libperf needs them: creates those that are missing, paid per request and with
 * their indexes; adds a missing index (one at a time) and time to live to those that are there; and
 * waits until they can be used. All tables are looked at before the first is changed.
 * A run that was cut short is finished by the next. out may be NULL; the caller releases *out.
 *
 * PERF_EEXISTS: a table of that name has other keys, another index of such a name, or time to live
 * on another attribute; the sentence says what is, what should be, and what to do, and nothing was
 * changed. PERF_ETIMEDOUT; PERF_EACCESS; errors of perf_aws_call. Since 1.0.
 */
PERF_API int perf_aws_tables_ensure(const perf_aws_tables_options *options,
                                    perf_aws_tables_report **out);

/** How many changes were made, or would be; 0: the tables are right. Since 1.0. */
PERF_API size_t perf_aws_tables_changes(const perf_aws_tables_report *report);

/** The report for people: lines of text, each with a newline. Since 1.0. */
PERF_API const char *perf_aws_tables_text(const perf_aws_tables_report *report);

/** The report for programs, a JSON object: "dry_run", "changes", and "tables", each with "table",
 *  "role", "existed" and "steps", which are objects of "action" (an operation of DynamoDB's),
 *  "name" and "text". Since 1.0. */
PERF_API const char *perf_aws_tables_json(const perf_aws_tables_report *report);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_aws_tables_release(perf_aws_tables_report *report);

/* ------------------------------------------------------------------- policies */

/** Whom a policy is for. */
enum {
    PERF_AWS_POLICY_RUN = 0,   /**< a service that uses the tables */
    PERF_AWS_POLICY_DEPLOY = 1 /**< who calls perf_aws_tables_ensure */
};

/** What the ARNs of a policy are made of. Zero in a field means the default. */
typedef struct perf_aws_policy_options {
    size_t struct_size;
    int64_t kind;          /**< PERF_AWS_POLICY_... */
    const char *account;   /**< twelve digits; required */
    const char *region;    /**< default that of the client, AWS_REGION or AWS_DEFAULT_REGION */
    const char *partition; /**< default by the region: "aws", "aws-cn", "aws-us-gov", ... */
} perf_aws_policy_options;
#define PERF_AWS_POLICY_OPTIONS_INIT                \
    {                                               \
        sizeof(perf_aws_policy_options), 0, 0, 0, 0 \
    }

/**
 * Writes the least IAM policy with which libperf's own calls on the tables of tables (NULL: all,
 * with their default names) work, as JSON: every action and every ARN, indexes included, by name.
 * It asks nobody. text, of size bytes, receives it with a zero byte; *len, if not NULL, its length,
 * also with PERF_ETOOSMALL; 8192 bytes are enough for names of ordinary length.
 * Errors: PERF_EINVAL; PERF_ETOOSMALL; PERF_ENOMEM. Since 1.0.
 */
PERF_API int perf_aws_tables_policy(const perf_aws_tables_options *tables,
                                    const perf_aws_policy_options *options, char *text, size_t size,
                                    size_t *len);

PERF_END_DECLS

#endif
