/* SPDX-License-Identifier: MIT */
/*
 * server.c - the life of a test server: ports, process, guard, readiness, end.
 *
 * The guard holds the reading end of a pipe whose only writing end is the test's: at its end
 * of file the test is gone, or has forgotten the server, and the guard ends the server's process
 * group. A port is reserved by binding an abstract Unix socket with its number as name, which the
 * kernel forgets together with the process: no lock file can stay behind.
 */
#include "server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
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
    "tail -n 8 \"$2/log\" | cut -c 1-160 | sed \"s/^/    $3: /\"\n"
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
    s->guard = test_server_spawn(NULL, argv, ends[0], NULL);
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

/* What a child's line in /proc says of its parent; 0 if it is gone. */
static pid_t parent_of(const char *pid)
{
    char path[300], line[512];
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    if (fgets(line, sizeof line, f)) {
        const char *name_end = strrchr(line, ')'); /* a name may hold anything */
        if (!name_end || sscanf(name_end + 1, " %*c %d", &parent) != 1)
            parent = 0;
    }
    fclose(f);
    return parent;
}

/*
 * Signals a process's descendants, then its group. PostgreSQL's processes make groups of their own;
 * the first is stopped meanwhile, so that it begets no more.
 */
static void signal_family(pid_t pid, pid_t group, int signal_number)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    if (signal_number != SIGCONT)
        kill(pid, SIGSTOP);
    while (proc && (entry = readdir(proc))) {
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && parent_of(entry->d_name) == pid)
            signal_family((pid_t)atoi(entry->d_name), 0, signal_number);
    }
    if (proc)
        closedir(proc);
    kill(group ? -group : pid, signal_number);
}

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
        if (signal_number != SIGKILL) {
            kill(-s->pid, signal_number);
            signal_family(s->pid, s->pid, SIGCONT);
            ended(s, 5000);
        }
        if (s->pid) {
            signal_family(s->pid, s->pid, SIGKILL);
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
    s->pid = test_server_spawn(s, argv, -1, log);
    if (s->pid < 0) {
        s->pid = 0;
        return false;
    }
    snprintf(line, sizeof line, "%d\n", (int)s->pid);
    tell_guard(s, line);
    for (;;) {
        test_server_fail("%s", "");
        if (all_ports_accept(s) && (!s->kind->ready || s->kind->ready(s)))
            return true;
        if (ended(s, 0)) {
            snprintf(heading, sizeof heading, "%s ended by itself:", s->kind->name);
            test_server_fail_with(heading, log);
            return false;
        }
        if (now_ms() > until) {
            snprintf(heading, sizeof heading, "%s not ready after %d ms (%.50s):", s->kind->name,
                     deadline, test_server_why());
            test_server_fail_with(heading, log);
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
    fprintf(stderr, "%s\n", test_server_why());
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
        pid_t pid = test_server_spawn(NULL, argv, -1, NULL);
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
    fprintf(stderr, "%s\n", test_server_why());
    test_server_kill(s);
    return false;
}

void test_server_pause(struct test_server *s)
{
    int status;
    if (!s->pid)
        return;
    signal_family(s->pid, s->pid, SIGSTOP);
    while (waitpid(s->pid, &status, WUNTRACED) < 0 && errno == EINTR)
        ;
}

void test_server_resume(struct test_server *s)
{
    if (s->pid)
        signal_family(s->pid, s->pid, SIGCONT);
}

void test_server_log(const struct test_server *s)
{
    char heading[100], *before = strdup(test_server_why());
    if (!before)
        abort();
    snprintf(heading, sizeof heading, "the log of %s ends with:", s->kind->name);
    test_server_fail_with(heading, test_server_file(s, "log"));
    fprintf(stderr, "%s\n", test_server_why());
    test_server_fail("%s", before);
    free(before);
}
