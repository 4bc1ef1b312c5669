/* SPDX-License-Identifier: MIT */
/*
 * aws_credentials.c - the chain of sources, and keeping what it found.
 *
 * One caller refreshes; all others go on with the keys that are there as long
 * as these work, and wait for it only when they do not. The mutex is held for
 * looking and for exchanging a pointer, never while a source is asked.
 */
#include "aws_credentials.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"

enum {
    AHEAD_MS = 15 * 60000, /* before the end, or a quarter of a life that is short: a role for a
                              quarter of an hour would else be asked for by every call */
    BACKOFF_MAX_MS = 60000,
    BACKOFF_MANDATORY_MS = 5000,
    DEFAULT_TIMEOUT_MS = 10000,
    TIMEOUT_MAX_MS = 3600000,
};

static const struct {
    perf__aws_source_fn find;
    const char *name;
} chain[] = {
    {perf__aws_from_environment, "environment"},
    {perf__aws_from_role, "assume-role"},
    {perf__aws_from_web_identity, "web-identity"},
    {perf__aws_from_sso, "sso"},
    {perf__aws_from_credentials_file, "shared-file"},
    {perf__aws_from_process, "process"},
    {perf__aws_from_config_file, "config-file"},
    {perf__aws_from_container, "container"},
    {perf__aws_from_instance, "instance"},
};
enum { CHAIN = sizeof chain / sizeof *chain, PROFILE_FIRST = 2, PROFILE_LAST = 6 };

/* ------------------------------------------------------------ open and close */

static int check_options(const perf_aws_credentials_options *o)
{
    if (o->provider && o->profile)
        return perf__fail(PERF_EINVAL, "provider and profile exclude each other; give one");
    if (o->timeout_ms < 0 || o->timeout_ms > TIMEOUT_MAX_MS)
        return perf__check_range("timeout_ms", o->timeout_ms, 0, TIMEOUT_MAX_MS);
    if (o->region && strlen(o->region) >= sizeof((perf_aws_credentials *)0)->region)
        return perf__fail(PERF_EINVAL, "region is longer than any region's name");
    return PERF_OK;
}

int perf_aws_credentials_open(const perf_aws_credentials_options *options,
                              perf_aws_credentials **out)
{
    perf_aws_credentials_options o;
    struct perf__host host;
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_aws_credentials_open needs a place for the handle");
    int rc = perf__options_take("perf_aws_credentials_options", options, &o, sizeof o);
    if (!rc)
        rc = check_options(&o);
    if (!rc)
        rc = perf__host_take(o.host, &host);
    if (!rc)
        rc = perf__fork_arm();
    if (rc)
        return rc;
    perf_aws_credentials *c = perf__calloc(&host.allocator, 1, sizeof *c);
    if (!c)
        return perf__fail_nomem("AWS credentials");
    c->host = host;
    c->host.view = (perf_host){sizeof(perf_host), &c->host.allocator, &c->host.clock, &c->host.log};
    c->fork_generation = perf__fork_generation;
    c->timeout_ms = o.timeout_ms ? o.timeout_ms : DEFAULT_TIMEOUT_MS;
    c->given_http = o.http;
    c->source = "";
    if (o.provider) {
        rc = perf__options_take("perf_aws_credentials_provider", o.provider, &c->provider,
                                sizeof c->provider);
        if (!rc && !c->provider.get)
            rc = perf__fail(PERF_EINVAL, "the provider has no get");
    } else {
        rc = perf__aws_config_open(&c->host.allocator, o.profile, &c->config);
    }
    if (!rc) {
        const char *region = o.region ? o.region : NULL;
        if (!region && c->config)
            region = perf__aws_config_region(c->config);
        snprintf(c->region, sizeof c->region, "%s", region ? region : "us-east-1");
        rc = perf__cond_init(&c->changed);
    }
    if (rc) {
        perf__aws_config_close(c->config);
        perf__free(&host.allocator, c);
        return rc;
    }
    pthread_mutex_init(&c->mutex, NULL);
    *out = c;
    return PERF_OK;
}

