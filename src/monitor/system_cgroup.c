/* SPDX-License-Identifier: MIT */
/*
 * system_cgroup.c - where this process's cgroups are, of both versions, and
 * what they say.
 *
 * /proc/self/cgroup names a path for version 2 ("0::/a/b") and one for each
 * hierarchy of version 1. In a container that path is often one of the host and
 * not there: then what is mounted is the container's own cgroup. A limit holds
 * for everything below it, so every level up to the root is asked. On a hybrid
 * system each controller is where the kernel put it. Under the handle's mutex.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system_impl.h"

/* Version 1 has no word for "no limit": it says the largest number of pages. */
#define V1_NO_LIMIT (INT64_C(1) << 60)

static bool is_directory(const char *dir, const char *path)
{
    char full[PERF__SYSTEM_PATH];
    struct stat st;
    int len = snprintf(full, sizeof full, "%s%s", dir, path);
    return len > 0 && len < (int)sizeof full && !stat(full, &st) && S_ISDIR(st.st_mode);
}

/* Is word one of the words in a list "a,b,c" of that length? */
static bool lists(const char *list, size_t len, const char *word)
{
    size_t n = strlen(word);
    for (size_t at = 0; at + n <= len; at++)
        if ((!at || list[at - 1] == ',') && !strncmp(list + at, word, n) &&
            (at + n == len || list[at + n] == ','))
            return true;
    return false;
}

/* The path of a controller ("": version 2) in the text of /proc/self/cgroup. */
static bool find_path(const char *text, const char *controller, char *path, char *names)
{
    for (const char *line = text; *line;) {
        size_t end = strcspn(line, "\n");
        const char *a = memchr(line, ':', end);
        const char *b = a ? memchr(a + 1, ':', end - (size_t)(a + 1 - line)) : NULL;
        if (b) {
            size_t list = (size_t)(b - a - 1), len = end - (size_t)(b + 1 - line);
            bool found = *controller ? lists(a + 1, list, controller) : !list && *line == '0';
            if (found && len && len < PERF__SYSTEM_PATH && list < 256) {
                memcpy(path, b + 1, len);
                path[len] = 0;
                memcpy(names, a + 1, list);
                names[list] = 0;
                return true;
            }
        }
        line += end + (line[end] == '\n');
    }
    return false;
}

/* A path that is not there, or not a plain one, becomes the root of dir: "". */
static void check_path(const char *dir, char *path)
{
    if (path[0] != '/' || !path[1] || strstr(path, "/..") || !is_directory(dir, path))
        path[0] = 0;
}

/* The directory of a hierarchy of version 1 under root, and in it the path of the process. Of names
 * that are several, one is a link in most places. False: none. */
static bool settle(const char *root, const char *names, char *dir, char *path)
{
    char name[256];
    snprintf(name, sizeof name, "/%s", names);
    if (!*names || !is_directory(root, name))
        return false;
    snprintf(dir, PERF__SYSTEM_PATH, "%s%s", root, name);
    check_path(dir, path);
    return true;
}

/* One level up; false at the root. */
static bool go_up(char *path)
{
    char *slash = strrchr(path, '/');
    if (!slash)
        return false;
    *slash = 0;
    return true;
}

static void find_memory(perf_system *s, const char *dir, char *path, bool v1)
{
    s->memory_v1 = v1;
    s->files[PERF__FILE_MEMORY_NOW] =
        perf__system_open_file(dir, path, v1 ? "memory.usage_in_bytes" : "memory.current");
    s->files[PERF__FILE_MEMORY_STAT] = perf__system_open_file(dir, path, "memory.stat");
    s->files[PERF__FILE_MEMORY_EVENTS] =
        perf__system_open_file(dir, path, v1 ? "memory.oom_control" : "memory.events");
    if (!v1)
        s->files[PERF__FILE_MEMORY_SWAP] = perf__system_open_file(dir, path, "memory.swap.current");
    bool there = s->files[PERF__FILE_MEMORY_NOW] >= 0 || s->files[PERF__FILE_MEMORY_STAT] >= 0;
    do {
        struct perf__system_level *level = &s->levels[s->memory_levels];
        level->max = perf__system_open_file(dir, path, v1 ? "memory.limit_in_bytes" : "memory.max");
        if (!v1)
            level->high = perf__system_open_file(dir, path, "memory.high");
        there = there || level->max >= 0;
    } while (++s->memory_levels < PERF__SYSTEM_LEVELS && go_up(path));
    if (!there)
        s->memory_levels = 0; /* the hierarchy has no memory in it */
}

static void find_cpu(perf_system *s, const char *dir, char *path, bool v1)
{
    s->cpu_v1 = v1;
    s->files[PERF__FILE_CPU_STAT] = perf__system_open_file(dir, path, "cpu.stat");
    do {
        struct perf__system_level *level = &s->levels[s->cpu_levels];
        level->quota = perf__system_open_file(dir, path, v1 ? "cpu.cfs_quota_us" : "cpu.max");
        if (v1)
            level->period = perf__system_open_file(dir, path, "cpu.cfs_period_us");
    } while (++s->cpu_levels < PERF__SYSTEM_LEVELS && go_up(path));
}

/* Version 1 counts time in a controller of its own, which need not be mounted with cpu. */
static void find_usage(perf_system *s, const char *dir, char *path, bool v1)
{
    if (v1)
        s->files[PERF__FILE_CPU_USAGE] = perf__system_open_file(dir, path, "cpuacct.usage");
}

