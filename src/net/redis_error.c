/* SPDX-License-Identifier: MIT */
/* redis_error.c - what the first word of an error reply means for a caller. Pure functions. */
#include <string.h>

#include "redis_link.h"

static const struct {
    const char *text; /* what the error begins with */
    int kind, status;
} errors[] = {
    {"NOAUTH", PERF_REDIS_ERROR_NOAUTH, PERF_EACCESS},
    {"WRONGPASS", PERF_REDIS_ERROR_WRONGPASS, PERF_EACCESS},
    {"ERR invalid password", PERF_REDIS_ERROR_WRONGPASS, PERF_EACCESS}, /* before 6.0 */
    {"ERR AUTH <password> called", PERF_REDIS_ERROR_WRONGPASS, PERF_EACCESS},
    {"ERR Client sent AUTH", PERF_REDIS_ERROR_WRONGPASS, PERF_EACCESS},
    {"NOPERM", PERF_REDIS_ERROR_NOPERM, PERF_EACCESS},
    {"OOM", PERF_REDIS_ERROR_OOM, PERF_ETHROTTLED},
    {"ERR max number of clients", PERF_REDIS_ERROR_MAXCLIENTS, PERF_ETHROTTLED},
    {"READONLY", PERF_REDIS_ERROR_READONLY, PERF_EUNAVAILABLE},
    {"LOADING", PERF_REDIS_ERROR_LOADING, PERF_EUNAVAILABLE},
    {"MASTERDOWN", PERF_REDIS_ERROR_MASTERDOWN, PERF_EUNAVAILABLE},
    {"CLUSTERDOWN", PERF_REDIS_ERROR_CLUSTERDOWN, PERF_EUNAVAILABLE},
    {"NOREPLICAS", PERF_REDIS_ERROR_NOREPLICAS, PERF_EUNAVAILABLE},
    {"BUSY", PERF_REDIS_ERROR_BUSY, PERF_EBUSY},
    {"TRYAGAIN", PERF_REDIS_ERROR_TRYAGAIN, PERF_EBUSY},
    {"NOSCRIPT", PERF_REDIS_ERROR_NOSCRIPT, PERF_EREMOTE},
    {"WRONGTYPE", PERF_REDIS_ERROR_WRONGTYPE, PERF_EREMOTE},
    {"MOVED", PERF_REDIS_ERROR_MOVED, PERF_EREMOTE},
    {"ASK", PERF_REDIS_ERROR_ASK, PERF_EREMOTE},
    {"CROSSSLOT", PERF_REDIS_ERROR_CROSSSLOT, PERF_EREMOTE},
    {"EXECABORT", PERF_REDIS_ERROR_EXECABORT, PERF_EREMOTE},
};

int perf__redis_error_status(const char *text, size_t len, int64_t *kind)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        size_t n = strlen(errors[i].text);
        if (len >= n && !memcmp(text, errors[i].text, n) &&
            (len == n || text[n] == ' ' || strchr(errors[i].text, ' '))) {
            *kind = errors[i].kind;
            return errors[i].status;
        }
    }
    *kind = PERF_REDIS_ERROR_OTHER;
    return PERF_EREMOTE;
}

int64_t perf_redis_error_kind(const char *text)
{
    int64_t kind;
    /* Errors begin with a word in capitals; sentences of our own do not. */
    size_t word = text ? strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") : 0;
    if (word < 2 || (text[word] && text[word] != ' '))
        return PERF_REDIS_ERROR_NONE;
    perf__redis_error_status(text, strlen(text), &kind);
    return kind;
}
