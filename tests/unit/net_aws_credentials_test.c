/* SPDX-License-Identifier: MIT */
/*
 * net_aws_credentials_test.c - the sources of keys that need no server, their order, and refreshing
 * ahead of the end under a clock that the tests move.
 */
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "../../src/net/aws_answer.h"
#include "aws_fixture.h"

#define SECRET(n) TEST_SECRET_MARK n

Test(net_aws_credentials, environment_comes_first)
{
    struct aws_home h;
    aws_home_begin(
        &h, "[profile p]\nregion = x\n",
        "[default]\naws_access_key_id = AFILE\naws_secret_access_key = " SECRET(
            "F") "\n[p]\naws_access_key_id = AP\naws_secret_access_key = " SECRET("P") "\naws_"
                                                                                       "session_"
                                                                                       "token "
                                                                                       "= " SECRET(
                                                                                           "T") "\n");
    aws_home_gives(&h, NULL, "AFILE", "shared-file");
    setenv("AWS_ACCESS_KEY_ID", "AENV", 1);
    aws_home_fails(&h, NULL, PERF_EACCESS, "AWS_SECRET_ACCESS_KEY");
    setenv("AWS_SECRET_ACCESS_KEY", SECRET("E"), 1);
    aws_home_gives(&h, NULL, "AENV", "environment");
    setenv("AWS_PROFILE", "p", 1); /* does not remove the environment; a named profile does */
    aws_home_gives(&h, NULL, "AENV", "environment");
    aws_home_gives(&h, "p", "AP", "shared-file");
    aws_home_gives(&h, "default", "AFILE", "shared-file");
    setenv("AWS_CREDENTIAL_EXPIRATION", "soon", 1);
    aws_home_fails(&h, NULL, PERF_EINVAL, "AWS_CREDENTIAL_EXPIRATION");
    setenv("AWS_CREDENTIAL_EXPIRATION", "1999-01-01T00:00:00Z", 1);
    aws_home_fails(&h, NULL, PERF_EACCESS, "expired");
    aws_home_end(&h);
}

Test(net_aws_credentials, files_and_their_order)
{
    struct aws_home h;
    aws_home_begin(
        &h,
        "[default]\naws_access_key_id = ACONFIG\naws_secret_access_key = " SECRET(
            "C") "\n[profile half]\naws_access_key_id = AHALF\n[profile none]\nregion = r\n"
                 "[profile both]\naws_access_key_id = ABOTH\naws_secret_access_key = " SECRET(
                     "B") "\ncredential_process = /bin/false\n",
        NULL);
    aws_home_gives(&h, NULL, "ACONFIG", "config-file");
    aws_home_fails(&h, "half", PERF_EACCESS, "aws_secret_access_key");
    aws_home_fails(&h, "none", PERF_EACCESS, "none");
    aws_home_fails(&h, "both", PERF_EACCESS,
                   "credential_process"); /* it outranks the config file */
    perf_aws_credentials_options options = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
    perf_aws_credentials *c = NULL;
    options.profile = "absent";
    cr_assert_eq(perf_aws_credentials_open(&options, &c), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "absent"));
    aws_home_write(&h, ".aws/credentials", "[default]\naws_secret_access_key " SECRET("X") "\n");
    options.profile = NULL;
    cr_assert_eq(perf_aws_credentials_open(&options, &c), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "credentials:2:"), "%s", perf_last_error());
    aws_home_end(&h);
}