int perf_aws_credentials_close(perf_aws_credentials *c)
{
    if (!c)
        return PERF_OK;
    perf_allocator allocator = c->host.allocator;
    if (c->fork_generation == perf__fork_generation) {
        pthread_mutex_destroy(&c->mutex);
        pthread_cond_destroy(&c->changed);
    }
    if (c->own_http)
        perf_http_close(c->own_http);
    if (c->direct_http)
        perf_http_close(c->direct_http);
    perf_aws_keys_release(c->keys);
    perf__aws_config_close(c->config);
    perf__free(&allocator, c);
    return PERF_OK;
}

/* ---------------------------------------------------------------- the search */

int64_t perf__aws_left_ms(const struct perf__aws_search *s, int64_t most)
{
    int64_t left = (s->deadline_ns - perf__now_ns(&perf__default_clock)) / 1000000;
    return left < 0 ? 0 : left < most ? left : most;
}

const char *perf__aws_search_get(const struct perf__aws_search *s, const char *key)
{
    const char *value = perf__aws_profiles_get(
        perf__aws_config_profiles(s->c->config), PERF__AWS_PROFILE, s->profile,
        PERF__AWS_CONFIG_FILE | PERF__AWS_CREDENTIALS_FILE, key, NULL);
    return value && *value ? value : NULL;
}

static int search_range(struct perf__aws_search *s, size_t first, size_t last, perf_aws_keys **out)
{
    int rc = PERF_MISS;
    for (size_t i = first; i <= last && rc == PERF_MISS; i++) {
        rc = chain[i].find(s, out);
        if (rc != PERF_MISS)
            s->source = chain[i].name;
    }
    return rc;
}

int perf__aws_from_profile(struct perf__aws_search *s, perf_aws_keys **out)
{
    return search_range(s, PROFILE_FIRST, PROFILE_LAST, out);
}

static int search(perf_aws_credentials *c, int64_t timeout_ms, perf_aws_keys **out,
                  const char **source)
{
    bool is_explicit = false;
    if (c->provider.get) {
        *source = "provider";
        int rc = c->provider.get(c->provider.ctx, timeout_ms, out);
        if (rc == PERF_OK && !*out)
            rc = perf__fail(PERF_EACCESS, "the provider of AWS credentials gave none");
        return rc <= 0 ? rc : perf__fail(PERF_EACCESS, "the provider of AWS credentials has none");
    }
    struct perf__aws_search s = {
        .c = c,
        .profile = perf__aws_config_profile(c->config, &is_explicit),
        .deadline_ns = perf__deadline_after(timeout_ms),
    };
    int rc = search_range(&s, is_explicit ? 1 : 0, CHAIN - 1, out);
    *source = s.source ? s.source : "";
    if (rc != PERF_MISS)
        return rc;
    return perf__fail(PERF_EACCESS,
                      "no AWS credentials: not in the environment, nor in profile '%.64s' of the "
                      "shared files, nor from a container or instance",
                      s.profile);
}

/* ------------------------------------------------------------------- keeping */

static int64_t left_of(const perf_aws_credentials *c)
{
    if (!c->keys || c->rejected)
        return 0;
    int64_t end = perf_aws_keys_expires_ms(c->keys);
    return end ? end - perf__realtime_ms(&c->host.clock) : INT64_MAX;
}

static bool is_refresh_due(const perf_aws_credentials *c, int64_t left)
{
    return left <= c->ahead_ms && !c->refreshing && perf__now_ns(&c->host.clock) >= c->retry_at_ns;
}

static int begin(perf_aws_credentials *c)
{
    if (!c)
        return perf__fail(PERF_EINVAL, "the handle of AWS credentials is NULL");
    return c->fork_generation == perf__fork_generation ? PERF_OK : perf__fail_forked();
}

/* With the mutex held: takes in what a search came to. */
static void take_in(perf_aws_credentials *c, int rc, perf_aws_keys *found, const char *source)
{
    c->refreshing = false;
    if (!rc) {
        perf_aws_keys_release(c->keys);
        c->keys = found;
        c->source = source;
        c->rejected = false;
        c->failures = 0;
        c->retry_at_ns = 0;
        int64_t life = left_of(c); /* the whole, or what a source had kept it for */
        c->ahead_ms = life / 4 < AHEAD_MS ? life / 4 : AHEAD_MS;
    } else {
        int64_t most = left_of(c) <= c->ahead_ms * 2 / 3 ? BACKOFF_MANDATORY_MS : BACKOFF_MAX_MS;
        int64_t wait = c->failures < 6 ? (int64_t)1000 << c->failures : most;
        wait = wait < most ? wait : most;
        wait -= (int64_t)(perf__thread_random() % (uint64_t)(wait / 4 + 1)); /* not all at once */
        c->failures++;
        c->retry_at_ns = perf__now_ns(&c->host.clock) + wait * 1000000;
        c->failure = rc;
        snprintf(c->why, sizeof c->why, "%s", perf_last_error());
    }
    pthread_cond_broadcast(&c->changed);
}

