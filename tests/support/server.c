/* SPDX-License-Identifier: MIT */
/*
 * server.c - the life of a test server: ports, process, guard, readiness, end.
 *
 * Everything is started by posix_spawn, which the sanitizers and threads survive where fork would
 * not. The guard holds the reading end of a pipe whose only writing end is the test's: at its end
 * of file the test is gone, or has forgotten the server, and the guard ends the server's process
 * group. A port is reserved by binding an abstract Unix socket with its number as name, which the
 * kernel forgets together with the process: no lock file can stay behind.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Kernels hand out 32,768 and above to clients unless told otherwise. */
#define PORT_FIRST 10240
#define PORT_COUNT 22528

static _Thread_local char why[1024];

extern char **environ;

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

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

/* ------------------------------------------------------------------------ ports */

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

static bool port_is_free(int port)
{
    struct sockaddr_in at = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    bool free;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    free = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
    close(fd);
    return free;
}

/* Returns the socket that reserves the port, or -1. */
static int reserve(int port)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int n = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "libperf-test-port-%d", port);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&name, len) != 0 || !port_is_free(port))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool reserve_ports(struct test_server *s, int count)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    unsigned at = (unsigned)t.tv_nsec ^ ((unsigned)getpid() * 2654435761u);
    for (int i = 0; i < count; i++) {
        for (int tries = 0; tries < 1000 && s->reserved[i] < 0; tries++) {
            s->ports[i] = PORT_FIRST + (int)(at % PORT_COUNT);
            s->reserved[i] = reserve(s->ports[i]);
            at = at * 1664525u + 1013904223u;
        }
        if (s->reserved[i] < 0)
            return test_server_fail("no free port");
    }
    s->port = s->ports[0];
    return true;
}

bool test_port_accepts(int port)
{
    struct sockaddr_in at = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool accepts = fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
    if (fd >= 0)
        close(fd);
    return accepts;
}

/* ------------------------------------------------------------- files and programs */

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

/*
 * Starts a program with its input from `input` (or nothing), its output into the file `log` (or
 * where ours goes), no other descriptor, and the signals as they are at birth.
 */
static pid_t spawn(const struct test_server *s, char *const argv[], int input, const char *log)
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

/* The last lines of a file, in why, behind a heading. */
static void why_from_file(const char *heading, const char *path)
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
    pid_t pid = spawn(s, (char *const *)argv, -1, log);
    if (pid < 0)
        return false;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status == 0)
        return true;
    snprintf(heading, sizeof heading, "%s failed:", argv[0]);
    why_from_file(heading, log);
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

/* ------------------------------------------------------------------------ guard */

/* $1: signal, $2: directory, $3: name. Its input: the server's id, then "keep" or "remove". */
static const char guard_script[] =
    "read -r pid || exit 0\n"
    "if read -r word; then\n"
    "    [ \"$word\" = keep ] || rm -rf \"$2\"\n"
    "    exit 0\n"
    "fi\n"
    "{ kill -s \"$1\" -- \"-$pid\"; kill -CONT -- \"-$pid\"; } 2>/dev/null\n"
    "i=0\n"
    "while kill -0 -- \"-$pid\" 2>/dev/null && [ $i -lt 20 ]; do sleep 0.05; i=$((i + 1)); done\n"
    "kill -KILL -- \"-$pid\" 2>/dev/null\n"
    "echo \"$3 was left behind by its test; the end of its log:\"\n"
    "tail -n 20 \"$2/log\" | sed \"s/^/    $3: /\"\n"
    "rm -rf \"$2\"\n";

static bool start_guard(struct test_server *s)
{
    int ends[2];
    char signal_number[8];
    int stop = s->kind->stop_signal ? s->kind->stop_signal : SIGKILL;
    snprintf(signal_number, sizeof signal_number, "%d", stop);
    char *argv[] = {"sh",          "-c",   (char *)guard_script,  "guard",
                    signal_number, s->dir, (char *)s->kind->name, NULL};
    if (pipe2(ends, O_CLOEXEC) != 0)
        return test_server_fail("pipe: %s", strerror(errno));
    s->guard = spawn(NULL, argv, ends[0], NULL);
    close(ends[0]);
    if (s->guard < 0) {
        s->guard = 0;
        close(ends[1]);
        return false;
    }
    s->to_guard = ends[1];
    return true;
}

static void tell_guard(struct test_server *s, const char *line)
{
    if (s->to_guard >= 0 && write(s->to_guard, line, strlen(line)) < 0)
        fprintf(stderr, "%s: its guard is gone\n", s->kind->name);
}

static void end_guard(struct test_server *s, const char *word)
{
    if (s->to_guard < 0)
        return;
    tell_guard(s, word);
    close(s->to_guard);
    s->to_guard = -1;
    while (waitpid(s->guard, NULL, 0) < 0 && errno == EINTR)
        ;
    s->guard = 0;
}

/* ------------------------------------------------------------------ start and end */

/* Whether the process ended within ms; then it is reaped. */
static bool ended(struct test_server *s, int ms)
{
    for (int64_t until = now_ms() + ms;; sleep_ms(2)) {
        pid_t pid = waitpid(s->pid, NULL, WNOHANG);
        if (pid == s->pid || (pid < 0 && errno == ECHILD)) {
            kill(-s->pid, SIGKILL); /* what it may have left of its group */
            s->pid = 0;
            return true;
        }
        if (now_ms() >= until)
            return false;
    }
}