Test(net_aws_credentials, roles_that_lead_nowhere)
{
    struct aws_home h;
    aws_home_begin(&h,
                   "[profile a]\nrole_arn = arn:a\nsource_profile = b\n"
                   "[profile b]\nrole_arn = arn:b\nsource_profile = c\n"
                   "[profile c]\nrole_arn = arn:c\nsource_profile = a\n"
                   "[profile self]\nrole_arn = arn:s\nsource_profile = self\n"
                   "[profile gone]\nrole_arn = arn:s\nsource_profile = nobody\n"
                   "[profile two]\nrole_arn = arn:s\nsource_profile = a\ncredential_source = "
                   "Environment\n"
                   "[profile zero]\nrole_arn = arn:s\n"
                   "[profile env]\nrole_arn = arn:s\ncredential_source = Environment\n"
                   "[profile odd]\nrole_arn = arn:s\ncredential_source = Elsewhere\n"
                   "[profile mfa]\nrole_arn = arn:s\nsource_profile = a\nmfa_serial = 1\n"
                   "[profile time]\nrole_arn = arn:s\nsource_profile = a\nduration_seconds = 1h\n"
                   "[profile bare]\nrole_arn = arn:s\nsource_profile = empty\n"
                   "[profile empty]\nregion = r\n"
                   "[profile web]\nweb_identity_token_file = /nonexistent\nrole_arn = arn:w\n"
                   "[profile web2]\nweb_identity_token_file = /nonexistent\n",
                   NULL);
    aws_home_fails(&h, "a", PERF_EINVAL, "circle");
    aws_home_fails(&h, "self", PERF_EINVAL, "circle");
    aws_home_fails(&h, "gone", PERF_EINVAL, "nobody");
    aws_home_fails(&h, "two", PERF_EINVAL, "both");
    aws_home_fails(&h, "zero", PERF_EINVAL, "none");
    aws_home_fails(&h, "env", PERF_EACCESS, "Environment");
    aws_home_fails(&h, "odd", PERF_EINVAL, "credential_source");
    aws_home_fails(&h, "mfa", PERF_EUNSUPPORTED, "mfa_serial");
    aws_home_fails(&h, "time", PERF_EINVAL, "duration_seconds");
    aws_home_fails(&h, "bare", PERF_EACCESS, "empty");
    aws_home_fails(&h, "web", PERF_EIO, "/nonexistent");
    aws_home_fails(&h, "web2", PERF_EINVAL, "AWS_ROLE_ARN");
    aws_home_end(&h);
}

Test(net_aws_credentials, process)
{
    struct aws_home h;
    static char config[4096];
    char dir[512];
    aws_home_begin(&h, NULL, NULL);
    snprintf(dir, sizeof dir, "%s", h.dir);
    snprintf(config, sizeof config,
             "[default]\ncredential_process = /bin/sh \"%s/a script.sh\" 'one two' th\\ ree\n"
             "[profile fails]\ncredential_process = /bin/sh -c 'echo " SECRET(
                 "E") " >&2; exit 3'\n"
                      "[profile absent]\ncredential_process = /nonexistent/program\n"
                      "[profile quote]\ncredential_process = /bin/sh -c 'exit\n"
                      "[profile version]\ncredential_process = echo '{\"Version\": 2}'\n"
                      "[profile garbage]\ncredential_process = echo " SECRET(
                          "G") "\n"
                               "[profile endless]\ncredential_process = /bin/sh -c 'yes " SECRET(
                                   "Y") "'\n"
                                        "[profile hangs]\ncredential_process = /bin/sh -c 'sleep "
                                        "60 & sleep 60'\n",
             dir);
    aws_home_write(&h, ".aws/config", config);
    aws_home_write(&h, "a script.sh",
                   "[ \"$1\" = 'one two' ] && [ \"$2\" = 'th ree' ] && [ $# = 2 ] || exit 1\n"
                   "echo '{\"Version\": 1, \"AccessKeyId\": \"APROC\", \"SecretAccessKey\": "
                   "\"" SECRET("P") "\", \"SessionToken\": \"" SECRET(
                       "T") "\", "
                            "\"Expiration\": \"2126-01-31T12:00:00+01:00\"}'\n");
    aws_home_gives(&h, NULL, "APROC", "process");
    aws_home_fails(&h, "fails", PERF_EACCESS, "status 3");
    aws_home_fails(&h, "absent", PERF_EACCESS, "cannot be run");
    aws_home_fails(&h, "quote", PERF_EINVAL, "quote");
    aws_home_fails(&h, "version", PERF_EPROTOCOL, "Version");
    aws_home_fails(&h, "garbage", PERF_EPROTOCOL, "JSON");
    aws_home_fails(&h, "endless", PERF_EPROTOCOL, "too much");
    perf_aws_credentials *c = aws_home_open(&h, "hangs");
    perf_aws_keys *keys = NULL;
    cr_assert_eq(perf_aws_credentials_get(c, 200, &keys), PERF_ETIMEDOUT);
    perf_aws_credentials_close(c);
    cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1, "a child is left");
    aws_home_end(&h);
}

