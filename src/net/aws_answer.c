/* SPDX-License-Identifier: MIT */
/*
 * aws_answer.c - HTTP, JSON, times and small files for the sources of keys.
 * Thread: the one that searches.
 */
#include "aws_answer.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "../base/thread.h"

enum { ANSWER_MAX = 256 << 10, FILE_MAX = 64 << 10 };

/* --------------------------------------------------------------------- times */

static bool digits(const char **text, int count, int64_t *out)
{
    int64_t value = 0;
    for (int i = 0; i < count; i++) {
        if ((*text)[i] < '0' || (*text)[i] > '9')
            return false;
        value = value * 10 + ((*text)[i] - '0');
    }
    *text += count;
    *out = value;
    return true;
}

static bool skip(const char **text, char c)
{
    return *(*text)++ == c;
}

/* Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms". */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = year / 400, year_of_era = year % 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

bool perf__aws_parse_time(const char *text, int64_t *ms)
{
    int64_t year, month, day, hour, minute, second, offset = 0, part, fraction = 0, scale = 100;
    if (!digits(&text, 4, &year) || !skip(&text, '-') || !digits(&text, 2, &month) ||
        !skip(&text, '-') || !digits(&text, 2, &day))
        return false;
    if ((*text != 'T' && *text != 't' && *text != ' ') || !text++ || !digits(&text, 2, &hour) ||
        !skip(&text, ':') || !digits(&text, 2, &minute) || !skip(&text, ':') ||
        !digits(&text, 2, &second))
        return false;
    if (*text == '.') {
        for (text++; *text >= '0' && *text <= '9'; text++, scale /= 10)
            fraction += (*text - '0') * scale;
    }
    if (*text == '+' || *text == '-') {
        int64_t sign = *text++ == '-' ? -1 : 1;
        if (!digits(&text, 2, &offset) || (*text == ':' && !text++) || !digits(&text, 2, &part))
            return false;
        offset = sign * (offset * 60 + part);
    } else if (strcmp(text, "Z") && strcmp(text, "UTC") && strcmp(text, "z")) {
        return false;
    } else {
        text = "";
    }
    if (*text || year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
        minute > 59 || second > 60)
        return false;
    *ms = ((days_of(year, month, day) * 24 + hour) * 60 + minute - offset) * 60000 + second * 1000 +
          fraction;
    return *ms > 0;
}

/* ---------------------------------------------------------------------- JSON */

/* Secrets lie in the tree's strings. */
static void wipe(cJSON *json)
{
    for (cJSON *at = json ? json->child : NULL; at; at = at->next) {
        if (cJSON_IsString(at))
            OPENSSL_cleanse(at->valuestring, strlen(at->valuestring));
        for (cJSON *inner = at->child; inner; inner = inner->next)
            if (cJSON_IsString(inner))
                OPENSSL_cleanse(inner->valuestring, strlen(inner->valuestring));
    }
    cJSON_Delete(json);
}

static const char *text_of(const cJSON *json, const char *name)
{
    const cJSON *item = name ? cJSON_GetObjectItemCaseSensitive(json, name) : NULL;
    return cJSON_IsString(item) && *item->valuestring ? item->valuestring : NULL;
}

int perf__aws_keys_from_json(const struct perf__aws_search *s, const char *what, const char *text,
                             size_t len, const struct perf__aws_answer_names *names,
                             perf_aws_keys **out)
{
    int rc = PERF_OK;
    int64_t expires_ms = 0;
    cJSON *whole = len <= ANSWER_MAX ? cJSON_ParseWithLength(text, len) : NULL;
    const cJSON *json =
        names->outer ? cJSON_GetObjectItemCaseSensitive(whole, names->outer) : whole;
    const char *id = text_of(json, names->id), *secret = text_of(json, names->secret);
    const char *token = text_of(json, names->token);
    const cJSON *end = cJSON_GetObjectItemCaseSensitive(json, names->expires);
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(json, "Version");
    if (!cJSON_IsObject(json))
        rc = perf__fail(PERF_EPROTOCOL, "%s: the answer is not a JSON object", what);
    else if (names->has_version && !(cJSON_IsNumber(version) && version->valueint == 1))
        rc = perf__fail(PERF_EPROTOCOL, "%s: the answer's Version is not 1", what);
    else if (!id || !secret || (names->needs_token && !token))
        rc = perf__fail(PERF_EPROTOCOL, "%s: the answer lacks %s", what,
                        !id       ? names->id
                        : !secret ? names->secret
                                  : names->token);
    else if (names->expires_is_ms && cJSON_IsNumber(end) && end->valuedouble > 0 &&
             end->valuedouble < 1e15)
        expires_ms = (int64_t)end->valuedouble;
    else if (end && !cJSON_IsNull(end) &&
             (!cJSON_IsString(end) || !perf__aws_parse_time(end->valuestring, &expires_ms)))
        rc = perf__fail(PERF_EPROTOCOL, "%s: the answer's %s is not a time", what, names->expires);
    if (!rc)
        rc = perf_aws_keys_new(id, secret, token, expires_ms, &s->c->host.view, out);
    wipe(whole);
    return rc;
}