static void find_controller(perf_system *s, const char *root, const char *unified,
                            const char *controller,
                            void (*find)(perf_system *, const char *, char *, bool))
{
    char path[PERF__SYSTEM_PATH], dir[PERF__SYSTEM_PATH], names[256];
    if (find_path(s->buffer, controller, path, names) &&
        (settle(root, names, dir, path) || settle(root, controller, dir, path))) {
        find(s, dir, path, true);
        return;
    }
    if (!find_path(s->buffer, "", path, names))
        return;
    check_path(unified, path);
    find(s, unified, path, false);
}

static void find_pressure(perf_system *s, const char *unified, const char *proc)
{
    static const char *const names[] = {"cpu", "memory", "io"};
    char path[PERF__SYSTEM_PATH], list[256], name[32];
    bool v2 = find_path(s->buffer, "", path, list);
    if (v2)
        check_path(unified, path);
    for (int i = 0; i < 3; i++) {
        int *fd = &s->files[PERF__FILE_CPU_PRESSURE + i];
        snprintf(name, sizeof name, "%s.pressure", names[i]);
        *fd = v2 ? perf__system_open_file(unified, path, name) : -1;
        if (*fd < 0)
            *fd = perf__system_open_file(proc, "/pressure", names[i]);
    }
}

void perf__system_find_cgroup(perf_system *s, const char *proc, const char *root)
{
    char unified[PERF__SYSTEM_PATH];
    int fd = perf__system_open_file(proc, "/self", "cgroup");
    bool known = perf__system_load(s, fd);
    if (fd >= 0)
        close(fd);
    if (!known)
        s->buffer[0] = 0; /* pressure of the machine may be there all the same */
    int len = snprintf(unified, sizeof unified, "%s%s", root,
                       is_directory(root, "/unified") ? "/unified" : "");
    if (len < 0 || len >= (int)sizeof unified)
        return;
    find_controller(s, root, unified, "memory", find_memory);
    find_controller(s, root, unified, "cpu", find_cpu);
    find_controller(s, root, unified, "cpuacct", find_usage);
    find_pressure(s, unified, proc);
}

/* ------------------------------------------------------------------ reading */

/* Of two limits (0: none, -1: unknown) the one in force. What is known beats what is not. */
static int64_t lesser(int64_t a, int64_t b)
{
    if (a <= 0)
        return b > 0 || a < 0 ? b : a;
    return b > 0 && b < a ? b : a;
}

void perf__system_read_cgroup_memory(perf_system *s, perf_system_stats *stats)
{
    for (int i = 0; i < s->memory_levels; i++) {
        int64_t max = perf__system_single(s, s->levels[i].max);
        if (s->memory_v1 && max >= V1_NO_LIMIT)
            max = 0;
        stats->cgroup_memory_max = lesser(stats->cgroup_memory_max, max);
        stats->cgroup_memory_high =
            lesser(stats->cgroup_memory_high, perf__system_single(s, s->levels[i].high));
    }
    stats->cgroup_memory = perf__system_single(s, s->files[PERF__FILE_MEMORY_NOW]);
    stats->cgroup_swap = perf__system_single(s, s->files[PERF__FILE_MEMORY_SWAP]);
    if (perf__system_load(s, s->files[PERF__FILE_MEMORY_EVENTS])) {
        stats->oom = perf__system_field(s->buffer, "oom");
        stats->oom_kills = perf__system_field(s->buffer, "oom_kill");
    }
    if (perf__system_load(s, s->files[PERF__FILE_MEMORY_STAT])) {
        stats->cgroup_inactive_file =
            perf__system_field(s->buffer, s->memory_v1 ? "total_inactive_file" : "inactive_file");
        if (s->memory_v1)
            stats->cgroup_swap = perf__system_field(s->buffer, "total_swap");
    }
}

static int64_t times(int64_t value, int64_t factor)
{
    return value < 0 || __builtin_mul_overflow(value, factor, &value) ? -1 : value;
}

void perf__system_read_cgroup_cpu(perf_system *s, perf_system_stats *stats)
{
    if (perf__system_load(s, s->files[PERF__FILE_CPU_STAT])) {
        stats->cgroup_cpu_time_ns = times(perf__system_field(s->buffer, "usage_usec"), 1000);
        stats->cpu_periods = perf__system_field(s->buffer, "nr_periods");
        stats->cpu_throttled = perf__system_field(s->buffer, "nr_throttled");
        stats->cpu_throttled_ns =
            s->cpu_v1 ? perf__system_field(s->buffer, "throttled_time")
                      : times(perf__system_field(s->buffer, "throttled_usec"), 1000);
    }
    if (s->cpu_v1)
        stats->cgroup_cpu_time_ns = perf__system_single(s, s->files[PERF__FILE_CPU_USAGE]);
}

double perf__system_quota(perf_system *s)
{
    double least = -1;
    for (int i = 0; i < s->cpu_levels; i++) {
        int64_t quota = -1, period = -1;
        if (perf__system_load(s, s->levels[i].quota)) {
            const char *p = s->buffer;
            bool none = *p == '-' || !strncmp(p, "max", 3);
            quota = none ? 0 : perf__system_number(&p);
            p += strspn(p, " ");
            period =
                s->cpu_v1 ? perf__system_single(s, s->levels[i].period) : perf__system_number(&p);
        }
        if (quota < 0 || (quota && period <= 0))
            continue;
        double processors = quota ? (double)quota / (double)period : 0;
        if (least <= 0 || (processors > 0 && processors < least))
            least = processors > 0 || least < 0 ? processors : least;
    }
    return least;
}
