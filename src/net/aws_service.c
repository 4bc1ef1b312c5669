/* SPDX-License-Identifier: MIT */
/*
 * aws_service.c - what is known of AWS's services: a line each. Facts from their
 * published models. Another one needs a line here only if it is no REST service;
 * a host can say the same by options.
 */
#include <string.h>

#include "aws_client.h"

#define JSON_1_0 "application/x-amz-json-1.0"
#define JSON_1_1 "application/x-amz-json-1.1"
#define FORM     "application/x-www-form-urlencoded; charset=utf-8"

enum {
    JSON = PERF_AWS_PROTOCOL_JSON,
    QUERY = PERF_AWS_PROTOCOL_QUERY,
    REST = PERF_AWS_PROTOCOL_REST
};

static const struct perf__aws_service services[] = {
    {"dynamodb", NULL, JSON, "DynamoDB_20120810", NULL, JSON_1_0, 10000, 3000, false},
    {"sqs", NULL, JSON, "AmazonSQS", NULL, JSON_1_0, 30000, 10000, false},
    {"monitoring", NULL, QUERY, NULL, "2010-08-01", FORM, 30000, 10000, false},
    {"s3", NULL, REST, NULL, NULL, NULL, 300000, 0, false},
    {"bedrock-runtime", "bedrock", REST, NULL, NULL, NULL, 300000, 0, false},
    {"bedrock", NULL, REST, NULL, NULL, NULL, 0, 0, false},
    {"sts", NULL, QUERY, NULL, "2011-06-15", FORM, 30000, 10000, false},
    {"sns", NULL, QUERY, NULL, "2010-03-31", FORM, 30000, 10000, false},
    {"iam", NULL, QUERY, NULL, "2010-05-08", FORM, 0, 0, true},
    {"cloudformation", NULL, QUERY, NULL, "2010-05-15", FORM, 0, 0, false},
    {"ec2", NULL, QUERY, NULL, "2016-11-15", FORM, 0, 0, false},
    {"logs", NULL, JSON, "Logs_20140328", NULL, JSON_1_1, 0, 0, false},
    {"events", NULL, JSON, "AWSEvents", NULL, JSON_1_1, 0, 0, false},
    {"kinesis", NULL, JSON, "Kinesis_20131202", NULL, JSON_1_1, 0, 0, false},
    {"kms", NULL, JSON, "TrentService", NULL, JSON_1_1, 0, 0, false},
    {"ssm", NULL, JSON, "AmazonSSM", NULL, JSON_1_1, 0, 0, false},
    {"secretsmanager", NULL, JSON, "secretsmanager", NULL, JSON_1_1, 0, 0, false},
    {"application-autoscaling", NULL, JSON, "AnyScaleFrontendService", NULL, JSON_1_1, 0, 0, false},
    {"lambda", NULL, REST, NULL, NULL, NULL, 0, 0, false},
};

static const struct perf__aws_service unknown = {NULL, NULL, REST, NULL, NULL, NULL, 0, 0, false};

const struct perf__aws_service *perf__aws_service_find(const char *name)
{
    for (size_t i = 0; i < sizeof services / sizeof *services; i++)
        if (!strcmp(services[i].name, name))
            return &services[i];
    return &unknown;
}
