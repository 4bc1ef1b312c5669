/* SPDX-License-Identifier: MIT */
/*
 * package_index.c - reads the package lists that apt or dpkg keeps on this
 * machine into an SQLite file.
 *
 * Lists are input from elsewhere: lines longer than the buffer are cut, names
 * are checked, numbers are clamped, and a record that makes no sense is left
 * out. One thread.
 */
#include "demo.h"

#include <ctype.h>
#include <glob.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE = 1 << 16 };

static const char SCHEMA[] =
    "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
    "CREATE TABLE package(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    "  installed_kib INTEGER NOT NULL, section TEXT NOT NULL);"
    "CREATE TABLE depends(package INTEGER NOT NULL, target TEXT NOT NULL);"
    "CREATE TABLE provides(package INTEGER NOT NULL, name TEXT NOT NULL);"
    "BEGIN;";
static const char INDEXES[] = "CREATE INDEX depends_package ON depends(package, target);"
                              "CREATE INDEX provides_name ON provides(name, package);"
                              "COMMIT; ANALYZE;";

struct record {
    char name[DEMO_NAME], section[64];
    sqlite3_int64 kib;
    char depends[LINE], pre_depends[LINE], provides[LINE];
};

struct loader {
    sqlite3 *db;
    sqlite3_stmt *package, *depends, *provides;
    struct package_index *index;
    size_t max_records;
    int failed;
    struct record record;
    char line[LINE];
};

/* ------------------------------------------------------------------ commands */

