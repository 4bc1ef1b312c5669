/* SPDX-License-Identifier: MIT */
/*
 * 08_dynamodb.c - sessions in a DynamoDB table: written with an end, changed only by who read them
 * last, and read by the hundred.
 *
 *     cc 08_dynamodb.c $(pkg-config --cflags --libs libperf) && ./a.out my-table
 *
 * Where and who we are is up to AWS's own variables and files. The table's partition key is a text
 * "id". For a try without AWS: DynamoDB Local, AWS_ENDPOINT_URL_DYNAMODB=http://localhost:8000, any
 * keys, and this program creates the table. When nobody answers it says so.
 */
#include <libperf/aws_dynamodb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what, int rc)
{
    printf("%s: %s\n    %s\n", what, perf_strstatus(rc), perf_last_error());
    return rc;
}

/* Any operation of any service is one call with AWS's own JSON. */
static int make_sure_of_table(perf_aws *ddb, const char *name)
{
    static const char create[] =
        "{\"TableName\":\"%s\",\"BillingMode\":\"PAY_PER_REQUEST\","
        "\"AttributeDefinitions\":[{\"AttributeName\":\"id\",\"AttributeType\":\"S\"}],"
        "\"KeySchema\":[{\"AttributeName\":\"id\",\"KeyType\":\"HASH\"}]}";
    char json[1024];
    perf_aws_reply *reply = NULL;
    int n = snprintf(json, sizeof json, "{\"TableName\":\"%.255s\"}", name);
    int rc = perf_aws_call(ddb, "DescribeTable", json, (size_t)n, /* timeout_ms */ 2000, &reply);
    if (rc == PERF_EREMOTE && !strcmp(perf_aws_error_code(), "ResourceNotFoundException") &&
        strstr(perf_aws_endpoint(ddb), "://localhost")) { /* never in an account */
        n = snprintf(json, sizeof json, create, name);
        rc = perf_aws_call(ddb, "CreateTable", json, (size_t)n, 5000, &reply);
    }
    perf_aws_reply_release(reply);
    return rc;
}

/* Two have read the same session; one of them may change it. */
static int change(perf_dynamodb_table *sessions)
{
    perf_dynamodb_put_options put = PERF_DYNAMODB_PUT_OPTIONS_INIT;
    perf_dynamodb_value *value;
    int64_t version;
    put.ttl_s = 3600;
    int rc = perf_dynamodb_table_put(sessions, "anna", 4, NULL, 0, "cart: 1", 7, &put, &version);
    if (!rc)
        rc = perf_dynamodb_table_get(sessions, "anna", 4, NULL, 0, &value);
    if (rc)
        return failed("session", rc);
    printf("anna has \"%.*s\"\n", (int)perf_dynamodb_value_size(value),
           (const char *)perf_dynamodb_value_data(value));
    perf_dynamodb_value_release(value);
    put.condition = PERF_DYNAMODB_IF_VERSION;
    put.version = version;
    rc = perf_dynamodb_table_put(sessions, "anna", 4, NULL, 0, "cart: 2", 7, &put, NULL);
    printf("who comes first: %s\n", perf_strstatus(rc));
    rc = perf_dynamodb_table_put(sessions, "anna", 4, NULL, 0, "cart: 9", 7, &put, NULL);
    printf("who comes second: %s\n", perf_strstatus(rc));
    return perf_dynamodb_table_delete(sessions, "anna", 4, NULL, 0, NULL);
}

/* Batches are split as DynamoDB wants it, and what it leaves out is sent again. */
static int many(perf_aws *ddb, const char *table)
{
    enum { COUNT = 130 };
    static char texts[COUNT][96];
    perf_bytes parts[COUNT];
    perf_dynamodb_batch *batch = NULL;
    for (int pass = 0; pass < 3; pass++) {
        static const char *const forms[] = {
            "{\"PutRequest\":{\"Item\":{\"id\":{\"S\":\"visit-%d\"}}}}",
            "{\"id\":{\"S\":\"visit-%d\"}}",
            "{\"DeleteRequest\":{\"Key\":{\"id\":{\"S\":\"visit-%d\"}}}}"};
        for (int i = 0; i < COUNT; i++) {
            int n = snprintf(texts[i], sizeof texts[i], forms[pass], i);
            parts[i] = (perf_bytes){texts[i], (size_t)n};
        }
        int rc = pass == 1 ? perf_dynamodb_batch_get(ddb, table, parts, COUNT, NULL, &batch)
                           : perf_dynamodb_batch_write(ddb, table, parts, COUNT, NULL, &batch);
        printf("%s of %d: %d requests, %zu items, %zu left\n", pass == 1 ? "a get" : "a write",
               COUNT, (int)perf_dynamodb_batch_requests(batch), perf_dynamodb_batch_count(batch),
               perf_dynamodb_batch_left_count(batch));
        perf_dynamodb_batch_release(batch);
        if (rc)
            return failed("batch", rc);
    }
    return PERF_OK;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "libperf-example";
    perf_aws_options options = PERF_AWS_OPTIONS_INIT;
    perf_dynamodb_table_options table = PERF_DYNAMODB_TABLE_OPTIONS_INIT;
    perf_dynamodb_table *sessions = NULL;
    perf_aws *ddb = NULL;

    /* Without arguments or an endpoint this program leaves your account alone. */
    options.service = "dynamodb";
    options.region = getenv("AWS_REGION") ? NULL : "us-east-1";
    options.endpoint_url =
        argc > 1 || getenv("AWS_ENDPOINT_URL_DYNAMODB") ? NULL : "http://localhost:8000";
    int rc = perf_aws_open(&options, &ddb);
    if (rc)
        return failed("open", rc), 1;
    rc = make_sure_of_table(ddb, name);
    if (rc) {
        failed("table", rc);
        printf("No table that can be reached at %s: start DynamoDB Local, or name one of yours.\n",
               perf_aws_endpoint(ddb));
        perf_aws_close(ddb);
        return argc > 1;
    }
    table.aws = ddb;
    table.table = name;
    table.key_name = "id";
    table.value_name = "data";
    table.ttl_name = "expires";
    table.version_name = "version";
    rc = perf_dynamodb_table_open(&table, &sessions);
    if (!rc)
        rc = change(sessions);
    if (!rc)
        rc = many(ddb, name);
    perf_dynamodb_table_close(sessions);
    perf_aws_close(ddb);
    return rc != PERF_OK;
}