/* ------------------------------------------------------- refreshing, by a provider */

struct source {
    struct aws_home *h;
    _Atomic int calls, fails, life_s, busy, pause;
};

static int give_keys(void *ctx, int64_t timeout_ms, perf_aws_keys **out)
{
    struct source *s = ctx;
    (void)timeout_ms;
    cr_assert_eq(atomic_fetch_add(&s->busy, 1), 0, "two searches at a time");
    int call = atomic_fetch_add(&s->calls, 1) + 1;
    while (atomic_load(&s->pause))
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    char id[32];
    snprintf(id, sizeof id, "AKEY%d", call);
    int rc = PERF_EUNAVAILABLE;
    if (!atomic_load(&s->fails))
        rc = perf_aws_keys_new(id, SECRET("V"), NULL,
                               atomic_load(&s->h->th.realtime_ms) + s->life_s * 1000LL, s->h->host,
                               out);
    atomic_fetch_sub(&s->busy, 1);
    return rc;
}

static perf_aws_credentials *open_source(struct aws_home *h, struct source *s)
{
    perf_aws_credentials_options options = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
    perf_aws_credentials_provider provider = PERF_AWS_CREDENTIALS_PROVIDER_INIT;
    perf_aws_credentials *c = NULL;
    memset(s, 0, sizeof *s);
    s->h = h;
    s->life_s = 3600;
    provider.ctx = s;
    provider.get = give_keys;
    options.provider = &provider;
    options.host = h->host;
    cr_assert_eq(perf_aws_credentials_open(&options, &c), PERF_OK, "%s", perf_last_error());
    return c;
}

static void has(perf_aws_credentials *c, const char *id)
{
    perf_aws_keys *keys = NULL;
    int rc = perf_aws_credentials_get(c, 1000, &keys);
    if (!id) {
        cr_assert_neq(rc, PERF_OK);
        return;
    }
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_aws_keys_id(keys), id);
    perf_aws_keys_release(keys);
}

static void peeks(perf_aws_credentials *c, const char *id, int64_t wanted)
{
    perf_aws_keys *keys = NULL;
    int64_t refresh = -1;
    cr_assert_eq(perf_aws_credentials_peek(c, &keys, &refresh), id ? PERF_OK : PERF_MISS);
    cr_assert_eq(refresh, wanted);
    if (id)
        cr_assert_str_eq(perf_aws_keys_id(keys), id);
    perf_aws_keys_release(keys);
}

Test(net_aws_credentials, refreshed_ahead)
{
    struct aws_home h;
    struct source s;
    aws_home_begin(&h, NULL, NULL);
    perf_aws_credentials *c = open_source(&h, &s);
    cr_assert_str_eq(perf_aws_credentials_source(c), "");
    peeks(c, NULL, 1);
    has(c, "AKEY1");
    cr_assert_str_eq(perf_aws_credentials_source(c), "provider");
    peeks(c, "AKEY1", 0);
    test_host_advance(&h.th, 44 * 60000);
    has(c, "AKEY1");
    test_host_advance(&h.th, 60000); /* a quarter of an hour is left */
    peeks(c, "AKEY1", 1);
    has(c, "AKEY2");
    peeks(c, "AKEY2", 0);
    cr_assert_eq(s.calls, 2);
    perf_aws_credentials_close(c);
    aws_home_end(&h);
}

/* A role for 15 minutes is not asked for anew by every call. */
Test(net_aws_credentials, short_lives_are_refreshed_in_their_last_quarter)
{
    struct aws_home h;
    struct source s;
    aws_home_begin(&h, NULL, NULL);
    perf_aws_credentials *c = open_source(&h, &s);
    s.life_s = 900;
    for (int i = 0; i < 11; i++) {
        has(c, "AKEY1");
        test_host_advance(&h.th, 60000);
    }
    peeks(c, "AKEY1", 0);
    test_host_advance(&h.th, 15000);
    peeks(c, "AKEY1", 1);
    has(c, "AKEY2");
    cr_assert_eq(s.calls, 2);
    perf_aws_credentials_close(c);
    aws_home_end(&h);
}

