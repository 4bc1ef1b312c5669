/* SPDX-License-Identifier: MIT */
/*
 * aws_pages.c - lists that come in pages: the token of one reply goes into the
 * next request, as it came. One thread at a time.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "aws_client.h"
#include "aws_json.h"

struct perf_aws_pages {
    perf_aws *aws;
    char operation[PERF__AWS_NAME_MAX];
    char token_in[PERF__AWS_NAME_MAX], token_out[PERF__AWS_NAME_MAX];
    char *body;              /* the host's, with a zero byte behind */
    struct perf__json first; /* in it */
    char *token;             /* of the last reply, as it came; NULL: the first page */
    size_t token_len;
    bool over;
};

static const struct {
    const char *service, *operation, *token_in, *token_out;
} known[] = {
    {"dynamodb", "Query", "ExclusiveStartKey", "LastEvaluatedKey"},
    {"dynamodb", "Scan", "ExclusiveStartKey", "LastEvaluatedKey"},
    {"dynamodb", "ListTables", "ExclusiveStartTableName", "LastEvaluatedTableName"},
    {"dynamodb", "ListBackups", "ExclusiveStartBackupArn", "LastEvaluatedBackupArn"},
    {"kms", NULL, "Marker", "NextMarker"},
    {"logs", NULL, "nextToken", "nextToken"},
    {NULL, NULL, "NextToken", "NextToken"},
};

static int copy(const char *field, const char *from, char *to)
{
    size_t len = strnlen(from, PERF__AWS_NAME_MAX);
    int rc = perf__check_len(field, len, 1, PERF__AWS_NAME_MAX - 1);
    if (rc)
        return rc;
    for (size_t i = 0; i < len; i++)
        if (from[i] <= ' ' || from[i] > '~' || from[i] == '"' || from[i] == '\\')
            return perf__fail(PERF_EINVAL, "%s has the byte 0x%02x; give a plain name", field,
                              (unsigned char)from[i]);
    memcpy(to, from, len + 1);
    return PERF_OK;
}

static int name_tokens(perf_aws_pages *p, const char *in, const char *out)
{
    size_t i = 0;
    if (!in != !out)
        return perf__fail(PERF_EINVAL, "token_in and token_out: give both, or neither");
    while (!in && known[i].service &&
           (strcmp(known[i].service, p->aws->name) != 0 ||
            (known[i].operation && strcmp(known[i].operation, p->operation) != 0)))
        i++;
    int rc = copy("token_in", in ? in : known[i].token_in, p->token_in);
    return rc ? rc : copy("token_out", out ? out : known[i].token_out, p->token_out);
}

int perf_aws_pages_open(perf_aws *aws, const char *operation, const void *body, size_t len,
                        const char *token_in, const char *token_out, perf_aws_pages **out)
{
    int rc = perf__aws_check_client(aws, "perf_aws_pages_open", NULL, PERF_AWS_PROTOCOL_JSON);
    if (rc)
        return rc;
    if (!operation || !out || (!body && len))
        return perf__fail(PERF_EINVAL, "perf_aws_pages_open needs an operation, a body of that "
                                       "length and a place for the handle");
    perf_aws_pages *p = perf__calloc(&aws->host.allocator, 1, sizeof *p);
    if (!p)
        return perf__fail_nomem("the pages of a list");
    p->aws = aws;
    p->body = perf__strndup(&aws->host.allocator, len ? body : "{}", len ? len : 2);
    rc = p->body ? copy("operation", operation, p->operation)
                 : perf__fail_nomem("the pages of a list");
    if (!rc)
        rc = name_tokens(p, token_in, token_out);
    if (!rc)
        rc = perf__json_check(PERF_EINVAL, "the body", p->body, len ? len : 2, '{', &p->first);
    if (rc)
        perf_aws_pages_close(p);
    else
        *out = p;
    return rc;
}

/* The first request's members, but the token, and then that. */
static void continue_with(perf_aws_pages *p, struct perf__text *t)
{
    struct perf__json name, value;
    size_t at = 0, token_in = strlen(p->token_in);
    perf__text_puts(t, "{");
    while (perf__json_next(p->first, &at, &name, &value)) {
        if (name.len == token_in && !memcmp(name.at, p->token_in, token_in))
            continue;
        perf__text_puts(t, "\"");
        perf__text_put(t, name.at, name.len);
        perf__text_puts(t, "\":");
        perf__text_put(t, value.at, value.len);
        perf__text_puts(t, ",");
    }
    perf__text_putf(t, "\"%s\":", p->token_in);
    perf__text_put(t, p->token, p->token_len);
    perf__text_puts(t, "}");
}

static int take_token(perf_aws_pages *p, const perf_aws_reply *reply)
{
    struct perf__json all, token;
    int rc = perf__json_check(PERF_EPROTOCOL, "a page", perf_aws_reply_body(reply),
                              perf_aws_reply_size(reply), '{', &all);
    if (rc)
        return rc;
    if (!perf__json_find(all, p->token_out, 0, &token) || token.at[0] == 'n' ||
        (token.len == 2 && token.at[0] == '"')) { /* none, null, or "" */
        p->over = true;
        return PERF_OK;
    }
    if (p->token && token.len == p->token_len && !memcmp(token.at, p->token, token.len))
        return perf__fail(PERF_EPROTOCOL, "%s %s: a page says that it comes after itself",
                          p->aws->name, p->operation);
    char *kept = perf__strndup(&p->aws->host.allocator, token.at, token.len);
    if (!kept)
        return perf__fail_nomem("the token of a page");
    perf__free(&p->aws->host.allocator, p->token);
    p->token = kept;
    p->token_len = token.len;
    return PERF_OK;
}

int perf_aws_pages_next(perf_aws_pages *p, int64_t timeout_ms, perf_aws_reply **out)
{
    perf_aws_reply *reply = NULL;
    if (!p || !out)
        return perf__fail(PERF_EINVAL, "perf_aws_pages_next needs a handle and a place for the "
                                       "reply");
    if (p->aws->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    if (p->over)
        return PERF_MISS;
    struct perf__text t = {.allocator = &p->aws->host.allocator};
    if (p->token)
        continue_with(p, &t);
    else
        perf__text_put(&t, p->first.at, p->first.len);
    int rc = t.failed ? perf__fail_nomem("the request for a page")
                      : perf_aws_call(p->aws, p->operation, t.data, t.len, timeout_ms, &reply);
    perf__text_free(&t);
    if (!rc)
        rc = take_token(p, reply);
    if (rc == PERF_MISS) /* of a service, but here it would read as the end */
        rc = perf__fail(PERF_EREMOTE, "%s", perf_last_error());
    if (rc)
        perf_aws_reply_release(reply);
    else
        *out = reply;
    return rc;
}

void perf_aws_pages_close(perf_aws_pages *p)
{
    if (!p || p->aws->fork_generation != perf__fork_generation)
        return;
    const perf_allocator *a = &p->aws->host.allocator;
    perf__free(a, p->token);
    perf__free(a, p->body);
    perf__free(a, p);
}
