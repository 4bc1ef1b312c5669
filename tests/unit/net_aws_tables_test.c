/* SPDX-License-Identifier: MIT */
/* The tables without a service: policies, and what hostile descriptions of tables come to. */
#include <cjson/cJSON.h>
#include <libperf/aws_tables.h>

#include "../../src/net/aws_tables.h"
#include "seams.h"
#include "test.h"

static char text[16384];

static int policy_of(const perf_aws_tables_options *tables, perf_aws_policy_options o)
{
    return perf_aws_tables_policy(tables, &o, text, sizeof text, NULL);
}

static perf_aws_policy_options options_for(int64_t kind)
{
    perf_aws_policy_options o = PERF_AWS_POLICY_OPTIONS_INIT;
    o.kind = kind;
    o.account = "123456789012";
    o.region = "eu-west-1";
    return o;
}

/* Every statement allows; all its actions and resources are spelt out. */
static size_t check_policy(void)
{
    cJSON *json = cJSON_Parse(text), *statement, *each;
    size_t resources = 0;
    cr_assert_not_null(json, "%s", text);
    cr_assert_str_eq(cJSON_GetObjectItem(json, "Version")->valuestring, "2012-10-17");
    cJSON_ArrayForEach(statement, cJSON_GetObjectItem(json, "Statement"))
    {
        cr_assert_str_eq(cJSON_GetObjectItem(statement, "Effect")->valuestring, "Allow");
        cr_assert_gt(cJSON_GetArraySize(cJSON_GetObjectItem(statement, "Action")), 0);
        cJSON_ArrayForEach(each, cJSON_GetObjectItem(statement, "Action"))
        {
            cr_assert(!strncmp(each->valuestring, "dynamodb:", 9));
            cr_assert(!strchr(each->valuestring, '*'));
            cr_assert(!strstr(each->valuestring, "DeleteTable"));
        }
        cJSON_ArrayForEach(each, cJSON_GetObjectItem(statement, "Resource"))
        {
            cr_assert(!strchr(each->valuestring, '*'), "%s", each->valuestring);
            resources++;
        }
    }
    cJSON_Delete(json);
    return resources;
}

