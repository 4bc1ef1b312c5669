/* SPDX-License-Identifier: MIT */
/*
 * aws_tables_design.c - the four tables, the requests that make them, and the
 * policies for them. Constant data and pure functions; any thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/options.h"
#include "../base/status.h"
#include "aws_tables.h"

const struct perf__table_design perf__tables[PERF__TABLES] = {
    {PERF_AWS_TABLE_CACHE,
     "cache",
     "CACHE_TABLE_NAME",
     "lms-performance-cache",
     {"BatchGetItem", "BatchWriteItem", "DescribeTable", "GetItem", "PutItem", "Query",
      "UpdateItem"},
     {{"by_user", "user", "pk", 'S', "KEYS_ONLY"}, {"by_namespace", "ns", "pk", 'S', "KEYS_ONLY"}}},
    {PERF_AWS_TABLE_METRICS,
     "metrics",
     "METRICS_TABLE_NAME",
     "lms-performance-metrics",
     {"BatchWriteItem", "Query"},
     {{"by_metric", "metric", "sk", 'S', "ALL"}}},
    {PERF_AWS_TABLE_TASKS,
     "tasks",
     "ASYNC_TASKS_TABLE",
     "lms-async-tasks",
     {"BatchGetItem", "ConditionCheckItem", "DeleteItem", "GetItem", "PutItem", "UpdateItem"},
     {{"by_user", "user", "seq", 'S', "KEYS_ONLY"},
      {"by_state", "state", "place", 'S', "KEYS_ONLY"},
      {"by_lane", "lane", "rank", 'S', "KEYS_ONLY"}}},
    {PERF_AWS_TABLE_QUEUE,
     "queue",
     "BACKGROUND_QUEUE_TABLE",
     "lms-background-queue",
     {"DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem"},
     {{0}}},
};

/* -------------------------------------------------------------------- names */

static int check_name(const char *field, const char *name)
{
    size_t len = strnlen(name, PERF__TABLE_NAME_MAX + 1);
    int rc = perf__check_len(field, len, 3, PERF__TABLE_NAME_MAX);
    for (size_t i = 0; !rc && i < len; i++) {
        char c = name[i];
        if (!((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || strchr("_.-", c)))
            rc = perf__fail(PERF_EINVAL,
                            "%s has the byte 0x%02x; a table's name has letters, digits, '_', '-' "
                            "and '.'",
                            field, (unsigned char)c);
    }
    return rc;
}

int perf__tables_name(const perf_aws_tables_options *o, struct perf__table_names *out)
{
    const char *const given[PERF__TABLES] = {o->cache_table, o->metrics_table, o->tasks_table,
                                             o->queue_table};
    static const char *const fields[PERF__TABLES] = {"cache_table", "metrics_table", "tasks_table",
                                                     "queue_table"};
    const int64_t all =
        PERF_AWS_TABLE_CACHE | PERF_AWS_TABLE_METRICS | PERF_AWS_TABLE_TASKS | PERF_AWS_TABLE_QUEUE;
    int rc = perf__check_range("tables", o->tables, 0, all);
    out->flags = o->tables ? o->tables : all;
    for (size_t i = 0; !rc && i < PERF__TABLES; i++) {
        const char *set = getenv(perf__tables[i].variable);
        const char *name = given[i] ? given[i] : set && *set ? set : perf__tables[i].fallback;
        rc = check_name(given[i] || !set || !*set ? fields[i] : perf__tables[i].variable, name);
        if (!rc)
            memcpy(out->name[i], name, strlen(name) + 1);
    }
    for (size_t i = 0; !rc && i < PERF__TABLES; i++)
        for (size_t j = i + 1; j < PERF__TABLES; j++)
            if (out->flags & perf__tables[i].flag && out->flags & perf__tables[j].flag &&
                !strcmp(out->name[i], out->name[j]))
                return perf__fail(PERF_EINVAL,
                                  "%s and %s are both \"%s\"; give each a table of its own",
                                  fields[i], fields[j], out->name[i]);
    return rc;
}

/* ----------------------------------------------------------------- requests */

/* One more definition, unless known (a JSON array, or "") has it already. */
static void put_attribute(struct perf__text *t, const char *known, const char *name, char type)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    if (!strstr(known, quoted))
        perf__text_putf(t, ",{\"AttributeName\":\"%s\",\"AttributeType\":\"%c\"}", name, type);
}

