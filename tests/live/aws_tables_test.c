/* SPDX-License-Identifier: MIT */
/*
 * aws_tables_test.c - the four tables against DynamoDB Local and moto: made, made again, looked at,
 * brought up to date, refused; and the policies, which moto enforces.
 */
#include <cjson/cJSON.h>
#include <ctype.h>
#include <libperf/aws_dynamodb.h>
#include <libperf/aws_tables.h>
#include <time.h>

#include "leaks.h"
#include "seams.h"
#include "server.h"
#include "store_conformance.h"
#include "test.h"

static const perf_host own = PERF_HOST_INIT;

static perf_aws *open_as(const char *service, const char *url, const char *id, const char *secret,
                         const perf_host *host)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *aws = NULL;
    test_unset_all("AWS_");
    setenv("AWS_ACCESS_KEY_ID", *id ? id : "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", *secret ? secret : "wJalrSECRETKEY", 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    o.service = service;
    o.region = "us-east-1";
    o.endpoint_url = url;
    o.timeout_ms = o.attempt_timeout_ms = TEST_PATIENCE_MS;
    o.host = host ? host : &own;
    cr_assert_eq(perf_aws_open(&o, &aws), PERF_OK, "%s", perf_last_error());
    return aws;
}

static perf_aws *open_at(struct test_server *s)
{
    return open_as("dynamodb", s->url, s->access_key, s->secret_key, NULL);
}

static int call(perf_aws *aws, const char *operation, const char *json, char *to, size_t size)
{
    perf_aws_reply *reply = NULL;
    int rc = perf_aws_call(aws, operation, json, strlen(json), 20000, &reply);
    if (to && !rc)
        snprintf(to, size, "%s", (const char *)perf_aws_reply_body(reply));
    perf_aws_reply_release(reply);
    return rc;
}

static void must(perf_aws *aws, const char *operation, const char *json)
{
    int rc = call(aws, operation, json, NULL, 0);
    cr_assert_eq(rc, PERF_OK, "%s: %s", operation, perf_last_error());
}

static const char *const defaults[] = {"lms-performance-cache", "lms-performance-metrics",
                                       "lms-async-tasks", "lms-background-queue"};

/* All that the service says about tables, to be compared. */
static char *snapshot(perf_aws *aws)
{
    size_t size = 1 << 18;
    char *all = calloc(1, size), request[300];
    cr_assert_eq(call(aws, "ListTables", "{}", all, size), PERF_OK, "%s", perf_last_error());
    for (size_t i = 0; i < 4; i++) {
        size_t used = strlen(all);
        snprintf(request, sizeof request, "{\"TableName\":\"%s\"}", defaults[i]);
        if (!call(aws, "DescribeTable", request, all + used, size - used)) {
            used = strlen(all);
            must(aws, "DescribeTimeToLive", request);
            call(aws, "DescribeTimeToLive", request, all + used, size - used);
        }
    }
    return all;
}

struct heard {
    int steps, waits;
    int64_t last, total;
};

static void hear(void *ctx, const char *table, const char *doing, int64_t step, int64_t total)
{
    struct heard *h = ctx;
    cr_assert(*table && *doing);
    h->steps += step > 0;
    h->waits += step == 0;
    if (step) {
        cr_assert_eq(step, h->last + 1);
        h->last = step;
    }
    h->total = total;
}

/* Runs it; the report is checked against the number of changes expected. */
static perf_aws_tables_report *ensure(perf_aws *aws, int64_t dry_run, size_t changes)
{
    perf_aws_tables_options o = PERF_AWS_TABLES_OPTIONS_INIT;
    perf_aws_tables_report *report = NULL;
    struct heard heard = {0};
    o.aws = aws;
    o.dry_run = dry_run;
    o.timeout_ms = 60000;
    o.progress = hear;
    o.progress_ctx = &heard;
    int rc = perf_aws_tables_ensure(&o, &report);
    cr_assert_eq(rc, PERF_OK, "%s %s", perf_strstatus(rc), perf_last_error());
    cr_assert_eq(perf_aws_tables_changes(report), changes, "%s", perf_aws_tables_text(report));
    cr_assert_eq(heard.steps, dry_run ? 0 : (int)changes);
    cr_assert_eq(heard.total, dry_run || !heard.steps ? heard.total : (int64_t)changes);
    cJSON *json = cJSON_Parse(perf_aws_tables_json(report));
    cr_assert_not_null(json, "%s", perf_aws_tables_json(report));
    cr_assert_eq(cJSON_GetObjectItem(json, "changes")->valueint, (int)changes);
    cr_assert_eq(cJSON_IsTrue(cJSON_GetObjectItem(json, "dry_run")), dry_run == 1);
    cr_assert_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "tables")), 4);
    cJSON_Delete(json);
    return report;
}

