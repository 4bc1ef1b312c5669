/* SPDX-License-Identifier: MIT */
/*
 * system_file.c - reading the kernel's small files again and again, and the
 * numbers in them.
 *
 * They stay open and are read by pread from the start, which makes the kernel
 * write them anew: half the cost of opening. Whatever is in them is taken for
 * hostile: bounded, and a number that cannot be one is -1. Under the handle's mutex.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "system_impl.h"

int perf__system_open_file(const char *dir, const char *path, const char *name)
{
    char full[PERF__SYSTEM_PATH];
    int len = snprintf(full, sizeof full, "%s%s/%s", dir, path, name);
    if (len < 0 || len >= (int)sizeof full)
        return -1;
    /* NONBLOCK: a fifo where a file was expected must not stop us. */
    return open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

bool perf__system_load(perf_system *s, int fd)
{
    size_t len = 0;
    ssize_t n;
    if (fd < 0)
        return false;
    do {
        do {
            n = pread(fd, s->buffer + len, sizeof s->buffer - 1 - len, (off_t)len);
        } while (n < 0 && errno == EINTR);
        if (n < 0)
            return false;
        len += (size_t)n;
        if (len == sizeof s->buffer - 1)
            return false;
        /* The kernel fills a page with whole lines; one that is not half full was the last. This
         * saves a read that only says so. */
    } while (n >= 2048);
    s->buffer[len] = 0;
    return len > 0;
}

int64_t perf__system_number(const char **at)
{
    const char *p = *at;
    int64_t v = 0;
    bool bad = *p < '0' || *p > '9';
    for (; *p >= '0' && *p <= '9'; p++)
        bad = bad || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *p - '0', &v);
    *at = p;
    return bad ? -1 : v;
}

double perf__system_decimal(const char **at)
{
    int64_t whole = perf__system_number(at);
    double v = (double)whole, unit = 0.1;
    if (whole < 0)
        return -1;
    if (**at == '.')
        for (++*at; **at >= '0' && **at <= '9'; ++*at) {
            v += unit * (**at - '0');
            unit /= 10;
        }
    return v;
}

void perf__system_skip(const char **at, int n)
{
    const char *p = *at;
    p += strspn(p, " \t");
    for (; n > 0; n--) {
        p += strcspn(p, " \t\n");
        p += strspn(p, " \t");
    }
    *at = p;
}

int64_t perf__system_field(const char *text, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, len) || !strchr(": \t", line[len]) || !line[len])
            continue;
        const char *p = line + len;
        p += strspn(p, ": \t");
        return perf__system_number(&p);
    }
    return -1;
}

int64_t perf__system_single(perf_system *s, int fd)
{
    if (!perf__system_load(s, fd))
        return -1;
    if (!strncmp(s->buffer, "max", 3))
        return 0;
    const char *p = s->buffer;
    return perf__system_number(&p);
}