static void put_keys(struct perf__text *t, const char *hash, const char *range)
{
    perf__text_putf(t,
                    "\"KeySchema\":[{\"AttributeName\":\"%s\",\"KeyType\":\"HASH\"},"
                    "{\"AttributeName\":\"%s\",\"KeyType\":\"RANGE\"}]",
                    hash, range);
}

/* What the table has already, pk, sk, and what the indexes need besides. */
static void put_attributes(struct perf__text *t, const char *known,
                           const struct perf__table_index *indexes, size_t count)
{
    static const char keys[] = "[{\"AttributeName\":\"pk\",\"AttributeType\":\"S\"},"
                               "{\"AttributeName\":\"sk\",\"AttributeType\":\"S\"}]";
    if (strlen(known) < sizeof keys - 1)
        known = keys;
    perf__text_puts(t, ",\"AttributeDefinitions\":");
    perf__text_put(t, known, strlen(known) - 1);
    for (size_t i = 0; i < count && indexes[i].name; i++) {
        put_attribute(t, known, indexes[i].hash, 'S');
        put_attribute(t, known, indexes[i].range, indexes[i].range_type);
    }
    perf__text_puts(t, "]");
}

static void put_index(struct perf__text *t, const struct perf__table_index *index)
{
    perf__text_putf(t, "\"IndexName\":\"%s\",", index->name);
    put_keys(t, index->hash, index->range);
    perf__text_putf(t, ",\"Projection\":{\"ProjectionType\":\"%s\"}", index->projection);
}

void perf__table_put_create(struct perf__text *t, const struct perf__table_design *design,
                            const char *name)
{
    perf__text_putf(t, "{\"TableName\":\"%s\",\"BillingMode\":\"PAY_PER_REQUEST\",", name);
    put_keys(t, "pk", "sk");
    put_attributes(t, "", design->indexes, PERF__TABLE_INDEXES);
    for (size_t i = 0; i < PERF__TABLE_INDEXES && design->indexes[i].name; i++) {
        perf__text_puts(t, i ? ",{" : ",\"GlobalSecondaryIndexes\":[{");
        put_index(t, &design->indexes[i]);
        perf__text_puts(t, "}");
    }
    perf__text_puts(t, design->indexes[0].name ? "]}" : "}");
}

void perf__table_put_index(struct perf__text *t, const struct perf__table_design *design,
                           const char *name, size_t index, const struct perf__table_look *look)
{
    perf__text_putf(t, "{\"TableName\":\"%s\"", name);
    put_attributes(t, look->attributes, &design->indexes[index], 1);
    perf__text_puts(t, ",\"GlobalSecondaryIndexUpdates\":[{\"Create\":{");
    put_index(t, &design->indexes[index]);
    if (look->provisioned)
        perf__text_putf(t,
                        ",\"ProvisionedThroughput\":{\"ReadCapacityUnits\":%llu,"
                        "\"WriteCapacityUnits\":%llu}",
                        (unsigned long long)look->units[0], (unsigned long long)look->units[1]);
    perf__text_puts(t, "}}]}");
}

/* ----------------------------------------------------------------- policies */

/* What perf_aws_tables_ensure calls. */
static const char *const deploy_actions[] = {
    "CreateTable", "DescribeTable", "DescribeTimeToLive", "UpdateTable", "UpdateTimeToLive", NULL};

static void put_actions(struct perf__text *t, const char *sid, const char *role,
                        const char *const *actions)
{
    perf__text_putf(t, "    {\n      \"Sid\": \"%s%c%s\",\n      \"Effect\": \"Allow\",\n", sid,
                    role[0] - 32, role + 1);
    perf__text_puts(t, "      \"Action\": [");
    for (size_t i = 0; actions[i]; i++)
        perf__text_putf(t, "%s\n        \"dynamodb:%s\"", i ? "," : "", actions[i]);
    perf__text_puts(t, "\n      ],\n      \"Resource\": [");
}