/* With the mutex held, which is given up meanwhile. */
static void refresh(perf_aws_credentials *c, int64_t timeout_ms)
{
    perf_aws_keys *found = NULL;
    const char *source = "";
    c->refreshing = true;
    pthread_mutex_unlock(&c->mutex);
    int rc = search(c, timeout_ms, &found, &source);
    int64_t end = rc ? 0 : perf_aws_keys_expires_ms(found);
    if (!rc && end && end <= perf__realtime_ms(&c->host.clock)) {
        perf_aws_keys_release(found);
        found = NULL;
        rc = perf__fail(PERF_EACCESS, "the AWS credentials from %s have expired", source);
    }
    if (rc)
        perf__log(&c->host.log, PERF_LOG_WARNING, "aws", "credentials: %s", perf_last_error());
    else
        perf__log(&c->host.log, PERF_LOG_INFO, "aws", "credentials come from %s", source);
    pthread_mutex_lock(&c->mutex);
    take_in(c, rc, found, source);
}

int perf_aws_credentials_get(perf_aws_credentials *c, int64_t timeout_ms, perf_aws_keys **out)
{
    int rc = begin(c);
    if (!rc && !out)
        rc = perf__fail(PERF_EINVAL, "perf_aws_credentials_get needs a place for the keys");
    if (!rc)
        rc = perf__check_range("timeout_ms", timeout_ms, 0, TIMEOUT_MAX_MS);
    if (rc)
        return rc;
    timeout_ms = timeout_ms ? timeout_ms : c->timeout_ms;
    int64_t deadline = perf__deadline_after(timeout_ms);
    bool searched = false;
    pthread_mutex_lock(&c->mutex);
    for (;;) {
        int64_t left = left_of(c);
        if (is_refresh_due(c, left) && !searched) {
            refresh(c, timeout_ms);
            searched = true;
        } else if (left > 0) {
            *out = perf_aws_keys_share(c->keys);
            break;
        } else if (c->refreshing) {
            if (!perf__cond_wait(&c->changed, &c->mutex, deadline) && c->refreshing) {
                rc = perf__fail(PERF_ETIMEDOUT,
                                "another thread is still looking for AWS "
                                "credentials; wait longer than %lld ms",
                                (long long)timeout_ms);
                break;
            }
        } else { /* found none, a moment ago */
            rc = perf__fail(c->failure, "%s", c->why);
            break;
        }
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

int perf_aws_credentials_peek(perf_aws_credentials *c, perf_aws_keys **out, int64_t *refresh_wanted)
{
    int rc = begin(c);
    if (!rc && !out)
        rc = perf__fail(PERF_EINVAL, "perf_aws_credentials_peek needs a place for the keys");
    if (rc)
        return rc;
    pthread_mutex_lock(&c->mutex);
    int64_t left = left_of(c);
    if (refresh_wanted)
        *refresh_wanted = is_refresh_due(c, left);
    if (left > 0)
        *out = perf_aws_keys_share(c->keys);
    pthread_mutex_unlock(&c->mutex);
    return left > 0 ? PERF_OK : PERF_MISS;
}

int perf_aws_credentials_reject(perf_aws_credentials *c, const perf_aws_keys *keys)
{
    int rc = begin(c);
    if (rc)
        return rc;
    pthread_mutex_lock(&c->mutex);
    if (keys && c->keys == keys)
        c->rejected = true;
    pthread_mutex_unlock(&c->mutex);
    return PERF_OK;
}

const char *perf_aws_credentials_source(perf_aws_credentials *c)
{
    if (begin(c))
        return "";
    pthread_mutex_lock(&c->mutex);
    const char *source = c->source;
    pthread_mutex_unlock(&c->mutex);
    return source;
}