static int ensure_fails(perf_aws *aws, const char *sentence)
{
    perf_aws_tables_options o = PERF_AWS_TABLES_OPTIONS_INIT;
    perf_aws_tables_report *report = NULL;
    o.aws = aws;
    o.timeout_ms = 20000;
    char *before = snapshot(aws);
    int rc = perf_aws_tables_ensure(&o, &report);
    cr_assert_null(report);
    cr_assert(strstr(perf_last_error(), sentence), "%s", perf_last_error());
    char *after = snapshot(aws);
    cr_assert_str_eq(before, after, "nothing changed");
    free(before);
    free(after);
    return rc;
}

static void drop(perf_aws *aws, const char *table)
{
    char request[300];
    snprintf(request, sizeof request, "{\"TableName\":\"%s\"}", table);
    must(aws, "DeleteTable", request);
}

/* An item with every attribute that an index wants is found by every index. */
static void indexes_answer(perf_aws *aws)
{
    static const struct {
        const char *table, *item, *query;
    } cases[] = {
        {"lms-performance-cache", "\"user\":{\"S\":\"ann\"}",
         "\"IndexName\":\"by_user\",\"ExpressionAttributeNames\":{\"#k\":\"user\"},"
         "\"ExpressionAttributeValues\":{\":v\":{\"S\":\"ann\"}}"},
        {"lms-performance-cache", "\"ns\":{\"S\":\"n\"}",
         "\"IndexName\":\"by_namespace\",\"ExpressionAttributeNames\":{\"#k\":\"ns\"},"
         "\"ExpressionAttributeValues\":{\":v\":{\"S\":\"n\"}}"},
        {"lms-performance-metrics", "\"metric\":{\"S\":\"m\"},\"v\":{\"N\":\"7\"}",
         "\"IndexName\":\"by_metric\",\"ExpressionAttributeNames\":{\"#k\":\"metric\"},"
         "\"ExpressionAttributeValues\":{\":v\":{\"S\":\"m\"}}"},
        {"lms-async-tasks", "\"user\":{\"S\":\"ann\"},\"seq\":{\"S\":\"5\"}",
         "\"IndexName\":\"by_user\",\"ExpressionAttributeNames\":{\"#k\":\"user\"},"
         "\"ScanIndexForward\":false,\"ExpressionAttributeValues\":{\":v\":{\"S\":\"ann\"}}"},
        {"lms-async-tasks", "\"state\":{\"S\":\"run\"},\"place\":{\"S\":\"5\"}",
         "\"IndexName\":\"by_state\",\"ExpressionAttributeNames\":{\"#k\":\"state\"},"
         "\"ExpressionAttributeValues\":{\":v\":{\"S\":\"run\"}}"},
        {"lms-async-tasks", "\"lane\":{\"S\":\"mail|ready\"},\"rank\":{\"S\":\"5|17\"}",
         "\"IndexName\":\"by_lane\",\"ExpressionAttributeNames\":{\"#k\":\"lane\"},"
         "\"ExpressionAttributeValues\":{\":v\":{\"S\":\"mail|ready\"}}"},
    };
    char request[1024], reply[4096];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(
            request, sizeof request,
            "{\"TableName\":\"%s\",\"Item\":{\"pk\":{\"S\":\"p%zu\"},\"sk\":{\"S\":\"0\"},%s}}",
            cases[i].table, i, cases[i].item);
        must(aws, "PutItem", request);
        snprintf(request, sizeof request,
                 "{\"TableName\":\"%s\",\"KeyConditionExpression\":\"#k = :v\",%s}", cases[i].table,
                 cases[i].query);
        cr_assert_eq(call(aws, "Query", request, reply, sizeof reply), PERF_OK, "%s",
                     perf_last_error());
        snprintf(request, sizeof request, "\"p%zu\"", i);
        cr_assert(strstr(reply, request), "%s: %s", cases[i].table, reply);
    }
}