int open_command(char *const argv[], FILE **out, int *pid)
{
    int fd[2];

    if (pipe(fd) != 0)
        return -1;
    *pid = fork();
    if (*pid == 0) {
        dup2(fd[1], STDOUT_FILENO);
        close(fd[0]);
        close(fd[1]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(fd[1]);
    *out = *pid < 0 ? NULL : fdopen(fd[0], "r");
    if (*out)
        return 0;
    close(fd[0]);
    if (*pid > 0)
        waitpid(*pid, NULL, 0);
    return -1;
}

int close_command(FILE *out, int pid)
{
    int status = -1;

    fclose(out); /* a command that still writes ends by SIGPIPE */
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

/* ------------------------------------------------------------------- parsing */

/* Cuts the package name at the start of text off; NULL when there is none. */
static char *take_name(char *text)
{
    size_t len;

    text += strspn(text, " \t");
    len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+.-");
    if (len == 0 || len >= DEMO_NAME)
        return NULL;
    text[len] = '\0'; /* a version, an architecture or another alternative may follow */
    return text;
}

static void insert(struct loader *l, sqlite3_stmt *stmt, sqlite3_int64 id, const char *name)
{
    sqlite3_bind_int64(stmt, 1, id);
    sqlite3_bind_text(stmt, 2, name, -1, SQLITE_STATIC);
    if (sqlite3_step(stmt) != SQLITE_DONE)
        l->failed = 1;
    sqlite3_reset(stmt);
}

/* "a (>= 1) | b, c:any" gives a row for a and one for c: the first alternative counts. */
static size_t insert_list(struct loader *l, sqlite3_stmt *stmt, sqlite3_int64 id, char *list)
{
    size_t rows = 0;
    char *item, *name;

    while ((item = strsep(&list, ",")) != NULL) {
        name = take_name(item);
        if (!name)
            continue;
        insert(l, stmt, id, name);
        rows++;
    }
    return rows;
}

static int keep_name(struct package_index *index, const char *name)
{
    char **grown;

    if ((index->count & (index->count - 1)) == 0) { /* full at each power of two */
        grown = realloc(index->names, (index->count ? index->count * 2 : 1) * sizeof *grown);
        if (!grown)
            return -1;
        index->names = grown;
    }
    index->names[index->count] = strdup(name);
    if (!index->names[index->count])
        return -1;
    index->count++;
    return 0;
}

/* Stores the record read so far, unless its name is known already, and begins another. */
static void end_record(struct loader *l)
{
    struct record *r = &l->record;
    sqlite3_int64 id;

    if (r->name[0] && !l->failed && l->index->count < l->max_records) {
        sqlite3_bind_text(l->package, 1, r->name, -1, SQLITE_STATIC);
        sqlite3_bind_int64(l->package, 2, r->kib);
        sqlite3_bind_text(l->package, 3, r->section, -1, SQLITE_STATIC);
        if (sqlite3_step(l->package) != SQLITE_DONE)
            l->failed = 1;
        sqlite3_reset(l->package);
        if (!l->failed && sqlite3_changes(l->db) > 0) {
            id = sqlite3_last_insert_rowid(l->db);
            if (keep_name(l->index, r->name) != 0)
                l->failed = 1;
            l->index->depends += insert_list(l, l->depends, id, r->depends);
            l->index->depends += insert_list(l, l->depends, id, r->pre_depends);
            l->index->provides += insert_list(l, l->provides, id, r->provides);
        }
    }
    r->name[0] = r->section[0] = r->depends[0] = r->pre_depends[0] = r->provides[0] = '\0';
    r->kib = 0;
}

static const char *field(const char *line, const char *name)
{
    size_t len = strlen(name);

    if (strncasecmp(line, name, len) != 0 || line[len] != ':')
        return NULL;
    return line + len + 1 + strspn(line + len + 1, " \t");
}

static void read_line(struct loader *l)
{
    struct record *r = &l->record;
    const char *value;
    char *name;

    if ((value = field(l->line, "Package")) != NULL) {
        name = take_name(l->line + (value - l->line));
        snprintf(r->name, sizeof r->name, "%s", name ? name : "");
    } else if ((value = field(l->line, "Section")) != NULL) {
        snprintf(r->section, sizeof r->section, "%.63s", value);
    } else if ((value = field(l->line, "Installed-Size")) != NULL) {
        unsigned long long kib = isdigit((unsigned char)*value) ? strtoull(value, NULL, 10) : 0;
        r->kib =
            kib > (1ull << 32) ? 1ll << 32 : (sqlite3_int64)kib; /* so that sums never overflow */
    } else if ((value = field(l->line, "Depends")) != NULL) {
        memcpy(r->depends, value, strlen(value) + 1);
    } else if ((value = field(l->line, "Pre-Depends")) != NULL) {
        memcpy(r->pre_depends, value, strlen(value) + 1);
    } else if ((value = field(l->line, "Provides")) != NULL) {
        memcpy(r->provides, value, strlen(value) + 1);
    }
}

static void read_list(struct loader *l, FILE *in)
{
    size_t len, lines = 0;
    int c;

    while (l->index->count < l->max_records && !l->failed && !demo_interrupted &&
           fgets(l->line, sizeof l->line, in)) {
        len = strlen(l->line);
        if (len > 0 && l->line[len - 1] == '\n')
            l->line[--len] = '\0';
        else
            while (!demo_interrupted && (c = getc(in)) != EOF && c != '\n')
                continue; /* the rest of a line too long to be true */
        if (len == 0)
            end_record(l);
        else
            read_line(l);
        if (++lines % 16384 == 0)
            progress("loading the package index", (double)l->index->count, (double)l->max_records);
    }
    end_record(l);
}

/* ------------------------------------------------------------------- sources */

static int ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);

    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* Reads a list as apt keeps it: plain or compressed. */
static int read_file(struct loader *l, char *path)
{
    static char helper[] = "/usr/lib/apt/apt-helper", cat_file[] = "cat-file";
    static const char *const tools[][2] = {
        {".xz", "xzcat"}, {".gz", "zcat"}, {".lz4", "lz4cat"}, {".zst", "zstdcat"}};
    char *by_helper[] = {helper, cat_file, path, NULL};
    char tool[16] = "", *by_tool[] = {tool, path, NULL};
    FILE *in;
    int pid;

    for (size_t i = 0; i < sizeof tools / sizeof *tools; i++)
        if (ends_with(path, tools[i][0]))
            snprintf(tool, sizeof tool, "%s", tools[i][1]);
    if (!tool[0]) {
        in = fopen(path, "r");
        if (!in)
            return -1;
        read_list(l, in);
        fclose(in);
        return 0;
    }
    if (open_command(access(helper, X_OK) == 0 ? by_helper : by_tool, &in, &pid) != 0)
        return -1;
    read_list(l, in);
    close_command(in, pid);
    return 0;
}

static int read_sources(struct loader *l, const char *only)
{
    static char status[] = "/var/lib/dpkg/status";
    struct package_index *index = l->index;
    size_t files = 0, before;
    glob_t found = {0};

    if (only) {
        char *path = strdup(only);
        int rc = path ? read_file(l, path) : -1;

        free(path);
        snprintf(index->source, sizeof index->source, "%.200s", only);
        return rc;
    }
    if (glob("/var/lib/apt/lists/*_Packages", 0, NULL, &found) != 0)
        found.gl_pathc = 0;
    (void)glob("/var/lib/apt/lists/*_Packages.*", found.gl_pathc ? GLOB_APPEND : 0, NULL, &found);
    for (size_t i = 0; i < found.gl_pathc && !l->failed; i++) {
        before = index->count;
        if (read_file(l, found.gl_pathv[i]) == 0 && index->count > before)
            files++;
    }
    globfree(&found);
    snprintf(index->source, sizeof index->source, "apt's package lists (%zu files)", files);
    if (index->count > 0)
        return 0;
    snprintf(index->source, sizeof index->source, "%s (apt has no package lists)", status);
    return read_file(l, status);
}

static int prepare(struct loader *l, const char *path)
{
    const char *failed = NULL;

    if (sqlite3_open(path, &l->db) != SQLITE_OK || sqlite3_exec(l->db, SCHEMA, 0, 0, 0) ||
        sqlite3_prepare_v2(l->db,
                           "INSERT OR IGNORE INTO package(name, installed_kib, section)"
                           " VALUES(?1, ?2, ?3)",
                           -1, &l->package, 0) ||
        sqlite3_prepare_v2(l->db, "INSERT INTO depends VALUES(?1, ?2)", -1, &l->depends, 0) ||
        sqlite3_prepare_v2(l->db, "INSERT INTO provides VALUES(?1, ?2)", -1, &l->provides, 0))
        failed = sqlite3_errmsg(l->db);
    if (failed)
        fprintf(stderr, "demo: %s: %s\n", path, failed);
    return failed ? -1 : 0;
}

int package_index_load(const char *only, const char *path, size_t max_records,
                       struct package_index *index)
{
    struct loader *l = calloc(1, sizeof *l);
    int rc = -1;

    memset(index, 0, sizeof *index);
    if (!l) {
        fprintf(stderr, "demo: out of memory\n");
        return -1;
    }
    l->index = index;
    l->max_records = max_records;
    if (prepare(l, path) != 0)
        goto out;
    if (read_sources(l, only) != 0 || index->count < 2) {
        fprintf(stderr,
                "demo: no package index: %s holds %zu usable records; run `apt-get update`"
                " or give a Packages file in DEMO_INDEX\n",
                index->source, index->count);
        goto out;
    }
    if (l->failed || sqlite3_exec(l->db, INDEXES, 0, 0, 0) != SQLITE_OK) {
        fprintf(stderr, "demo: cannot store the package index: %s\n", sqlite3_errmsg(l->db));
        goto out;
    }
    progress("loading the package index", 1, 1);
    rc = 0;
out:
    sqlite3_finalize(l->package);
    sqlite3_finalize(l->depends);
    sqlite3_finalize(l->provides);
    sqlite3_close(l->db);
    free(l);
    return rc;
}

int package_index_reopen(const char *path, struct package_index *index)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    const char *name;
    int rc = -1, step;

    memset(index, 0, sizeof *index);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db, "SELECT name FROM package ORDER BY id", -1, &stmt, NULL))
        goto out;
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        name = (const char *)sqlite3_column_text(stmt, 0);
        if (!name || keep_name(index, name) != 0)
            goto out;
    }
    rc = step == SQLITE_DONE ? 0 : -1;
out:
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return rc;
}

void package_index_free(struct package_index *index)
{
    for (size_t i = 0; i < index->count; i++)
        free(index->names[i]);
    free(index->names);
    memset(index, 0, sizeof *index);
}
