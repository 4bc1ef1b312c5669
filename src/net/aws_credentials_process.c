/* SPDX-License-Identifier: MIT */
/*
 * aws_credentials_process.c - keys from a program that a profile names by
 * credential_process.
 *
 * The line is cut into words by the shell's rules for quotes, but no shell runs
 * it. What the program prints is bounded, and so is its time: then its whole
 * process group is killed. Its messages go nowhere, for they may hold secrets.
 * Source: AWS SDKs and Tools Reference Guide, "Process credential provider".
 * Thread: the one that searches.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "aws_answer.h"
#include "aws_credentials.h"

enum { WORDS_MAX = 64, OUTPUT_MAX = 64 << 10, TIME_MAX_MS = 60000 };

/* Cuts line in place. False: a quote is not closed, or there are too many words. */
static bool cut_words(char *line, char *words[WORDS_MAX + 1])
{
    size_t count = 0;
    char *to = line;
    for (char *p = line;;) {
        while (*p == ' ' || (*p >= '\t' && *p <= '\r'))
            p++;
        if (!*p)
            break;
        if (count == WORDS_MAX)
            return false;
        words[count++] = to;
        char quote = '\0';
        for (; *p && (quote || !(*p == ' ' || (*p >= '\t' && *p <= '\r'))); p++) {
            if (!quote && (*p == '"' || *p == '\''))
                quote = *p;
            else if (quote && *p == quote)
                quote = '\0';
            else if (*p == '\\' &&
                     ((!quote && p[1]) || (quote == '"' && (p[1] == '"' || p[1] == '\\'))))
                *to++ = *++p;
            else
                *to++ = *p;
        }
        if (quote)
            return false;
        bool more = *p != '\0';
        if (more)
            p++; /* before the word's end is written over it */
        *to++ = '\0';
        if (!more)
            break;
    }
    words[count] = NULL;
    return count > 0;
}

static int start(char *const words[], int out_fd, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    if (posix_spawn_file_actions_init(&actions))
        return ENOMEM;
    int rc = posix_spawnattr_init(&attributes);
    if (rc) {
        posix_spawn_file_actions_destroy(&actions);
        return rc;
    }
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    rc = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (!rc)
        rc = posix_spawn_file_actions_adddup2(&actions, out_fd, 1);
    if (!rc)
        rc = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    if (!rc)
        rc = posix_spawnp(pid, words[0], &actions, &attributes, words, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* Reads to the end. *len: how much there is. */
static int collect(struct perf__aws_search *s, int fd, char *output, size_t *len)
{
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        int64_t left = perf__aws_left_ms(s, TIME_MAX_MS);
        int ready = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return perf__fail(PERF_ETIMEDOUT,
                              "the credential_process of profile '%.64s' did not "
                              "end in time",
                              s->profile);
        if (*len == OUTPUT_MAX)
            return perf__fail(PERF_EPROTOCOL,
                              "the credential_process of profile '%.64s' prints "
                              "too much",
                              s->profile);
        ssize_t n = read(fd, output + *len, OUTPUT_MAX - *len);
        if (n < 0 && errno != EINTR)
            return perf__fail(PERF_EIO, "reading from the credential_process failed: %s",
                              strerror(errno));
        if (n == 0)
            return PERF_OK;
        *len += n > 0 ? (size_t)n : 0;
    }
}

/* It has closed its output, or is to be killed. A host that ignores SIGCHLD takes the status
 * away; then what was printed decides. */
static int finish(struct perf__aws_search *s, pid_t pid, int rc)
{
    int status = 0;
    pid_t ended = 0;
    while (!rc && !(ended = waitpid(pid, &status, WNOHANG)) && perf__aws_left_ms(s, TIME_MAX_MS))
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    if (!ended) {
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            continue;
        return rc ? rc
                  : perf__fail(PERF_ETIMEDOUT,
                               "the credential_process of profile '%.64s' did "
                               "not end in time",
                               s->profile);
    }
    if (ended == pid && (!WIFEXITED(status) || WEXITSTATUS(status)))
        return perf__fail(PERF_EACCESS,
                          "the credential_process of profile '%.64s' failed with "
                          "status %d; run it by hand",
                          s->profile, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return PERF_OK;
}

int perf__aws_from_process(struct perf__aws_search *s, perf_aws_keys **out)
{
    static const struct perf__aws_answer_names names = {
        .id = "AccessKeyId",
        .secret = "SecretAccessKey",
        .token = "SessionToken",
        .expires = "Expiration",
        .has_version = true,
    };
    const perf_allocator *allocator = &s->c->host.allocator;
    const char *command = perf__aws_search_get(s, "credential_process");
    char *words[WORDS_MAX + 1], *line = NULL, *output = NULL;
    int fds[2] = {-1, -1}, rc = PERF_OK, error;
    size_t len = 0, line_len = command ? strlen(command) : 0;
    pid_t pid;
    if (!command)
        return PERF_MISS;
    line = perf__strndup(allocator, command, line_len);
    output = perf__alloc(allocator, OUTPUT_MAX);
    if (!line || !output) {
        rc = perf__fail_nomem("a credential_process");
    } else if (!cut_words(line, words)) {
        rc = perf__fail(PERF_EINVAL,
                        "the credential_process of profile '%.64s' has a quote that is "
                        "not closed, or too many words",
                        s->profile);
    } else if (pipe2(fds, O_CLOEXEC)) {
        rc = perf__fail(PERF_EIO, "no pipe for the credential_process: %s", strerror(errno));
    } else if ((error = start(words, fds[1], &pid))) {
        rc = perf__fail(PERF_EACCESS, "the credential_process of profile '%.64s' cannot be run: %s",
                        s->profile, strerror(error));
    } else {
        close(fds[1]);
        fds[1] = -1;
        rc = finish(s, pid, collect(s, fds[0], output, &len));
        if (!rc)
            rc = perf__aws_keys_from_json(s, "the credential_process", output, len, &names, out);
    }
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (output)
        OPENSSL_cleanse(output, OUTPUT_MAX);
    if (line)
        OPENSSL_cleanse(line, line_len);
    perf__free(allocator, output);
    perf__free(allocator, line);
    return rc;
}