static void put_policy(struct perf__text *t, const perf_aws_policy_options *o,
                       const struct perf__table_names *names)
{
    static const char *const query[] = {"Query", NULL};
    char arn[512];
    bool first = true;
    perf__text_puts(t, "{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [");
    for (size_t i = 0; i < PERF__TABLES; i++) {
        const struct perf__table_design *design = &perf__tables[i];
        if (!(names->flags & design->flag))
            continue;
        snprintf(arn, sizeof arn, "arn:%s:dynamodb:%s:%s:table/%s", o->partition, o->region,
                 o->account, names->name[i]);
        perf__text_puts(t, first ? "\n" : ",\n");
        first = false;
        bool deploys = o->kind == PERF_AWS_POLICY_DEPLOY;
        put_actions(t, deploys ? "Deploy" : "Use", design->role,
                    deploys ? deploy_actions : design->actions);
        perf__text_putf(t, "\n        \"%s\"\n      ]\n    }", arn);
        if (deploys || !design->indexes[0].name)
            continue;
        perf__text_puts(t, ",\n");
        put_actions(t, "List", design->role, query);
        for (size_t j = 0; j < PERF__TABLE_INDEXES && design->indexes[j].name; j++)
            perf__text_putf(t, "%s\n        \"%s/index/%s\"", j ? "," : "", arn,
                            design->indexes[j].name);
        perf__text_puts(t, "\n      ]\n    }");
    }
    perf__text_puts(t, "\n  ]\n}\n");
}

static int check_part(const char *field, const char *text, const char *form, size_t min, size_t max)
{
    size_t len = text ? strnlen(text, max + 1) : 0;
    if (len >= min && len <= max && strspn(text, form) == len)
        return PERF_OK;
    return perf__fail(PERF_EINVAL,
                      "perf_aws_policy_options.%s is \"%.40s\"; it is part of ARNs: "
                      "give %zu to %zu of \"%s\"",
                      field, text ? text : "", min, max, form);
}

static const char *partition_of(const char *region)
{
    static const struct {
        const char *prefix, *partition;
    } known[] = {{"cn-", "aws-cn"},
                 {"us-gov-", "aws-us-gov"},
                 {"us-iso-", "aws-iso"},
                 {"us-isob-", "aws-iso-b"},
                 {"eusc-", "aws-eusc"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(region, known[i].prefix, strlen(known[i].prefix)))
            return known[i].partition;
    return "aws";
}

static int complete_policy(const perf_aws_tables_options *tables, perf_aws_policy_options *o)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    if (!o->region && tables->aws)
        o->region = perf_aws_region(tables->aws);
    if (!o->region)
        o->region = getenv("AWS_REGION");
    if (!o->region || !*o->region)
        o->region = getenv("AWS_DEFAULT_REGION");
    int rc = check_part("region", o->region, word, 1, 40);
    if (!rc && !o->partition)
        o->partition = partition_of(o->region);
    if (!rc)
        rc = check_part("partition", o->partition, word, 1, 20);
    if (!rc)
        rc = check_part("account", o->account, "0123456789", 12, 12);
    if (!rc)
        rc = perf__check_range("kind", o->kind, PERF_AWS_POLICY_RUN, PERF_AWS_POLICY_DEPLOY);
    return rc;
}

int perf_aws_tables_policy(const perf_aws_tables_options *tables,
                           const perf_aws_policy_options *options, char *text, size_t size,
                           size_t *len)
{
    perf_aws_tables_options own;
    perf_aws_policy_options o;
    struct perf__table_names names;
    struct perf__text t = {.allocator = &perf__default_allocator};
    int rc = perf__options_take("perf_aws_tables_options", tables, &own, sizeof own);
    if (!rc)
        rc = perf__options_take("perf_aws_policy_options", options, &o, sizeof o);
    if (!rc && !text && size)
        rc = perf__fail(PERF_EINVAL, "text is NULL and has a size");
    if (!rc)
        rc = perf__tables_name(&own, &names);
    if (!rc)
        rc = complete_policy(&own, &o);
    if (rc)
        return rc;
    put_policy(&t, &o, &names);
    if (t.failed) {
        rc = perf__fail_nomem("a policy");
    } else {
        if (len)
            *len = t.len;
        if (t.len < size)
            memcpy(text, t.data, t.len + 1);
        else
            rc = perf__fail(PERF_ETOOSMALL, "the policy has %zu bytes and a zero, and size is %zu",
                            t.len, size);
    }
    perf__text_free(&t);
    return rc;
}