Test(net_aws_credentials, failing_refreshes_keep_the_old_ones)
{
    struct aws_home h;
    struct source s;
    aws_home_begin(&h, NULL, NULL);
    perf_aws_credentials *c = open_source(&h, &s);
    has(c, "AKEY1");
    s.fails = 1;
    test_host_advance(&h.th, 46 * 60000);
    has(c, "AKEY1");
    cr_assert_eq(s.calls, 2);
    peeks(c, "AKEY1", 0); /* not at once again */
    has(c, "AKEY1");
    cr_assert_eq(s.calls, 2);
    test_host_advance(&h.th, 2000);
    has(c, "AKEY1");
    cr_assert_eq(s.calls, 3);
    for (int i = 0; i < 12; i++) { /* it backs off no longer than a minute */
        int calls = s.calls;
        test_host_advance(&h.th, 61000);
        has(c, "AKEY1");
        cr_assert_gt(s.calls, calls);
    }
    test_host_advance(&h.th, 3 * 60000);
    has(c, NULL); /* now they have ended */
    peeks(c, NULL, 0);
    s.fails = 0;
    test_host_advance(&h.th, 6000);
    perf_aws_keys *keys = NULL;
    cr_assert_eq(perf_aws_credentials_get(c, 0, &keys), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_aws_keys_expires_ms(keys), h.th.realtime_ms + 3600000);
    perf_aws_keys_release(keys);
    perf_aws_credentials_close(c);
    aws_home_end(&h);
}

Test(net_aws_credentials, refused_keys_are_replaced)
{
    struct aws_home h;
    struct source s;
    perf_aws_keys *keys = NULL;
    aws_home_begin(&h, NULL, NULL);
    perf_aws_credentials *c = open_source(&h, &s);
    cr_assert_eq(perf_aws_credentials_get(c, 0, &keys), PERF_OK);
    cr_assert_eq(perf_aws_credentials_reject(c, keys), PERF_OK);
    peeks(c, NULL, 1);
    has(c, "AKEY2");
    cr_assert_eq(perf_aws_credentials_reject(c, keys), PERF_OK); /* not the present ones */
    peeks(c, "AKEY2", 0);
    perf_aws_keys_release(keys);
    perf_aws_credentials_close(c);
    aws_home_end(&h);
}

static void *get_in_thread(void *ctx)
{
    perf_aws_keys *keys = NULL;
    int rc = perf_aws_credentials_get(ctx, 5000, &keys);
    intptr_t number = rc ? rc : perf_aws_keys_id(keys)[4] - '0';
    perf_aws_keys_release(keys);
    return (void *)number;
}

Test(net_aws_credentials, one_refreshes_while_others_go_on)
{
    struct aws_home h;
    struct source s;
    pthread_t threads[8];
    void *number;
    aws_home_begin(&h, NULL, NULL);
    perf_aws_credentials *c = open_source(&h, &s);
    s.pause = 1; /* nobody has keys: all wait for the one that asks */
    for (int i = 0; i < 8; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, get_in_thread, c), 0);
    perf_aws_keys *keys = NULL;
    while (!s.calls)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    cr_assert_eq(perf_aws_credentials_get(c, 20, &keys), PERF_ETIMEDOUT);
    s.pause = 0;
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], &number);
        cr_assert_eq((intptr_t)number, 1);
    }
    cr_assert_eq(s.calls, 1);
    test_host_advance(&h.th, 55 * 60000);
    s.pause = 1;
    cr_assert_eq(pthread_create(&threads[0], NULL, get_in_thread, c), 0);
    while (s.calls < 2)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    has(c, "AKEY1"); /* does not wait */
    peeks(c, "AKEY1", 0);
    s.pause = 0;
    pthread_join(threads[0], &number);
    cr_assert_eq((intptr_t)number, 2);
    has(c, "AKEY2");
    perf_aws_credentials_close(c);
    aws_home_end(&h);
}