static void make_and_remake(perf_aws *aws)
{
    char *before = snapshot(aws);
    perf_aws_tables_report *report = ensure(aws, 1, 8);
    cr_assert(strstr(perf_aws_tables_text(report),
                     "lms-performance-cache (cache): would create it, paid per request, with the "
                     "keys pk and sk and the index by_user (user, pk) and by_namespace (ns, pk)\n"),
              "%s", perf_aws_tables_text(report));
    perf_aws_tables_release(report);
    char *after = snapshot(aws);
    cr_assert_str_eq(before, after, "a dry run changes nothing");
    free(after);
    free(before);

    perf_aws_tables_release(ensure(aws, 0, 8));
    before = snapshot(aws);
    cr_assert(strstr(before, "PAY_PER_REQUEST") && strstr(before, "ENABL"), "%s", before);
    report = ensure(aws, 0, 0);
    cr_assert(strstr(perf_aws_tables_text(report), "lms-async-tasks (tasks): nothing to do\n"));
    perf_aws_tables_release(report);
    perf_aws_tables_release(ensure(aws, 1, 0));
    after = snapshot(aws);
    cr_assert_str_eq(before, after, "a second run changes nothing");
    free(after);
    free(before);
    indexes_answer(aws);
}

#define KEYS                                                          \
    "\"KeySchema\":[{\"AttributeName\":\"pk\",\"KeyType\":\"HASH\"}," \
    "{\"AttributeName\":\"sk\",\"KeyType\":\"RANGE\"}]"
#define PAIR                                                                        \
    "{\"AttributeName\":\"pk\",\"AttributeType\":\"S\"},{\"AttributeName\":\"sk\"," \
    "\"AttributeType\":\"S\"}"

/* Tables of an older libperf, or made by hand: what is missing is added, what is there stays. */
static void migrate(perf_aws *aws)
{
    for (size_t i = 0; i < 4; i++)
        drop(aws, defaults[i]);
    /* paid by units, no index, no time to live */
    must(aws, "CreateTable",
         "{\"TableName\":\"lms-performance-cache\"," KEYS ",\"AttributeDefinitions\":[" PAIR "],"
         "\"ProvisionedThroughput\":{\"ReadCapacityUnits\":3,\"WriteCapacityUnits\":4}}");
    /* one of two indexes, and a foreign one */
    must(aws, "CreateTable",
         "{\"TableName\":\"lms-async-tasks\",\"BillingMode\":\"PAY_PER_REQUEST\"," KEYS
         ",\"AttributeDefinitions\":[" PAIR ",{\"AttributeName\":\"user\",\"AttributeType\":\"S\"},"
         "{\"AttributeName\":\"seq\",\"AttributeType\":\"S\"},"
         "{\"AttributeName\":\"own\",\"AttributeType\":\"B\"}],"
         "\"GlobalSecondaryIndexes\":["
         "{\"IndexName\":\"by_user\",\"KeySchema\":[{\"AttributeName\":\"user\",\"KeyType\":"
         "\"HASH\"},{\"AttributeName\":\"seq\",\"KeyType\":\"RANGE\"}],"
         "\"Projection\":{\"ProjectionType\":\"ALL\"}},"
         "{\"IndexName\":\"mine\",\"KeySchema\":[{\"AttributeName\":\"own\",\"KeyType\":\"HASH\"}],"
         "\"Projection\":{\"ProjectionType\":\"KEYS_ONLY\"}}]}");
    must(aws, "PutItem",
         "{\"TableName\":\"lms-performance-cache\",\"Item\":{\"pk\":{\"S\":\"old\"},\"sk\":"
         "{\"S\":\"0\"},\"user\":{\"S\":\"eve\"}}}");
    /* cache: 2 indexes, ttl; tasks: 2 indexes, ttl; the others: made, ttl */
    perf_aws_tables_release(ensure(aws, 1, 10));
    perf_aws_tables_release(ensure(aws, 0, 10));
    perf_aws_tables_release(ensure(aws, 0, 0));
    char reply[8192];
    cr_assert_eq(call(aws, "Query",
                      "{\"TableName\":\"lms-performance-cache\",\"IndexName\":\"by_user\","
                      "\"KeyConditionExpression\":\"#u = :u\",\"ExpressionAttributeNames\":{\"#u\":"
                      "\"user\"},\"ExpressionAttributeValues\":{\":u\":{\"S\":\"eve\"}}}",
                      reply, sizeof reply),
                 PERF_OK, "%s", perf_last_error());
    cr_assert(strstr(reply, "\"old\""), "what was there is in the new index: %s", reply);
    call(aws, "DescribeTable", "{\"TableName\":\"lms-async-tasks\"}", reply, sizeof reply);
    cr_assert(strstr(reply, "\"mine\"") && strstr(reply, "by_state"), "%s", reply);
    indexes_answer(aws);
}

