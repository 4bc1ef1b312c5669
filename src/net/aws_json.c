/* SPDX-License-Identifier: MIT */
/*
 * aws_json.c - reading JSON (RFC 8259) where it lies. Any thread; no memory.
 */
#include "aws_json.h"

#include <string.h>

#include "../base/status.h"

struct scan {
    const char *at, *end;
};

static void skip_blanks(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

static int hex4(const char *at, const char *end)
{
    int value = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = at[i], low = (char)(c | 32);
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (low >= 'a' && low <= 'f')
            value = value * 16 + (low - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* From behind the opening quote to behind the closing one. */
static bool skip_string(struct scan *s)
{
    while (s->at < s->end) {
        unsigned char c = (unsigned char)*s->at++;
        if (c == '"')
            return true;
        if (c < ' ')
            return false;
        if (c != '\\')
            continue;
        if (s->at == s->end)
            return false;
        c = (unsigned char)*s->at++;
        if (c == 'u') {
            if (hex4(s->at, s->end) < 0)
                return false;
            s->at += 4;
        } else if (!c || !strchr("\"\\/bfnrt", c)) {
            return false;
        }
    }
    return false;
}

static bool skip_digits(struct scan *s)
{
    const char *from = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return s->at > from;
}

static bool skip_number(struct scan *s)
{
    if (*s->at == '-')
        s->at++;
    bool zero = s->at < s->end && *s->at == '0';
    const char *from = s->at;
    if (!skip_digits(s) || (zero && s->at - from > 1))
        return false;
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        if (!skip_digits(s))
            return false;
    }
    if (s->at < s->end && (*s->at | 32) == 'e') {
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-'))
            s->at++;
        return skip_digits(s);
    }
    return true;
}

static bool skip_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0)
        return false;
    s->at += len;
    return true;
}

static bool skip_scalar(struct scan *s)
{
    switch (*s->at) {
    case '"':
        s->at++;
        return skip_string(s);
    case 't':
        return skip_word(s, "true");
    case 'f':
        return skip_word(s, "false");
    case 'n':
        return skip_word(s, "null");
    default:
        return skip_number(s);
    }
}

/* A member's name and its colon. */
static bool skip_name(struct scan *s)
{
    skip_blanks(s);
    if (s->at == s->end || *s->at++ != '"' || !skip_string(s))
        return false;
    skip_blanks(s);
    return s->at < s->end && *s->at++ == ':';
}

/* One value, without recursion: a bit for each level says whether it is an object. */
static bool skip_value(struct scan *s)
{
    uint8_t is_object[PERF__JSON_DEPTH];
    size_t depth = 0;
    for (;;) {
        skip_blanks(s);
        if (s->at == s->end)
            return false;
        if (*s->at == '{' || *s->at == '[') {
            bool object = *s->at++ == '{';
            if (depth == PERF__JSON_DEPTH)
                return false;
            is_object[depth++] = object;
            skip_blanks(s);
            if (s->at == s->end)
                return false;
            if (*s->at != (object ? '}' : ']')) {
                if (object && !skip_name(s))
                    return false;
                continue;
            }
            s->at++;
            depth--;
        } else if (!skip_scalar(s)) {
            return false;
        }
        for (;;) { /* a value has ended; so may those around it */
            if (!depth)
                return true;
            skip_blanks(s);
            if (s->at == s->end)
                return false;
            char c = *s->at++;
            if (c == ',') {
                if (is_object[depth - 1] && !skip_name(s))
                    return false;
                break;
            }
            if (c != (is_object[depth - 1] ? '}' : ']'))
                return false;
            depth--;
        }
    }
}

int perf__json_check(int code, const char *what, const void *text, size_t len, char kind,
                     struct perf__json *out)
{
    struct scan s = {text, (const char *)text + len};
    *out = (struct perf__json){"", 0};
    if (!text || !len)
        return perf__fail(code, "%s is empty where JSON is expected", what);
    skip_blanks(&s);
    const char *from = s.at;
    bool valid = skip_value(&s);
    const char *to = s.at;
    if (valid)
        skip_blanks(&s);
    if (!valid || s.at != s.end)
        return perf__fail(code, "%s is no JSON of at most %d levels: see byte %zu of %zu", what,
                          PERF__JSON_DEPTH, (size_t)(s.at - (const char *)text), len);
    if (kind && *from != kind)
        return perf__fail(code, "%s is no JSON %s", what, kind == '{' ? "object" : "array");
    *out = (struct perf__json){from, (size_t)(to - from)};
    return PERF_OK;
}