Test(net_aws_credentials, options_are_checked)
{
    perf_aws_credentials_options options = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
    perf_aws_credentials_provider provider = PERF_AWS_CREDENTIALS_PROVIDER_INIT;
    perf_aws_credentials *c = NULL;
    perf_aws_keys *keys = NULL;
    cr_assert_eq(perf_aws_credentials_open(&options, NULL), PERF_EINVAL);
    options.timeout_ms = -1;
    cr_assert_eq(perf_aws_credentials_open(&options, &c), PERF_EINVAL);
    options.timeout_ms = 0;
    options.provider = &provider;
    cr_assert_eq(perf_aws_credentials_open(&options, &c), PERF_EINVAL);
    options.profile = "x";
    cr_assert_eq(perf_aws_credentials_open(&options, &c), PERF_EINVAL);
    cr_assert_null(c);
    cr_assert_eq(perf_aws_credentials_get(NULL, 0, &keys), PERF_EINVAL);
    cr_assert_eq(perf_aws_credentials_peek(NULL, &keys, NULL), PERF_EINVAL);
    cr_assert_eq(perf_aws_credentials_close(NULL), PERF_OK);
}

Test(net_aws_credentials, a_forked_child_is_told)
{
    struct aws_home h;
    struct source s;
    aws_home_begin(&h, NULL, NULL);
    perf_aws_credentials *c = open_source(&h, &s);
    has(c, "AKEY1");
    pid_t pid = fork();
    if (!pid) {
        perf_aws_keys *keys;
        int ok = perf_aws_credentials_get(c, 0, &keys) == PERF_EFORKED &&
                 perf_aws_credentials_peek(c, &keys, NULL) == PERF_EFORKED;
        perf_aws_credentials_close(c);
        _exit(ok ? 0 : 1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    cr_assert_eq(status, 0);
    perf_aws_credentials_close(c);
    aws_home_end(&h);
}

Test(net_aws_credentials, every_allocation_may_fail)
{
    struct aws_home h;
    aws_home_begin(&h,
                   "[default]\ncredential_process = echo '{\"Version\": 1, \"AccessKeyId\": "
                   "\"A\", \"SecretAccessKey\": \"" SECRET("S") "\"}'\n",
                   NULL);
    int rc = PERF_ENOMEM;
    for (int i = 1; rc && i < 40; i++) {
        perf_aws_credentials_options options = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
        perf_aws_credentials *c = NULL;
        perf_aws_keys *keys = NULL;
        options.host = h.host;
        h.th.fail_at = i;
        rc = perf_aws_credentials_open(&options, &c);
        if (!rc)
            rc = perf_aws_credentials_get(c, 0, &keys);
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "%s", perf_last_error());
        perf_aws_keys_release(keys);
        perf_aws_credentials_close(c);
        cr_assert_eq(h.th.live, 0);
    }
    cr_assert_eq(rc, PERF_OK);
    h.th.fail_at = 0;
    aws_home_end(&h);
}

Test(net_aws_credentials, times)
{
    int64_t ms = 0;
    cr_assert(perf__aws_parse_time("1970-01-01T00:00:01Z", &ms) && ms == 1000);
    cr_assert(perf__aws_parse_time("2015-08-30T12:36:00Z", &ms) && ms == 1440938160000);
    cr_assert(perf__aws_parse_time("2015-08-30T14:36:00.25+02:00", &ms) && ms == 1440938160250);
    cr_assert(perf__aws_parse_time("2016-02-29T00:00:00UTC", &ms) && ms == 1456704000000);
    const char *bad[] = {"",
                         "2015",
                         "2015-08-30",
                         "2015-13-30T12:36:00Z",
                         "2015-08-30T12:36:00",
                         "2015-08-30T12:36:00Zx",
                         "1969-12-31T23:59:59Z",
                         "2015-08-30T25:00:00Z"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert(!perf__aws_parse_time(bad[i], &ms), "%s", bad[i]);
}