Test(aws_tables, policies)
{
    test_unset_all("AWS_");
    cr_assert_eq(policy_of(NULL, options_for(PERF_AWS_POLICY_RUN)), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_eq(check_policy(), 4 + 6);
    cr_assert(strstr(text, "\"arn:aws:dynamodb:eu-west-1:123456789012:table/"
                           "lms-async-tasks/index/by_lane\""));
    cr_assert(!strstr(text, "CreateTable"));
    cr_assert_eq(policy_of(NULL, options_for(PERF_AWS_POLICY_DEPLOY)), PERF_OK);
    cr_assert_eq(check_policy(), 4);
    cr_assert(strstr(text, "dynamodb:UpdateTimeToLive"));
    cr_assert(!strstr(text, "Item"));

    perf_aws_tables_options tables = PERF_AWS_TABLES_OPTIONS_INIT;
    tables.tables = PERF_AWS_TABLE_CACHE;
    tables.cache_table = "mine";
    perf_aws_policy_options o = options_for(0);
    o.region = "cn-north-1";
    cr_assert_eq(policy_of(&tables, o), PERF_OK);
    cr_assert_eq(check_policy(), 3);
    cr_assert(strstr(text, "\"arn:aws-cn:dynamodb:cn-north-1:123456789012:table/mine\""), "%s",
              text);
    cr_assert(!strstr(text, "lms-"));
    o.partition = "aws-other";
    cr_assert_eq(policy_of(&tables, o), PERF_OK);
    cr_assert(strstr(text, "\"arn:aws-other:dynamodb:"));
    o.region = NULL;
    cr_assert_eq(policy_of(&tables, o), PERF_EINVAL);
    setenv("AWS_DEFAULT_REGION", "us-gov-west-1", 1);
    o.partition = NULL;
    cr_assert_eq(policy_of(&tables, o), PERF_OK, "%s", perf_last_error());
    cr_assert(strstr(text, "\"arn:aws-us-gov:dynamodb:us-gov-west-1:"));
    test_unset_all("AWS_");

    size_t len = 0;
    o.region = "us-east-1";
    cr_assert_eq(perf_aws_tables_policy(&tables, &o, text, 10, &len), PERF_ETOOSMALL);
    cr_assert_eq(perf_aws_tables_policy(&tables, &o, text, len, NULL), PERF_ETOOSMALL);
    cr_assert_eq(perf_aws_tables_policy(&tables, &o, text, len + 1, NULL), PERF_OK);
    cr_assert_eq(strlen(text), len);
    static const char *const bad[] = {NULL,           "", "12345678901", "1234567890123",
                                      "12345678901x", "*"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o.account = bad[i];
        cr_assert_eq(policy_of(&tables, o), PERF_EINVAL);
        cr_assert(strstr(perf_last_error(), "account"), "%s", perf_last_error());
    }
    o = options_for(2);
    cr_assert_eq(policy_of(&tables, o), PERF_EINVAL);
    o = options_for(0);
    o.region = "us-east-1\"";
    cr_assert_eq(policy_of(&tables, o), PERF_EINVAL);
    cr_assert_eq(perf_aws_tables_policy(NULL, &o, NULL, 1, NULL), PERF_EINVAL);
}

static int look_at(const char *reply, struct perf__table_look *look)
{
    return perf__table_look(&perf__tables[0], "t", reply, strlen(reply), look);
}

#define DEFINED                                                                                 \
    "\"KeySchema\":[{\"AttributeName\":\"pk\",\"KeyType\":\"HASH\"},{\"AttributeName\":\"sk\"," \
    "\"KeyType\":\"RANGE\"}],\"AttributeDefinitions\":[{\"AttributeName\":\"sk\","              \
    "\"AttributeType\":\"S\"},{\"AttributeName\":\"pk\",\"AttributeType\":\"S\"},"              \
    "{\"AttributeName\":\"user\",\"AttributeType\":\"S\"}]"
#define INDEX(status)                                                                         \
    ",\"GlobalSecondaryIndexes\":[{\"IndexName\":\"by_user\",\"IndexStatus\":\"" status "\"," \
    "\"KeySchema\":[{\"AttributeName\":\"user\"},{\"AttributeName\":\"pk\"}],"                \
    "\"Projection\":{\"ProjectionType\":\"KEYS_ONLY\"}}]"

Test(aws_tables, looks)
{
    struct perf__table_look look;
    cr_assert_eq(
        look_at("{\"Table\":{\"TableStatus\":\"ACTIVE\"," DEFINED INDEX("ACTIVE") "}}", &look),
        PERF_OK, "%s", perf_last_error());
    cr_assert(look.exists && !look.busy && look.has_index[0] && !look.has_index[1]);
    cr_assert(!look.provisioned, "no units are known, so none can be given");
    cr_assert_eq(
        look_at("{\"Table\":{\"TableStatus\":\"ACTIVE\"," DEFINED INDEX("CREATING") "}}", &look),
        PERF_OK);
    cr_assert(look.busy && look.has_index[0]);
    cr_assert_str_eq(look.status, "CREATING");
    cr_assert_eq(
        look_at("{\"Table\":{\"TableStatus\":\"UPDATING\"," DEFINED INDEX("DELETING") "}}", &look),
        PERF_OK);
    cr_assert(look.busy && !look.has_index[0]);
    cr_assert_eq(look_at("{\"Table\":{\"TableStatus\":\"DELETING\"}}", &look), PERF_OK);
    cr_assert(look.busy);
    static const char *const strange[] = {"", "x", "[]", "{}", "{\"Table\":7}", "{\"Table\":{}"};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        cr_assert_eq(look_at(strange[i], &look), PERF_EPROTOCOL, "%s", strange[i]);
    cr_assert_eq(look_at("{\"Table\":{}}", &look), PERF_EEXISTS, "it has no keys");
    static char many[70000];
    size_t n = (size_t)sprintf(many, "{\"Table\":{\"KeySchema\":[");
    while (n < sizeof many - 100)
        n += (size_t)sprintf(many + n, "{\"AttributeName\":\"a very long name of a key\"},");
    sprintf(many + n - 1, "]}}");
    cr_assert_eq(look_at(many, &look), PERF_EEXISTS, "%s", perf_last_error());

    look.has_ttl = look.busy = false;
    static const char *const ttl[] = {"{}", "[", "{\"TimeToLiveDescription\":[]}"};
    for (size_t i = 0; i < 3; i++)
        cr_assert_eq(perf__table_look_ttl("t", ttl[i], strlen(ttl[i]), &look), PERF_EPROTOCOL);
    const char *disabling = "{\"TimeToLiveDescription\":{\"TimeToLiveStatus\":\"DISABLING\","
                            "\"AttributeName\":\"other\"}}";
    cr_assert_eq(perf__table_look_ttl("t", disabling, strlen(disabling), &look), PERF_OK);
    cr_assert(look.busy && !look.has_ttl);
}