static void refuse(perf_aws *aws)
{
    for (size_t i = 0; i < 4; i++)
        drop(aws, defaults[i]);
    must(aws, "CreateTable",
         "{\"TableName\":\"lms-background-queue\",\"BillingMode\":\"PAY_PER_REQUEST\","
         "\"KeySchema\":[{\"AttributeName\":\"id\",\"KeyType\":\"HASH\"}],"
         "\"AttributeDefinitions\":[{\"AttributeName\":\"id\",\"AttributeType\":\"N\"}]}");
    cr_assert_eq(ensure_fails(aws, "table lms-background-queue has the keys id (N), and libperf "
                                   "needs pk (S), sk (S); it was left alone: give another table "
                                   "for the queue (BACKGROUND_QUEUE_TABLE)"),
                 PERF_EEXISTS);
    drop(aws, "lms-background-queue");
    must(aws, "CreateTable",
         "{\"TableName\":\"lms-async-tasks\",\"BillingMode\":\"PAY_PER_REQUEST\"," KEYS
         ",\"AttributeDefinitions\":[" PAIR
         ",{\"AttributeName\":\"lane\",\"AttributeType\":\"S\"}],"
         "\"GlobalSecondaryIndexes\":[{\"IndexName\":\"by_lane\",\"KeySchema\":["
         "{\"AttributeName\":\"lane\",\"KeyType\":\"HASH\"}],"
         "\"Projection\":{\"ProjectionType\":\"KEYS_ONLY\"}}]}");
    cr_assert_eq(ensure_fails(aws, "index by_lane of table lms-async-tasks has the keys lane "
                                   "(S), and libperf needs lane (S), rank (S); delete that index"),
                 PERF_EEXISTS);
    drop(aws, "lms-async-tasks");
    must(aws, "CreateTable",
         "{\"TableName\":\"lms-background-queue\",\"BillingMode\":\"PAY_PER_REQUEST\"," KEYS
         ",\"AttributeDefinitions\":[" PAIR "]}");
    must(aws, "UpdateTimeToLive",
         "{\"TableName\":\"lms-background-queue\",\"TimeToLiveSpecification\":{\"Enabled\":true,"
         "\"AttributeName\":\"ends\"}}");
    cr_assert_eq(ensure_fails(aws, "has its time to live in \"ends\", and libperf keeps it in "
                                   "\"expires\"; turn that off"),
                 PERF_EEXISTS);
    drop(aws, "lms-background-queue");
}

/* Other names, some of the tables, no memory. */
static void options(struct test_server *s)
{
    struct test_host th;
    perf_aws *aws = open_as("dynamodb", s->url, s->access_key, s->secret_key, test_host_init(&th));
    perf_aws_tables_options o = PERF_AWS_TABLES_OPTIONS_INIT;
    perf_aws_tables_report *report = NULL;
    atomic_store(&th.realtime_ms, (int64_t)time(NULL) * 1000);
    o.aws = aws;
    o.tables = PERF_AWS_TABLE_CACHE | PERF_AWS_TABLE_QUEUE;
    setenv("CACHE_TABLE_NAME", "from-environment", 1);
    o.queue_table = "from.options_1";
    o.dry_run = 1;
    int rc, failures = 0;
    for (int64_t at = 1;; at++) {
        int64_t live = th.live;
        atomic_store(&th.fail_at, at);
        rc = perf_aws_tables_ensure(&o, &report);
        bool all_were_had = atomic_exchange(&th.fail_at, 0) > 0;
        if (all_were_had)
            break;
        cr_assert(!rc || rc == PERF_ENOMEM, "%s", perf_last_error());
        if (!rc)
            perf_aws_tables_release(report);
        report = NULL;
        failures += rc != 0;
        cr_assert_leq(th.live, live + 40, "connections may stay, nothing else");
        cr_assert_lt(at, 500);
    }
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_gt(failures, 2);
    cr_assert_eq(perf_aws_tables_changes(report), 4);
    cr_assert(strstr(perf_aws_tables_json(report), "\"table\":\"from-environment\",\"role\":"
                                                   "\"cache\",\"existed\":false"));
    perf_aws_tables_release(report);
    o.dry_run = 0;
    cr_assert_eq(perf_aws_tables_ensure(&o, NULL), PERF_OK, "%s", perf_last_error());
    o.dry_run = 1;
    cr_assert_eq(perf_aws_tables_ensure(&o, &report), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_aws_tables_changes(report), 0);
    perf_aws_tables_release(report);

    o.queue_table = "from-environment";
    cr_assert_eq(perf_aws_tables_ensure(&o, NULL), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "cache_table and queue_table are both"), "%s",
              perf_last_error());
    o.queue_table = "no good";
    cr_assert_eq(perf_aws_tables_ensure(&o, NULL), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "queue_table"), "%s", perf_last_error());
    unsetenv("CACHE_TABLE_NAME");
    setenv("METRICS_TABLE_NAME", "x", 1);
    o.queue_table = NULL;
    cr_assert_eq(perf_aws_tables_ensure(&o, NULL), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "METRICS_TABLE_NAME"), "%s", perf_last_error());
    unsetenv("METRICS_TABLE_NAME");
    o.tables = 16;
    cr_assert_eq(perf_aws_tables_ensure(&o, NULL), PERF_EINVAL);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    cr_assert_eq(th.live, 0);
    perf_aws_tables_release(NULL);
}