int perf__aws_json_text(const char *what, const char *text, size_t len, const char *name, char *out,
                        size_t size)
{
    cJSON *json = len <= ANSWER_MAX ? cJSON_ParseWithLength(text, len) : NULL;
    const char *value = text_of(json, name);
    size_t value_len = value ? strlen(value) : 0;
    int rc = PERF_OK;
    if (!cJSON_IsObject(json) || value_len >= size) {
        rc = perf__fail(PERF_EPROTOCOL, "%s is not what it should be", what);
    } else {
        memcpy(out, value ? value : "", value_len);
        out[value_len] = '\0';
    }
    wipe(json);
    return rc;
}

/* ---------------------------------------------------------------------- HTTP */

static int client(struct perf__aws_search *s, bool direct, perf_http **out)
{
    perf_aws_credentials *c = s->c;
    perf_http **own = direct ? &c->direct_http : &c->own_http;
    perf_http_options options = PERF_HTTP_OPTIONS_INIT;
    int rc = PERF_OK;
    options.host = &c->host.view;
    options.max_connections = 4;
    options.proxy = direct ? "" : NULL;
    if (!direct && c->given_http)
        own = &c->given_http;
    if (!*own)
        rc = perf_http_open(&options, own);
    *out = *own;
    return rc;
}

static bool is_worth_again(int rc, perf_http_reply *reply)
{
    if (rc)
        return rc == PERF_EUNAVAILABLE || rc == PERF_EIO || rc == PERF_ETIMEDOUT ||
               rc == PERF_EPROTOCOL || rc == PERF_EBUSY;
    int64_t status = perf_http_reply_status(reply);
    return status >= 500 || status == 429;
}

int perf__aws_ask(struct perf__aws_search *s, const struct perf__aws_question *q,
                  perf_http_reply **out)
{
    perf_http *http;
    perf_http_reply *reply = NULL;
    perf_http_request request = PERF_HTTP_REQUEST_INIT;
    int rc = client(s, q->direct, &http);
    if (rc)
        return rc;
    request.method = q->method;
    request.url = q->url;
    request.headers = q->headers;
    request.header_count = q->header_count;
    request.body = q->body;
    request.max_body_bytes = ANSWER_MAX;
    for (int attempt = 1;; attempt++) {
        request.timeout_ms = perf__aws_left_ms(s, q->timeout_ms);
        if (request.timeout_ms < 1)
            return perf__fail(PERF_ETIMEDOUT, "%s: no time is left; give more", q->what);
        reply = NULL;
        rc = perf_http_perform(http, &request, &reply);
        int64_t pause = ((int64_t)50 << attempt) + (int64_t)(perf__thread_random() % 50);
        if (!is_worth_again(rc, reply) || attempt >= q->attempts ||
            perf__aws_left_ms(s, 3600000) <= pause)
            break;
        if (!rc)
            perf_http_reply_release(reply);
        nanosleep(&(struct timespec){pause / 1000, pause % 1000 * 1000000}, NULL);
    }
    if (!rc && perf_http_reply_status(reply) >= 500) {
        rc = perf__fail(PERF_EUNAVAILABLE, "%s: the service answered with status %lld", q->what,
                        (long long)perf_http_reply_status(reply));
        perf_http_reply_release(reply);
    }
    if (!rc)
        *out = reply;
    return rc;
}

/* --------------------------------------------------------------------- files */

int perf__aws_file_read(const perf_allocator *allocator, const char *path, char **out)
{
    char *text = perf__calloc(allocator, 1, FILE_MAX + 1);
    size_t len = 0;
    ssize_t n = 1;
    int rc = PERF_OK, fd = -1;
    if (!text)
        return perf__fail_nomem("a token file");
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (fd >= 0 && n > 0 && len < FILE_MAX)
        if ((n = read(fd, text + len, FILE_MAX - len)) > 0)
            len += (size_t)n;
    if (fd < 0 || n < 0)
        rc = perf__fail(PERF_EIO, "%.200s cannot be read: %s", path, strerror(errno));
    else if (len == FILE_MAX)
        rc = perf__fail(PERF_EINVAL, "%.200s is larger than a token's file may be", path);
    if (fd >= 0)
        close(fd);
    while (len && (text[len - 1] == '\n' || text[len - 1] == '\r' || text[len - 1] == ' '))
        text[--len] = '\0';
    if (rc)
        perf__aws_file_free(allocator, text);
    else
        *out = text;
    return rc;
}

void perf__aws_file_free(const perf_allocator *allocator, char *text)
{
    if (text)
        OPENSSL_cleanse(text, FILE_MAX);
    perf__free(allocator, text);
}
