/* SPDX-License-Identifier: MIT */
/*
 * postgres.c - PostgreSQL, a new cluster for each server. It refuses to run as root, so then it
 * runs as nobody.
 */
#include "server.h"

#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Debian keeps the server's programs off the PATH, by version. The last is the newest. */
static void program(const char *name, char *path, size_t size)
{
    char pattern[100];
    glob_t found = {0};
    snprintf(pattern, sizeof pattern, "/usr/lib/postgresql/*/bin/%s", name);
    if (glob(pattern, 0, NULL, &found) == 0)
        snprintf(path, size, "%s", found.gl_pathv[found.gl_pathc - 1]);
    else
        snprintf(path, size, "%s", name);
    globfree(&found);
}

static bool prepare(struct test_server *s)
{
    char initdb[200], postgres[200];
    program("initdb", initdb, sizeof initdb);
    program("postgres", postgres, sizeof postgres);
    if (!test_server_run(s, (const char *const[]){initdb, "-D", "data", "-U", "postgres", "-A",
                                                  "trust", "-E", "UTF8", "--locale=C", "-N", NULL}))
        return false;
    test_server_arg(s, "%s", postgres);
    test_server_arg(s, "-D");
    test_server_arg(s, "%s/data", s->dir);
    test_server_arg(s, "-k");
    test_server_arg(s, "%s", s->dir);
    test_server_arg(s, "-p");
    test_server_arg(s, "%d", s->port);
    test_server_arg(s, "-F"); /* no fsync */
    test_server_arg(s, "-c");
    test_server_arg(s, "listen_addresses=127.0.0.1");
    test_server_arg(s, "-c");
    test_server_arg(s, "max_connections=100");
    return true;
}

/*
 * The ports accept before the database takes queries: the socket's lock file says "ready" in its
 * last line only then.
 */
static bool ready(struct test_server *s)
{
    char text[1024] = "";
    FILE *f = fopen(test_server_file(s, "data/postmaster.pid"), "r");
    if (!f)
        return false;
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return strstr(text, "\nready") != NULL;
}

static const struct test_server_kind postgres = {
    .name = "postgres",
    .deadline_ms = 30000,
    .stop_signal = SIGQUIT, /* it ends at once, and gives back its System V segment */
    .scheme = "postgresql",
    .as_nobody = true,
    .prepare = prepare,
    .ready = ready,
};

struct test_server *test_server_postgres(void)
{
    return test_server_start(&postgres, NULL);
}
