/* SPDX-License-Identifier: MIT */
/*
 * server_program.c - what test servers need of programs and files: starting, running, installing,
 * and why something failed.
 *
 * Programs are started by posix_spawn, which the sanitizers and threads survive where fork would
 * not.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static _Thread_local char why[1024];

const char *test_server_why(void)
{
    return why;
}

bool test_server_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return false;
}

const char *test_server_root(void)
{
    static _Thread_local char root[512];
    char probe[600];
    ssize_t n = readlink("/proc/self/exe", root, sizeof root - 1);
    if (n < 0)
        return ".";
    root[n] = 0;
    for (char *slash; (slash = strrchr(root, '/'));) {
        *slash = 0;
        snprintf(probe, sizeof probe, "%s/tests/support/deps.sh", root);
        if (access(probe, F_OK) == 0)
            return root;
    }
    return ".";
}

const char *test_server_file(const struct test_server *s, const char *name)
{
    static _Thread_local char path[256];
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    return path;
}

bool test_server_write(struct test_server *s, const char *name, const char *text)
{
    FILE *f = fopen(test_server_file(s, name), "w");
    if (!f || fputs(text, f) < 0)
        return test_server_fail("%s: %s: %s", s->kind->name, name, strerror(errno));
    return fclose(f) == 0 || test_server_fail("%s: %s: %s", s->kind->name, name, strerror(errno));
}

static void append(char **list, const char *format, va_list args)
{
    int i = 0;
    while (list[i])
        i++;
    if (i == TEST_SERVER_ARGS - 1 || vasprintf(&list[i], format, args) < 0)
        abort();
}

void test_server_arg(struct test_server *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    append(s->args, format, args);
    va_end(args);
}

void test_server_env(struct test_server *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    append(s->env, format, args);
    va_end(args);
}

static char **environment(const struct test_server *s)
{
    size_t theirs = 0, ours = 0;
    while (environ[theirs])
        theirs++;
    while (s && s->env[ours])
        ours++;
    char **all = calloc(theirs + ours + 1, sizeof *all);
    if (!all)
        abort();
    if (ours)
        memcpy(all, s->env, ours * sizeof *all);
    memcpy(all + ours, environ, theirs * sizeof *all);
    return all;
}

pid_t test_server_spawn(const struct test_server *s, char *const argv[], int input, const char *log)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t all, none;
    pid_t pid = 0;
    char **env = environment(s);
    int rc;

    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawn_file_actions_init(&files);
    if (input >= 0)
        posix_spawn_file_actions_adddup2(&files, input, 0);
    else
        posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (log) {
        posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0666);
        posix_spawn_file_actions_adddup2(&files, 1, 2);
    } else {
        posix_spawn_file_actions_adddup2(&files, 2, 1);
    }
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    if (s)
        posix_spawn_file_actions_addchdir_np(&files, s->dir);
    rc = posix_spawnp(&pid, argv[0], &files, &attributes, argv, env);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    free(env);
    if (rc) {
        test_server_fail("%s: %s", argv[0], strerror(rc));
        return -1;
    }
    return pid;
}

void test_server_fail_with(const char *heading, const char *path)
{
    char text[700] = "";
    FILE *f = fopen(path, "r");
    if (f) {
        if (fseek(f, -(long)(sizeof text - 1), SEEK_END) != 0)
            rewind(f);
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
    }
    test_server_fail("%s\n%s", heading, text);
}

static bool run(const struct test_server *s, const char *const argv[], const char *log)
{
    char heading[200];
    int status = 0;
    pid_t pid = test_server_spawn(s, (char *const *)argv, -1, log);
    if (pid < 0)
        return false;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status == 0)
        return true;
    snprintf(heading, sizeof heading, "%s failed:", argv[0]);
    test_server_fail_with(heading, log);
    return false;
}

bool test_server_run(struct test_server *s, const char *const argv[])
{
    char log[sizeof s->dir + 8];
    const char *as_nobody[TEST_SERVER_ARGS + 4] = {"setpriv", "--reuid=nobody", "--regid=nogroup",
                                                   "--clear-groups"};
    snprintf(log, sizeof log, "%s/log", s->dir);
    if (s->kind->as_nobody && geteuid() == 0) {
        for (int i = 0; argv[i]; i++)
            as_nobody[4 + i] = argv[i];
        argv = as_nobody;
    }
    return run(s, argv, log);
}

bool test_server_install(const char *name)
{
    char script[600], log[] = "/tmp/libperf-install-XXXXXX";
    int fd = mkstemp(log);
    bool ok;
    if (fd < 0)
        return test_server_fail("/tmp: %s", strerror(errno));
    close(fd);
    snprintf(script, sizeof script, "%s/tests/support/servers/%s.sh", test_server_root(), name);
    ok = run(NULL, (const char *const[]){script, NULL}, log);
    unlink(log);
    return ok;
}

/* A CA, and two certificates for one key: the right names, and another one's. */
bool test_server_certificates(struct test_server *s)
{
    static const char script[] =
        "set -e\n"
        "key() { openssl ecparam -name prime256v1 -genkey -noout -out \"$1\"; }\n"
        "sign() {\n"
        "    openssl req -new -key key.pem -subj \"/CN=$2\" -out \"$1.csr\"\n"
        "    printf 'subjectAltName=%s\\n' \"$3\" >\"$1.ext\"\n"
        "    openssl x509 -req -in \"$1.csr\" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 "
        "\\\n"
        "        -extfile \"$1.ext\" -out \"$1.pem\"\n"
        "}\n"
        "key ca.key\n"
        "openssl req -x509 -new -key ca.key -days 30 -subj '/CN=libperf test CA' -out ca.pem\n"
        "key key.pem\n"
        "sign cert localhost DNS:localhost,IP:127.0.0.1\n"
        "sign other other.example DNS:other.example\n";
    return test_server_run(s, (const char *const[]){"sh", "-c", script, NULL});
}
