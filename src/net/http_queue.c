/* SPDX-License-Identifier: MIT */
/*
 * http_queue.c - which request may go out now, and which one next.
 *
 * Requests to one host go in the order they came. Hosts that wait take turns,
 * so that a slow one does not keep the others from their connections. The queue
 * is ours and not curl's: there, waiting cannot be bounded or told apart from
 * connecting. All with the client's mutex held.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "http.h"

enum { KNOWN_HOSTS_MAX = 1024 }; /* beyond, a host is forgotten with its last request */

#define uthash_secret http->secret

static struct perf__http_host *find_host(perf_http *http, const char *name)
{
    const perf_allocator *uthash_allocator = &http->host.allocator;
    struct perf__http_host *host;
    size_t len = strlen(name);
    HASH_FIND(hh, http->hosts, name, len, host);
    if (host)
        return host;
    host = perf__calloc(uthash_allocator, 1, sizeof *host + len + 1);
    if (!host)
        return NULL;
    memcpy(host->name, name, len + 1);
    TAILQ_INIT(&host->waiting);
    bool uthash_oom = false;
    HASH_ADD(hh, http->hosts, name, len, host);
    if (uthash_oom) {
        perf__free(uthash_allocator, host);
        return NULL;
    }
    return host;
}

static void forget_host(perf_http *http, struct perf__http_host *host)
{
    const perf_allocator *uthash_allocator = &http->host.allocator;
    HASH_DELETE(hh, http->hosts, host);
    perf__free(uthash_allocator, host);
}

void perf__http_hosts_free(perf_http *http)
{
    struct perf__http_host *host, *next;
    HASH_ITER (hh, http->hosts, host, next)
        forget_host(http, host);
}

static void let_in(perf_http *http, perf_http_call *call)
{
    call->stage = PERF__HTTP_ADMITTED;
    call->host->active++;
    http->active++;
    TAILQ_INSERT_TAIL(&http->inbox, call, queue);
}

int perf__http_admit(perf_http *http, perf_http_call *call)
{
    struct perf__http_host *host = find_host(http, call->name);
    if (!host)
        return perf__fail_nomem("a host's queue");
    call->host = host;
    if (TAILQ_EMPTY(&host->waiting) && host->active < http->options.max_host_connections &&
        http->active < http->options.max_connections) {
        let_in(http, call);
        return PERF_OK;
    }
    if (http->stats.queued >= http->options.max_queue)
        return perf__fail(PERF_EBUSY,
                          "%llu requests wait for a connection, which is max_queue; %llu of "
                          "max_connections are under way, %llu of max_host_connections to %.100s",
                          (unsigned long long)http->stats.queued, (unsigned long long)http->active,
                          (unsigned long long)host->active, call->name);
    if (TAILQ_EMPTY(&host->waiting))
        TAILQ_INSERT_TAIL(&http->turns, host, turn);
    TAILQ_INSERT_TAIL(&host->waiting, call, queue);
    call->stage = PERF__HTTP_WAITING;
    http->stats.queued++;
    return PERF_OK;
}

/* Takes a waiting call out of its host's queue. */
static void leave_queue(perf_http *http, perf_http_call *call)
{
    TAILQ_REMOVE(&call->host->waiting, call, queue);
    if (TAILQ_EMPTY(&call->host->waiting))
        TAILQ_REMOVE(&http->turns, call->host, turn);
    http->stats.queued--;
}

static void let_next_in(perf_http *http)
{
    struct perf__http_host *host, *next;
    for (host = TAILQ_FIRST(&http->turns); host; host = next) {
        next = TAILQ_NEXT(host, turn);
        if (http->active >= http->options.max_connections)
            return;
        if (host->active >= http->options.max_host_connections)
            continue;
        perf_http_call *call = TAILQ_FIRST(&host->waiting);
        leave_queue(http, call);
        let_in(http, call);
        if (!TAILQ_EMPTY(&host->waiting)) { /* to the end of the line */
            TAILQ_REMOVE(&http->turns, host, turn);
            TAILQ_INSERT_TAIL(&http->turns, host, turn);
        }
        return;
    }
}

void perf__http_depart(perf_http *http, perf_http_call *call)
{
    struct perf__http_host *host = call->host;
    call->host = NULL;
    if (call->stage == PERF__HTTP_WAITING) {
        call->host = host;
        leave_queue(http, call);
        call->host = NULL;
    } else {
        if (call->stage == PERF__HTTP_ADMITTED)
            TAILQ_REMOVE(&http->inbox, call, queue);
        host->active--;
        http->active--;
        let_next_in(http);
    }
    call->stage = PERF__HTTP_OVER;
    if (!host->active && TAILQ_EMPTY(&host->waiting) && HASH_COUNT(http->hosts) > KNOWN_HOSTS_MAX)
        forget_host(http, host);
}
