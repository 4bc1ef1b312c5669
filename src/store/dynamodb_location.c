/* SPDX-License-Identifier: MIT */
/* dynamodb_location.c - parameters of a location, and the client that they mean. Any thread. */
#include "dynamodb_location.h"

#include <string.h>

#include "../base/status.h"

static bool is_made_of(const char *text, size_t len, const char *others)
{
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= '0' && text[i] <= '9') ||
              ((text[i] | 32) >= 'a' && (text[i] | 32) <= 'z') ||
              (text[i] && strchr(others, text[i]))))
            return false;
    return len > 0;
}

static bool take_flag(const char *value, size_t len, bool *out)
{
    *out = *value == '1';
    return len == 1 && (*value == '0' || *value == '1');
}

static bool take_text(const char *value, size_t len, const char *others, char *out, size_t size)
{
    if (len >= size || !is_made_of(value, len, others))
        return false;
    memcpy(out, value, len);
    out[len] = 0;
    return true;
}

bool perf__dynamodb_table(const char *text, size_t len, char out[PERF__DYNAMODB_TABLE_SIZE])
{
    return len >= 3 && take_text(text, len, "_.-:/", out, PERF__DYNAMODB_TABLE_SIZE);
}

enum { REGION, ENDPOINT, COMPRESS, PREFIX, CONSISTENT, PARAMETERS };

const char *perf__dynamodb_parameters(const char *text, bool has_consistent,
                                      struct perf__dynamodb_location *out)
{
    static const char *const names[PARAMETERS] = {
        "region=", "endpoint=", "compress=", "prefix=", "consistent="};
    const size_t known = has_consistent ? PARAMETERS : CONSISTENT;
    bool seen[PARAMETERS] = {false};
    *out = (struct perf__dynamodb_location){.consistent = true, .packs = true};
    while (*text) {
        text++;
        size_t which = 0, part = strcspn(text, "&");
        while (which < known && strncmp(text, names[which], strlen(names[which])) != 0)
            which++;
        if (which == known)
            return "an unknown parameter";
        if (seen[which])
            return "a parameter is there twice";
        seen[which] = true;
        const char *value = text + strlen(names[which]);
        size_t len = part - strlen(names[which]);
        bool fine = which == REGION ? take_text(value, len, "-", out->region, sizeof out->region)
                    : which == ENDPOINT
                        ? take_text(value, len, ":/.-_[]", out->endpoint, sizeof out->endpoint)
                    : which == COMPRESS ? take_flag(value, len, &out->packs)
                    : which == CONSISTENT
                        ? take_flag(value, len, &out->consistent)
                        : take_text(value, len, "_.-", out->prefix, sizeof out->prefix - 1);
        if (!fine)
            return which == PREFIX ? "prefix has 1 to 64 letters, digits, '_', '-', '.'"
                                   : "a parameter's value cannot be read";
        text += part;
    }
    if (*out->prefix)
        memcpy(out->prefix + strlen(out->prefix), "|", 2);
    return NULL;
}

int perf__dynamodb_client(const struct perf__dynamodb_location *location, perf_aws *given,
                          const char *field, const perf_host *host, perf_aws **out, bool *owns)
{
    perf_aws_options options = PERF_AWS_OPTIONS_INIT;
    bool own = *location->region || *location->endpoint;
    *owns = false;
    if (given && own)
        return perf__fail(PERF_EINVAL,
                          "%s is a client, so the location cannot have region or endpoint", field);
    *out = given;
    if (given)
        return PERF_OK;
    if (!own)
        return perf_aws_shared("dynamodb", out);
    options.service = "dynamodb";
    options.region = *location->region ? location->region : NULL;
    options.endpoint_url = *location->endpoint ? location->endpoint : NULL;
    options.host = host;
    int rc = perf_aws_open(&options, out);
    *owns = !rc;
    return rc;
}
