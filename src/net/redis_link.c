/* SPDX-License-Identifier: MIT */
/* redis_link.c - opening and closing a link, and what others ask of it; redis_link_impl.h tells how
 * one works. */
#include "redis_link_impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"

static int copy_strings(struct perf__redis_link *link)
{
    struct perf__redis_link_options *o = &link->options;
    const char **const fields[] = {&o->server_name, &o->user, &o->password, &o->client_name};
    enum { FIELDS = sizeof fields / sizeof *fields };
    size_t size = 1;
    for (int i = 0; i < FIELDS; i++)
        size += *fields[i] ? strlen(*fields[i]) + 1 : 0;
    char *at = link->strings = perf__alloc(link->allocator, size);
    if (!at)
        return PERF_ENOMEM;
    for (int i = 0; i < FIELDS; i++) {
        if (!*fields[i])
            continue;
        size = strlen(*fields[i]) + 1;
        *fields[i] = memcpy(at, *fields[i], size);
        at += size;
    }
    return PERF_OK;
}

static void free_link(struct perf__redis_link *link)
{
    const perf_allocator *a = link->allocator;
    perf__redis_parser_free(&link->parser);
    perf__free(a, link->out.bytes);
    perf__free(a, link->sending.bytes);
    perf__free(a, link->greeting.bytes);
    perf__free(a, link->ring);
    perf__free(a, link->input);
    perf__free(a, link->strings);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->mutex);
    perf__free(a, link);
}

int perf__redis_link_open(struct perf__redis_loop *loop,
                          const struct perf__redis_link_options *options,
                          struct perf__redis_link **out)
{
    const perf_allocator *a = &perf__redis_loop_host(loop)->allocator;
    struct perf__redis_link *link = perf__calloc(a, 1, sizeof *link);
    if (!link || pthread_mutex_init(&link->mutex, NULL)) {
        perf__free(a, link);
        return perf__fail_nomem("a Redis connection");
    }
    if (perf__cond_init(&link->changed)) {
        pthread_mutex_destroy(&link->mutex);
        perf__free(a, link);
        return perf__fail_nomem("a Redis connection");
    }
    link->loop = loop;
    link->allocator = a;
    link->options = *options;
    link->fd = -1;
    link->finished_end = &link->finished;
    link->next_deadline = link->timer_ns = INT64_MAX;
    link->flights = 1;
    link->connected_to = options->address;
    snprintf(link->label, sizeof link->label, "redis %.60s", options->address.host);
    perf__redis_parser_init(&link->parser, a, options->max_reply_bytes);
    link->input = perf__alloc(a, PERF__REDIS_READ);
    if (!link->input || copy_strings(link)) {
        free_link(link);
        return perf__fail_nomem("a Redis connection");
    }
    int rc = perf__redis_loop_add(link);
    if (rc) {
        free_link(link);
        return rc;
    }
    *out = link;
    return PERF_OK;
}

void perf__redis_link_stop(struct perf__redis_link *link)
{
    if (!link)
        return;
    pthread_mutex_lock(&link->mutex);
    link->closing = true;
    perf__redis_attend(link);
    while (!link->closed)
        pthread_cond_wait(&link->changed, &link->mutex);
    pthread_mutex_unlock(&link->mutex);
}

void perf__redis_link_close(struct perf__redis_link *link)
{
    if (!link)
        return;
    perf__redis_link_stop(link);
    while (atomic_load(&link->inside)) /* they were woken, and only have to leave */
        nanosleep(&(struct timespec){0, 100000}, NULL);
    perf__redis_loop_remove(link);
    perf__redis_call_finished(link);
    free_link(link);
}

int perf__redis_link_start(struct perf__redis_link *link)
{
    pthread_mutex_lock(&link->mutex);
    bool idle = link->state == PERF__REDIS_IDLE;
    if (idle)
        link->state = PERF__REDIS_PAUSED;
    pthread_mutex_unlock(&link->mutex);
    if (idle)
        perf__redis_attend(link);
    return PERF_OK;
}

void perf__redis_link_reconnect(struct perf__redis_link *link)
{
    pthread_mutex_lock(&link->mutex);
    link->reconnect = true;
    perf__redis_break(link, PERF_EIO, "the connection was left for a new one");
    pthread_mutex_unlock(&link->mutex);
    perf__redis_attend(link);
}

bool perf__redis_link_is_up(struct perf__redis_link *link)
{
    pthread_mutex_lock(&link->mutex);
    bool up = link->state == PERF__REDIS_IS_UP;
    pthread_mutex_unlock(&link->mutex);
    return up;
}

void perf__redis_link_address(struct perf__redis_link *link, struct perf__redis_address *out)
{
    pthread_mutex_lock(&link->mutex);
    *out = link->connected_to;
    pthread_mutex_unlock(&link->mutex);
}

void perf__redis_link_stats(struct perf__redis_link *link, perf_redis_stats *stats)
{
    pthread_mutex_lock(&link->mutex);
    const perf_redis_stats *s = &link->stats;
    stats->commands += s->commands;
    stats->replies += s->replies;
    stats->error_replies += s->error_replies;
    stats->timeouts += s->timeouts;
    stats->rejected += s->rejected;
    stats->pending += link->tail - link->head;
    stats->writes += s->writes;
    stats->reads += atomic_load(&link->reads);
    stats->bytes_sent += s->bytes_sent;
    stats->bytes_received += atomic_load(&link->bytes_in);
    stats->connects += s->connects;
    stats->connect_failures += s->connect_failures;
    stats->lost += s->lost;
    stats->connected += link->state == PERF__REDIS_IS_UP;
    pthread_mutex_unlock(&link->mutex);
}
