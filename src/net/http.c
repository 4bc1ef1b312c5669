/* SPDX-License-Identifier: MIT */
/*
 * http.c - opening and closing a client, its options and statistics.
 *
 * Nothing but memory is had before the first request. Any thread.
 */
#include "http.h"

#include <libperf/version.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "../base/sync.h"

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
#define VERSION_TEXT \
    TEXT(PERF_VERSION_MAJOR) "." TEXT(PERF_VERSION_MINOR) "." TEXT(PERF_VERSION_PATCH)

enum { DAY_MS = 86400000, WEEK_MS = 7 * DAY_MS, COUNT_MAX = 1 << 20 };

/* Process-wide: curl_global_init prepares libcurl and its TLS library for all threads, which curls
 * before 7.84 cannot do for two at once. It is never undone, for others may use libcurl, too. */
static pthread_once_t global_once = PTHREAD_ONCE_INIT;
static CURLcode global_result;

static void global_init(void)
{
    global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ------------------------------------------------------------------- options */

static void set_default(int64_t *field, int64_t value)
{
    *field = *field ? *field : value;
}

static void set_default_u(uint64_t *field, uint64_t value)
{
    *field = *field ? *field : value;
}

static int check_options(perf_http_options *o)
{
    set_default_u(&o->max_connections, 256);
    set_default_u(&o->max_host_connections, 64);
    set_default_u(&o->max_queue, 1024);
    set_default(&o->idle_timeout_ms, 50000);
    set_default(&o->max_lifetime_ms, 300000);
    set_default(&o->connect_timeout_ms, 3000);
    set_default(&o->timeout_ms, 30000);
    set_default_u(&o->min_bytes_per_s, 1);
    set_default(&o->stall_ms, 30000);
    set_default_u(&o->max_body_bytes, 64u << 20);
    set_default_u(&o->max_header_bytes, 256u << 10);
    set_default(&o->dns_ttl_ms, 5000);
    if (!o->user_agent)
        o->user_agent = "libperf/" VERSION_TEXT;
#define RANGE(field, min, max)                                                              \
    (rc = perf__check_range("perf_http_options." #field, (int64_t)o->field, (int64_t)(min), \
                            (int64_t)(max)))
    int rc;
    if (RANGE(version, PERF_HTTP_VERSION_AUTO, PERF_HTTP_VERSION_2) ||
        RANGE(max_connections, 1, COUNT_MAX) || RANGE(max_host_connections, 1, COUNT_MAX) ||
        RANGE(max_queue, 1, COUNT_MAX) || RANGE(idle_timeout_ms, 1, DAY_MS) ||
        RANGE(max_lifetime_ms, 1, WEEK_MS) || RANGE(connect_timeout_ms, 1, DAY_MS) ||
        RANGE(timeout_ms, 1, DAY_MS) || RANGE(first_byte_timeout_ms, 0, DAY_MS) ||
        RANGE(min_bytes_per_s, 1, INT64_MAX) || RANGE(stall_ms, 1, DAY_MS) ||
        RANGE(max_body_bytes, 1, INT64_MAX) || RANGE(max_header_bytes, 64, 1 << 30) ||
        RANGE(dns_ttl_ms, 1, DAY_MS) || RANGE(tls_insecure, 0, 1))
        return rc;
#undef RANGE
    if (strpbrk(o->user_agent, "\r\n"))
        return perf__fail(PERF_EINVAL, "perf_http_options.user_agent holds a line end");
    if (!o->client_cert_file != !o->client_key_file && !o->client_cert_file)
        return perf__fail(PERF_EINVAL, "perf_http_options.client_key_file is set without "
                                       "client_cert_file; give both");
    return PERF_OK;
}

static const char *environment(const char *lower, const char *upper)
{
    const char *value = getenv(lower);
    if (!value || !*value)
        value = upper ? getenv(upper) : NULL;
    return value && *value ? value : NULL;
}

/* Copies all strings of the options into one block. */
static int copy_strings(perf_http *http)
{
    perf_http_options *o = &http->options;
    bool ask = !o->proxy;
    http->http_proxy = http->https_proxy = o->proxy;
    if (ask) {
        /* As Go does: under CGI, HTTP_PROXY is what the client sent as "Proxy:". */
        http->http_proxy =
            environment("http_proxy", getenv("REQUEST_METHOD") ? NULL : "HTTP_PROXY");
        http->https_proxy = environment("https_proxy", "HTTPS_PROXY");
        http->no_proxy = environment("no_proxy", "NO_PROXY");
    }
    /* "" and not NULL: curl would ask the environment for each request. */
    if (!http->http_proxy)
        http->http_proxy = "";
    if (!http->https_proxy)
        http->https_proxy = "";
    const char **const fields[] = {&o->ca_file,         &o->ca_path,       &o->client_cert_file,
                                   &o->client_key_file, &o->proxy,         &o->user_agent,
                                   &o->unix_socket,     &http->http_proxy, &http->https_proxy,
                                   &http->no_proxy};
    enum { FIELDS = sizeof fields / sizeof *fields };
    size_t size = 1;
    for (int i = 0; i < FIELDS; i++)
        size += *fields[i] ? strlen(*fields[i]) + 1 : 0;
    char *at = http->strings = perf__alloc(&http->host.allocator, size);
    if (!at)
        return perf__fail_nomem("an HTTP client");
    for (int i = 0; i < FIELDS; i++) {
        if (!*fields[i])
            continue;
        size = strlen(*fields[i]) + 1;
        *fields[i] = memcpy(at, *fields[i], size);
        at += size;
    }
    return PERF_OK;
}

/* ------------------------------------------------------------- open and close */

void perf__http_unref(perf_http *http)
{
    if (atomic_fetch_sub(&http->refs, 1) != 1)
        return;
    pthread_cond_destroy(&http->thread_wakes);
    pthread_cond_destroy(&http->left);
    pthread_mutex_destroy(&http->mutex);
    perf_allocator allocator = http->host.allocator;
    perf__free(&allocator, http->strings);
    perf__free(&allocator, http);
}

int perf_http_open(const perf_http_options *options, perf_http **out)
{
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the client");
    perf_http_options own;
    struct perf__host host;
    int rc = perf__fork_arm();
    if (rc || (rc = perf__options_take("perf_http_options", options, &own, sizeof own)) ||
        (rc = check_options(&own)) || (rc = perf__host_take(own.host, &host)))
        return rc;
    pthread_once(&global_once, global_init);
    if (global_result)
        return perf__fail(PERF_ENOMEM, "libcurl cannot start: %s",
                          curl_easy_strerror(global_result));

    perf_http *http = perf__calloc(&host.allocator, 1, sizeof *http);
    if (!http)
        return perf__fail_nomem("an HTTP client");
    http->host = host;
    http->options = own;
    http->options.host = NULL;
    http->generation = perf__fork_generation;
    atomic_init(&http->refs, 1);
    http->done_fd = http->epoll_fd = http->wake_fd = -1;
    http->timer_ms = -1;
    http->next_check_ms = INT64_MAX;
    http->secret = perf__hash_random_key();
    unsigned curl = curl_version_info(CURLVERSION_NOW)->version_num;
    http->mask_sigpipe = curl < 0x075800;
    http->no_shared_h2c = curl >= 0x075700 && curl < 0x080000;
    TAILQ_INIT(&http->all);
    TAILQ_INIT(&http->inbox);
    TAILQ_INIT(&http->over);
    TAILQ_INIT(&http->waiters);
    TAILQ_INIT(&http->turns);
    if ((rc = copy_strings(http)))
        goto no_strings;
    if (pthread_mutex_init(&http->mutex, NULL)) {
        rc = perf__fail_nomem("an HTTP client");
        goto no_mutex;
    }
    if (perf__cond_init(&http->thread_wakes)) {
        rc = perf__fail_nomem("an HTTP client");
        goto no_cond;
    }
    if (perf__cond_init(&http->left)) {
        rc = perf__fail_nomem("an HTTP client");
        goto no_left;
    }
    *out = http;
    return PERF_OK;

no_left:
    pthread_cond_destroy(&http->thread_wakes);
no_cond:
    pthread_mutex_destroy(&http->mutex);
no_mutex:
    perf__free(&host.allocator, http->strings);
no_strings:
    perf__free(&host.allocator, http);
    return rc;
}

int perf_http_close(perf_http *http)
{
    if (!http)
        return PERF_OK;
    if (http->generation != perf__fork_generation) {
        /* Another process lives on these connections: no good-byes, and curl's memory stays. */
        perf__http_loop_abandon(http);
        return PERF_OK;
    }
    pthread_mutex_lock(&http->mutex);
    bool inside = perf__http_is_driver(http);
    pthread_mutex_unlock(&http->mutex);
    if (inside)
        return perf__fail(PERF_EDEADLK, "perf_http_close inside a callback of this client would "
                                        "wait for itself");
    perf__http_stop_thread(http);
    perf__http_loop_close(http);
    pthread_mutex_lock(&http->mutex);
    perf__http_hosts_free(http);
    if (http->done_fd >= 0)
        close(http->done_fd);
    http->done_fd = -1;
    pthread_mutex_unlock(&http->mutex);
    perf__http_unref(http);
    return PERF_OK;
}

int perf__http_check(perf_http *http)
{
    if (!http)
        return perf__fail(PERF_EINVAL, "http is NULL; open one by perf_http_open");
    return http->generation == perf__fork_generation ? PERF_OK : perf__fail_forked();
}

int perf_http_get_stats(perf_http *http, perf_http_stats *stats)
{
    size_t size = 0;
    int rc = perf__http_check(http);
    if (rc || (rc = perf__options_check_out("perf_http_stats", stats, &size)))
        return rc;
    pthread_mutex_lock(&http->mutex);
    perf_http_stats now = http->stats;
    pthread_mutex_unlock(&http->mutex);
    now.open_connections = atomic_load(&http->open_sockets);
    perf__options_give(stats, size, &now, sizeof now);
    return PERF_OK;
}
