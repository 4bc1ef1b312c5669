/* SPDX-License-Identifier: MIT */
/*
 * aws_fixture.h - a home directory with AWS's shared files, an environment without
 * AWS's variables, and a log that keeps its lines, to be searched for secrets.
 */
#ifndef TESTS_AWS_FIXTURE_H
#define TESTS_AWS_FIXTURE_H

#include <libperf/aws_auth.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "seams.h"
#include "test.h"

/* Part of every secret of these tests. */
#define TEST_SECRET_MARK "Sup3rS3cret"

struct aws_home {
    struct test_host th;
    const perf_host *host;
    char *file; /* its directory is HOME */
    char dir[256];
    pthread_mutex_t mutex;
    size_t logged;
    char log[32768];
};

static void aws_home_log(void *ctx, int level, const char *module, const char *message)
{
    struct aws_home *h = ctx;
    (void)level, (void)module;
    pthread_mutex_lock(&h->mutex);
    int n = snprintf(h->log + h->logged, sizeof h->log - h->logged, "%s\n", message);
    if (n > 0 && h->logged + (size_t)n < sizeof h->log)
        h->logged += (size_t)n;
    pthread_mutex_unlock(&h->mutex);
}

static inline const char *aws_home_path(struct aws_home *h, const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", h->dir, name);
    return path;
}

static inline void aws_home_write(struct aws_home *h, const char *name, const char *text)
{
    FILE *f = fopen(aws_home_path(h, name), "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

static inline void aws_home_begin(struct aws_home *h, const char *config, const char *credentials)
{
    memset(h, 0, sizeof *h);
    pthread_mutex_init(&h->mutex, NULL);
    h->host = test_host_init(&h->th);
    h->th.log.ctx = h;
    h->th.log.write = aws_home_log;
    h->th.log.max_level = PERF_LOG_DEBUG;
    h->file = test_temp_file("unused");
    snprintf(h->dir, sizeof h->dir, "%.*s", (int)(strrchr(h->file, '/') - h->file), h->file);
    test_unset_all("AWS_");
    setenv("HOME", h->dir, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    mkdir(aws_home_path(h, ".aws"), 0700);
    if (config)
        aws_home_write(h, ".aws/config", config);
    if (credentials)
        aws_home_write(h, ".aws/credentials", credentials);
}

/* No secret came out, nothing is left. */
static inline void aws_home_end(struct aws_home *h)
{
    cr_assert_null(strstr(h->log, TEST_SECRET_MARK), "%s", h->log);
    cr_assert_null(strstr(perf_last_error(), TEST_SECRET_MARK), "%s", perf_last_error());
    cr_assert_eq(h->th.live, 0, "%lld blocks are left", (long long)h->th.live);
    test_unset_all("AWS_");
    test_remove_dir_of(h->file);
    pthread_mutex_destroy(&h->mutex);
}

static inline perf_aws_credentials *aws_home_open(struct aws_home *h, const char *profile)
{
    perf_aws_credentials_options options = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
    perf_aws_credentials *c = NULL;
    options.profile = profile;
    options.host = h->host;
    cr_assert_eq(perf_aws_credentials_open(&options, &c), PERF_OK, "%s", perf_last_error());
    return c;
}

/* Opens, gets once, and checks id and source; or the code and a part of its sentence. */
static inline void aws_home_gives(struct aws_home *h, const char *profile, const char *id,
                                  const char *source)
{
    perf_aws_keys *keys = NULL;
    perf_aws_credentials *c = aws_home_open(h, profile);
    cr_assert_eq(perf_aws_credentials_get(c, 0, &keys), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_aws_keys_id(keys), id);
    cr_assert(strstr(perf_aws_keys_secret(keys), TEST_SECRET_MARK));
    cr_assert_str_eq(perf_aws_credentials_source(c), source);
    perf_aws_keys_release(keys);
    perf_aws_credentials_close(c);
}

static inline void aws_home_fails(struct aws_home *h, const char *profile, int code,
                                  const char *why)
{
    perf_aws_keys *keys = NULL;
    perf_aws_credentials *c = aws_home_open(h, profile);
    int rc = perf_aws_credentials_get(c, 0, &keys);
    cr_assert_eq(rc, code, "%s: %s", perf_strstatus(rc), perf_last_error());
    cr_assert(strstr(perf_last_error(), why), "%s", perf_last_error());
    cr_assert_null(strstr(perf_last_error(), TEST_SECRET_MARK), "%s", perf_last_error());
    cr_assert_null(keys);
    perf_aws_credentials_close(c);
}

#endif