Test(aws_tables, dynamodb_local, .timeout = 240)
{
    struct test_server *server = test_server_dynamodb();
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    perf_aws *aws = open_at(server);
    perf_aws_tables_release(ensure(aws, 1, 8));
    struct test_leaks leaks = test_leaks_begin();
    make_and_remake(aws);
    migrate(aws);
    refuse(aws);
    options(server);
    test_leaks_end(&leaks);
    /* A service that is gone: within the time, and said. */
    test_server_pause(server);
    perf_aws_tables_options o = PERF_AWS_TABLES_OPTIONS_INIT;
    o.aws = aws;
    o.timeout_ms = 500;
    cr_assert_eq(perf_aws_tables_ensure(&o, NULL), PERF_ETIMEDOUT, "%s", perf_last_error());
    test_server_resume(server);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(server);
}

/* ------------------------------------------------------------------- policies */

static char policy[16384];

static void write_policy(int64_t kind)
{
    perf_aws_policy_options o = PERF_AWS_POLICY_OPTIONS_INIT;
    o.kind = kind;
    o.account = "123456789012";
    o.region = "us-east-1";
    size_t len = 0;
    int rc = perf_aws_tables_policy(NULL, &o, policy, sizeof policy, &len);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(strlen(policy), len);
}

/* moto looks at actions only: it asks about the resource "*". */
static void any_resource(void)
{
    static char wide[sizeof policy];
    const char *from = policy;
    char *to = wide;
    while (*from) {
        if (!strncmp(from, "\"arn:", 5)) {
            memcpy(to, "\"*\"", 3);
            to += 3;
            from = strchr(from + 1, '"') + 1;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
    memcpy(policy, wide, sizeof policy);
}

/* As Python does it: moto takes the body apart, puts it together again and checks the signature of
 * that. */
static void form_encode(const char *text, char *to)
{
    for (; *text; text++)
        if (*text == ' ')
            *to++ = '+';
        else if (isalnum((unsigned char)*text) || strchr("_.-~", *text))
            *to++ = *text;
        else
            to += sprintf(to, "%%%02X", (unsigned char)*text);
    *to = 0;
}

/* A user who may do what the policy says; *id and *secret are its keys. */
static void make_user(struct test_server *s, const char *name, char *id, char *secret)
{
    static char body[4 * sizeof policy];
    char reply[4096];
    perf_aws *iam = open_as("iam", s->url, s->access_key, s->secret_key, NULL);
    snprintf(body, sizeof body, "UserName=%s", name);
    must(iam, "CreateUser", body);
    int n = snprintf(body, sizeof body, "UserName=%s&PolicyName=p&PolicyDocument=", name);
    form_encode(policy, body + n);
    must(iam, "PutUserPolicy", body);
    snprintf(body, sizeof body, "UserName=%s", name);
    cr_assert_eq(call(iam, "CreateAccessKey", body, reply, sizeof reply), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_eq(sscanf(strstr(reply, "<AccessKeyId>"), "<AccessKeyId>%63[^<]", id), 1);
    cr_assert_eq(sscanf(strstr(reply, "<SecretAccessKey>"), "<SecretAccessKey>%63[^<]", secret), 1);
    perf_aws_close(iam);
}

static void refused(perf_aws *aws, const char *operation, const char *json)
{
    cr_assert_eq(call(aws, operation, json, NULL, 0), PERF_EACCESS, "%s: %s", operation,
                 perf_last_error());
}

/* Everything that the tier does, by somebody who may do only what the policy says. */
static void tier_works(perf_aws *runner)
{
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    struct test_host th;
    struct perf__host host;
    struct perf__store *store;
    struct test_key key;
    uint64_t token;
    static char big[500000];
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * i >> 5 ^ i * 2654435761u >> 13);
    tier.backend = "dynamodb";
    tier.store_ctx = runner;
    tier.timeout_ms = 30000;
    store_conformance(&tier);
    cr_assert_eq(perf__host_take(test_host_init(&th), &host), PERF_OK);
    cr_assert_eq(perf__store_open(&tier, &host, &store), PERF_OK, "%s", perf_last_error());
    perf_store_op op = test_set(&key, 1, big, sizeof big, 0);
    for (int i = 0; i < 3; i++) { /* the second time chunks are removed, then there is a lease */
        if (i == 2)
            cr_assert_eq(perf__store_lease(store, &op.key, 1000, &op.lease), PERF_OK, "%s",
                         perf_last_error());
        cr_assert_eq(perf__store_apply(store, &op, 1), PERF_OK, "%s", perf_last_error());
        cr_assert(test_has(store, &host.allocator, 1, big, sizeof big), "%s", perf_last_error());
    }
    cr_assert_eq(perf__store_lease(store, &op.key, 1000, &token), PERF_OK);
    cr_assert_eq(perf__store_unlease(store, &op.key, token), PERF_OK, "%s", perf_last_error());
    perf_store_usage usage;
    cr_assert_eq(perf__store_usage(store, &usage), PERF_OK, "%s", perf_last_error());
    perf__store_close(store);
}

Test(aws_tables, moto, .timeout = 240)
{
    struct test_server *server = test_server_moto();
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    perf_aws *aws = open_at(server);
    make_and_remake(aws);
    migrate(aws);
    refuse(aws);

    /* Who deploys makes the tables, and nothing else. */
    char id[64], secret[64];
    write_policy(PERF_AWS_POLICY_DEPLOY);
    any_resource();
    make_user(server, "deployer", id, secret);
    perf_aws *deployer = open_as("dynamodb", server->url, id, secret, NULL);
    perf_aws_tables_release(ensure(deployer, 0, 8));
    perf_aws_tables_release(ensure(deployer, 0, 0));
    refused(deployer, "DeleteTable", "{\"TableName\":\"lms-async-tasks\"}");
    refused(
        deployer, "GetItem",
        "{\"TableName\":\"lms-async-tasks\",\"Key\":{\"pk\":{\"S\":\"a\"},\"sk\":{\"S\":\"0\"}}}");
    for (size_t i = 0; i < 4; i++)
        drop(aws, defaults[i]);
    must(aws, "CreateTable",
         "{\"TableName\":\"lms-performance-cache\",\"BillingMode\":\"PAY_PER_REQUEST\"," KEYS
         ",\"AttributeDefinitions\":[" PAIR "]}");
    perf_aws_tables_release(ensure(deployer, 0, 9));
    perf_aws_close(deployer);

    /* Who runs uses them, and can neither make nor delete. */
    write_policy(PERF_AWS_POLICY_RUN);
    any_resource();
    make_user(server, "runner", id, secret);
    perf_aws *runner = open_as("dynamodb", server->url, id, secret, NULL);
    indexes_answer(runner);
    tier_works(runner);
    refused(runner, "DeleteTable", "{\"TableName\":\"lms-performance-cache\"}");
    refused(runner, "Scan", "{\"TableName\":\"lms-performance-cache\"}");
    perf_aws_tables_options o = PERF_AWS_TABLES_OPTIONS_INIT;
    o.aws = runner;
    o.tables = PERF_AWS_TABLE_TASKS;
    cr_assert_eq(perf_aws_tables_ensure(&o, NULL), PERF_EACCESS, "%s", perf_last_error());
    perf_aws_close(runner);
    perf_aws_close(aws);
    test_server_stop(server);
}