static void end(struct test_server *s, int signal_number, const char *word)
{
    if (s->pid) {
        kill(-s->pid, signal_number);
        kill(-s->pid, SIGCONT);
        if (!ended(s, 5000)) {
            kill(-s->pid, SIGKILL);
            ended(s, 60000);
        }
    }
    end_guard(s, word);
}

static bool all_ports_accept(const struct test_server *s)
{
    int count = s->kind->ports ? s->kind->ports : 1;
    for (int i = 0; i < count; i++)
        if (s->reserved[i] >= 0 && !test_port_accepts(s->ports[i]))
            return false;
    return true;
}

static bool launch(struct test_server *s)
{
    char line[32], heading[100];
    char *argv[TEST_SERVER_ARGS + 4] = {"setpriv", "--reuid=nobody", "--regid=nogroup",
                                        "--clear-groups"};
    bool drop = s->kind->as_nobody && geteuid() == 0;
    int deadline = s->kind->deadline_ms ? s->kind->deadline_ms : 10000;
    int64_t until = now_ms() + deadline;
    char log[sizeof s->dir + 8];

    snprintf(log, sizeof log, "%s/log", s->dir);
    memcpy(argv + (drop ? 4 : 0), s->args, sizeof s->args);
    if (!start_guard(s))
        return false;
    s->pid = spawn(s, argv, -1, log);
    if (s->pid < 0) {
        s->pid = 0;
        return false;
    }
    snprintf(line, sizeof line, "%d\n", (int)s->pid);
    tell_guard(s, line);
    for (;;) {
        why[0] = 0;
        if (all_ports_accept(s) && (!s->kind->ready || s->kind->ready(s)))
            return true;
        if (ended(s, 0)) {
            snprintf(heading, sizeof heading, "%s ended by itself:", s->kind->name);
            why_from_file(heading, log);
            return false;
        }
        if (now_ms() > until) {
            snprintf(heading, sizeof heading, "%s not ready after %d ms (%.50s):", s->kind->name,
                     deadline, why);
            why_from_file(heading, log);
            return false;
        }
        sleep_ms(10);
    }
}

struct test_server *test_server_start(const struct test_server_kind *kind, const void *given)
{
    struct test_server *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->kind = kind;
    s->given = given;
    s->to_guard = -1;
    for (int i = 0; i < TEST_SERVER_PORTS; i++)
        s->reserved[i] = -1;
    snprintf(s->dir, sizeof s->dir, "/tmp/libperf-%s-XXXXXX", kind->name);
    if (!mkdtemp(s->dir)) {
        test_server_fail("%s: %s", s->dir, strerror(errno));
        s->dir[0] = 0;
        goto out;
    }
    if (!reserve_ports(s, kind->ports ? kind->ports : 1))
        goto out;
    snprintf(s->url, sizeof s->url, "%s://127.0.0.1:%d", kind->scheme ? kind->scheme : "http",
             s->port);
    if (kind->as_nobody && geteuid() == 0) {
        struct passwd *nobody = getpwnam("nobody");
        if (!nobody || chown(s->dir, nobody->pw_uid, nobody->pw_gid) != 0) {
            test_server_fail("%s: no user nobody", kind->name);
            goto out;
        }
    }
    if ((!kind->prepare || kind->prepare(s)) && launch(s)) {
        s->given = NULL; /* the starter's, from here on */
        return s;
    }
out:
    fprintf(stderr, "%s\n", why);
    test_server_stop(s);
    return NULL;
}

void test_server_stop(struct test_server *s)
{
    if (!s)
        return;
    end(s, s->kind->stop_signal ? s->kind->stop_signal : SIGKILL, "remove\n");
    if (s->dir[0] && access(s->dir, F_OK) == 0) { /* it did not come to a guard, or was killed */
        char *argv[] = {"rm", "-rf", s->dir, NULL};
        pid_t pid = spawn(NULL, argv, -1, NULL);
        while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    for (int i = 0; i < TEST_SERVER_PORTS; i++)
        if (s->reserved[i] >= 0)
            close(s->reserved[i]);
    for (int i = 0; i < TEST_SERVER_ARGS; i++) {
        free(s->args[i]);
        free(s->env[i]);
    }
    free(s);
}

void test_server_kill(struct test_server *s)
{
    end(s, SIGKILL, "keep\n");
}

bool test_server_restart(struct test_server *s)
{
    test_server_kill(s);
    if (launch(s))
        return true;
    fprintf(stderr, "%s\n", why);
    test_server_kill(s);
    return false;
}

void test_server_pause(struct test_server *s)
{
    int status;
    if (!s->pid)
        return;
    kill(-s->pid, SIGSTOP);
    while (waitpid(s->pid, &status, WUNTRACED) < 0 && errno == EINTR)
        ;
}

void test_server_resume(struct test_server *s)
{
    if (s->pid)
        kill(-s->pid, SIGCONT);
}

void test_server_log(const struct test_server *s)
{
    char before[sizeof why], heading[100];
    memcpy(before, why, sizeof why);
    snprintf(heading, sizeof heading, "the log of %s ends with:", s->kind->name);
    why_from_file(heading, test_server_file(s, "log"));
    fprintf(stderr, "%s\n", why);
    memcpy(why, before, sizeof why);
}