bool perf__json_next(struct perf__json container, size_t *at, struct perf__json *name,
                     struct perf__json *value)
{
    if (container.len < 2 || (container.at[0] != '{' && container.at[0] != '['))
        return false;
    struct scan s = {container.at + (*at ? *at : 1), container.at + container.len - 1};
    if (*at >= container.len)
        return false;
    skip_blanks(&s);
    if (s.at >= s.end || (*at && *s.at++ != ','))
        return false;
    skip_blanks(&s);
    if (container.at[0] == '{') {
        const char *from = s.at;
        if (s.at >= s.end || *s.at++ != '"' || !skip_string(&s))
            return false;
        if (name)
            *name = (struct perf__json){from + 1, (size_t)(s.at - from) - 2};
        skip_blanks(&s);
        if (s.at >= s.end || *s.at++ != ':')
            return false;
        skip_blanks(&s);
    }
    const char *from = s.at;
    if (!skip_value(&s))
        return false;
    *value = (struct perf__json){from, (size_t)(s.at - from)};
    *at = (size_t)(s.at - container.at);
    return true;
}

bool perf__json_find(struct perf__json object, const char *name, char kind,
                     struct perf__json *value)
{
    struct perf__json n, v;
    size_t at = 0, len = strlen(name);
    if (object.len < 2 || object.at[0] != '{')
        return false;
    while (perf__json_next(object, &at, &n, &v))
        if (n.len == len && !memcmp(n.at, name, len)) {
            if (kind && v.at[0] != kind)
                return false;
            *value = v;
            return true;
        }
    return false;
}

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
        return out;
    }
    if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *out++ = (char)(0xe0 | c >> 12);
        } else {
            *out++ = (char)(0xf0 | c >> 18);
            *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        }
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
    }
    *out++ = (char)(0x80 | (c & 0x3f));
    return out;
}

/* What stands behind \u; perhaps with a second half. */
static uint32_t read_unicode(const char **at, const char *end)
{
    int first = hex4(*at, end);
    if (first < 0)
        return 0xfffd;
    *at += 4;
    if (first < 0xd800 || first > 0xdfff)
        return (uint32_t)first;
    if (first > 0xdbff || end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u')
        return 0xfffd;
    int second = hex4(*at + 2, end);
    if (second < 0xdc00 || second > 0xdfff)
        return 0xfffd;
    *at += 6;
    return 0x10000 + ((uint32_t)(first - 0xd800) << 10) + (uint32_t)(second - 0xdc00);
}

size_t perf__json_text(struct perf__json string, char *out)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    char *put = out;
    if (string.len < 2 || string.at[0] != '"') {
        if (string.len)
            *out = 0;
        return 0;
    }
    const char *at = string.at + 1, *end = string.at + string.len - 1;
    while (at < end) {
        if (*at != '\\') {
            *put++ = *at++;
            continue;
        }
        if (++at == end)
            break;
        char c = *at++;
        const char *known = c ? strchr(from, c) : NULL;
        if (c == 'u') /* a \u escape: 6 bytes become at most 3, or 12 become 4 */
            put = put_utf8(put, read_unicode(&at, end));
        else
            *put++ = known ? to[known - from] : c;
    }
    *put = 0;
    return (size_t)(put - out);
}

void perf__json_short(struct perf__json string, char *out, size_t size)
{
    size_t n = 0;
    if (string.len >= 2 && string.at[0] == '"')
        for (; n < string.len - 2 && n + 1 < size; n++) {
            char c = string.at[n + 1];
            out[n] = c >= ' ' && c <= '~' ? c : '?';
        }
    out[n] = 0;
}

bool perf__json_uint(struct perf__json value, uint64_t *out)
{
    const char *at = value.at;
    size_t len = value.len;
    uint64_t n = 0;
    if (len >= 2 && at[0] == '"') {
        at++;
        len -= 2;
    }
    if (!len || len > 19)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (at[i] < '0' || at[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(at[i] - '0');
    }
    *out = n;
    return true;
}

int64_t perf__json_thousandths(struct perf__json value)
{
    int64_t n = 0;
    int decimals = -1;
    for (size_t i = 0; i < value.len && n < INT64_MAX / 100000; i++) {
        char c = value.at[i];
        if (c == '.' && decimals < 0) {
            decimals = 0;
        } else if (c < '0' || c > '9') {
            return 0;
        } else if (decimals < 3) {
            n = n * 10 + (c - '0');
            decimals += decimals >= 0;
        }
    }
    for (decimals = decimals < 0 ? 0 : decimals; decimals < 3; decimals++)
        n *= 10;
    return n;
}
