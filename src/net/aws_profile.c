/* SPDX-License-Identifier: MIT */
/*
 * aws_profile.c - the parser of AWS's shared files.
 *
 * The text is copied once and cut in place by zero bytes; what was found is an
 * array of pointers into it, searched from its end. Such files have tens of
 * lines and are read once, so nothing is indexed.
 */
#include "aws_profile.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/status.h"

enum { SIZE_MAX_BYTES = 1 << 20, ENTRIES_MAX = 65536, OTHER_SECTION = -1 };

/* One key; with key NULL the section itself. */
struct entry {
    int section;
    enum perf__aws_file file;
    const char *name, *key, *sub, *value;
};

struct text {
    struct text *next;
    size_t len;
    char data[];
};

struct perf__aws_profiles {
    perf_allocator allocator;
    struct text *texts;
    struct entry *entries;
    size_t count, room;
};

struct parser {
    struct perf__aws_profiles *p;
    enum perf__aws_file file;
    const char *file_name;
    size_t line;
    int section;
    const char *section_name; /* NULL: before the first section */
    size_t indent;            /* of the last key */
    size_t open;              /* the entry that further lines belong to; SIZE_MAX: none */
    char *value_end;          /* where its value ends now */
};

int perf__aws_profiles_new(const perf_allocator *allocator, struct perf__aws_profiles **out)
{
    struct perf__aws_profiles *p = perf__calloc(allocator, 1, sizeof *p);
    if (!p)
        return perf__fail_nomem("AWS profiles");
    p->allocator = *allocator;
    *out = p;
    return PERF_OK;
}

void perf__aws_profiles_free(struct perf__aws_profiles *p)
{
    if (!p)
        return;
    perf_allocator allocator = p->allocator;
    for (struct text *t = p->texts, *next; t; t = next) {
        next = t->next;
        OPENSSL_cleanse(t, sizeof *t + t->len);
        perf__free(&allocator, t);
    }
    perf__free(&allocator, p->entries);
    perf__free(&allocator, p);
}

/* ------------------------------------------------------------------ parsing */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static char *trim(char *text)
{
    while (is_space(*text))
        text++;
    size_t len = strlen(text);
    while (len && is_space(text[len - 1]))
        text[--len] = '\0';
    return text;
}

static int bad_line(const struct parser *s, const char *what)
{
    return perf__fail(PERF_EINVAL, "%.200s:%zu: %s", s->file_name, s->line, what);
}

static int add(struct parser *s, const char *key, const char *sub, const char *value)
{
    struct perf__aws_profiles *p = s->p;
    if (p->count == ENTRIES_MAX)
        return bad_line(s, "there are too many keys");
    if (p->count == p->room) {
        size_t room = p->room ? 2 * p->room : 32;
        struct entry *grown = perf__realloc(&p->allocator, p->entries, room * sizeof *p->entries);
        if (!grown)
            return perf__fail_nomem("AWS profiles");
        p->entries = grown;
        p->room = room;
    }
    p->entries[p->count++] = (struct entry){s->section, s->file, s->section_name, key, sub, value};
    return PERF_OK;
}

/* "profile" and white space and a name, perhaps quoted. NULL: it is something else. */
static char *after_word(char *header, const char *word)
{
    size_t len = strlen(word);
    if (strncmp(header, word, len) || !is_space(header[len]))
        return NULL;
    char *name = trim(header + len);
    size_t name_len = strlen(name);
    if (name_len >= 2 && (*name == '"' || *name == '\'') && name[name_len - 1] == *name) {
        name[name_len - 1] = '\0';
        return name + 1;
    }
    return strpbrk(name, " \t") ? NULL : name;
}

static int begin_section(struct parser *s, char *line)
{
    char *end = strrchr(line, ']');
    if (!end || end == line + 1)
        return bad_line(s, "a section has no name or no closing bracket");
    *end = '\0';
    char *header = trim(line + 1), *name;
    s->section = PERF__AWS_PROFILE;
    s->open = SIZE_MAX;
    if (s->file == PERF__AWS_CREDENTIALS_FILE || !strcmp(header, "default")) {
        name = header;
    } else if ((name = after_word(header, "profile"))) {
    } else if ((name = after_word(header, "sso-session"))) {
        s->section = PERF__AWS_SSO_SESSION;
    } else if ((name = after_word(header, "services"))) {
        s->section = PERF__AWS_SERVICES;
    } else { /* of another tool */
        s->section = OTHER_SECTION;
        name = header;
    }
    s->section_name = name;
    return add(s, NULL, NULL, NULL);
}

/* Cuts "key = value"; NULL without a delimiter or a key. */
static char *cut_pair(char *line, const char *delimiters, char **value)
{
    char *at = strpbrk(line, delimiters);
    if (!at)
        return NULL;
    *at = '\0';
    *value = trim(at + 1);
    char *key = trim(line);
    return *key ? key : NULL;
}

static int begin_key(struct parser *s, char *line)
{
    char *value = NULL;
    if (!s->section_name)
        return bad_line(s, "a key stands before the first section");
    char *key = cut_pair(line, "=:", &value);
    if (!key)
        return bad_line(s, "this is neither a section, a comment nor \"key = value\"");
    s->open = s->p->count;
    s->value_end = value + strlen(value);
    return add(s, key, NULL, value);
}

/* A line that is indented more than the last key. */
static int continue_key(struct parser *s, char *line)
{
    struct entry *e = &s->p->entries[s->open];
    if (*e->value == '\0') { /* a block of keys */
        char *value = NULL, *sub = cut_pair(line, "=", &value);
        return sub ? add(s, e->key, sub, value)
                   : bad_line(s, "a line inside an indented block is not \"key = value\"");
    }
    /* The value goes on: close the gap between them. */
    size_t len = strlen(line);
    *s->value_end++ = '\n';
    memmove(s->value_end, line, len + 1);
    s->value_end += len;
    return PERF_OK;
}

static int parse_line(struct parser *s, char *line)
{
    size_t indent = 0;
    while (is_space(line[indent]))
        indent++;
    char *text = trim(line);
    if (!*text || *text == '#' || *text == ';')
        return PERF_OK;
    if (s->open != SIZE_MAX && indent > s->indent)
        return continue_key(s, text);
    s->indent = indent;
    return *text == '[' ? begin_section(s, text) : begin_key(s, text);
}

int perf__aws_profiles_parse(struct perf__aws_profiles *p, enum perf__aws_file file,
                             const char *name, const char *text, size_t len)
{
    struct parser s = {.p = p, .file = file, .file_name = name, .open = SIZE_MAX};
    if (len > SIZE_MAX_BYTES)
        return perf__fail(PERF_EINVAL, "%.200s is larger than 1 MiB; that is no AWS file", name);
    if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {
        text += 3;
        len -= 3;
    }
    struct text *own = perf__alloc(&p->allocator, sizeof *own + len + 1);
    if (!own)
        return perf__fail_nomem("AWS profiles");
    own->len = len + 1;
    own->next = p->texts;
    p->texts = own;
    if (len)
        memcpy(own->data, text, len);
    own->data[len] = '\0';
    int rc = PERF_OK;
    for (char *line = own->data, *end = own->data + len; !rc && line < end;) {
        char *next = memchr(line, '\n', (size_t)(end - line));
        next = next ? next : end;
        *next = '\0';
        s.line++;
        if (strlen(line) != (size_t)(next - line))
            return bad_line(&s, "there is a zero byte");
        rc = parse_line(&s, line);
        line = next + 1;
    }
    return rc;
}

/* ------------------------------------------------------------------ reading */

int perf__aws_profiles_load(struct perf__aws_profiles *p, enum perf__aws_file file,
                            const char *path)
{
    struct stat st;
    char *data = NULL;
    size_t len = 0;
    int rc = PERF_OK, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return PERF_OK;
    if (fd < 0 || fstat(fd, &st)) {
        rc = perf__fail(PERF_EIO, "%.200s cannot be opened: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode) || st.st_size > SIZE_MAX_BYTES) {
        rc = S_ISREG(st.st_mode)
                 ? perf__fail(PERF_EINVAL, "%.200s is larger than 1 MiB; that is no AWS file", path)
                 : PERF_OK; /* AWS's tools pass over a directory or device, such as /dev/null */
    } else if (!(data = perf__alloc(&p->allocator, (size_t)st.st_size + 1))) {
        rc = perf__fail_nomem("an AWS file");
    } else {
        ssize_t n = 1;
        while (n > 0 && len < (size_t)st.st_size)
            if ((n = read(fd, data + len, (size_t)st.st_size - len)) > 0)
                len += (size_t)n;
        rc = n < 0 ? perf__fail(PERF_EIO, "%.200s cannot be read: %s", path, strerror(errno))
                   : perf__aws_profiles_parse(p, file, path, data, len);
        OPENSSL_cleanse(data, (size_t)st.st_size);
    }
    perf__free(&p->allocator, data);
    if (fd >= 0)
        close(fd);
    return rc;
}

static bool matches(const struct entry *e, enum perf__aws_section section, const char *name,
                    int files)
{
    return e->section == (int)section && (e->file & (unsigned)files) && !strcmp(e->name, name);
}

bool perf__aws_profiles_has(const struct perf__aws_profiles *p, enum perf__aws_section section,
                            const char *name, int files)
{
    for (size_t i = 0; i < p->count; i++)
        if (matches(&p->entries[i], section, name, files))
            return true;
    return false;
}

static const char *last_of(const struct perf__aws_profiles *p, enum perf__aws_section section,
                           const char *name, int file, const char *key, const char *sub)
{
    for (size_t i = p->count; i-- > 0;) {
        const struct entry *e = &p->entries[i];
        if (matches(e, section, name, file) && e->key && !strcasecmp(e->key, key) &&
            !e->sub == !sub && (!sub || !strcasecmp(e->sub, sub)))
            return e->value;
    }
    return NULL;
}

const char *perf__aws_profiles_get(const struct perf__aws_profiles *p,
                                   enum perf__aws_section section, const char *name, int files,
                                   const char *key, const char *sub)
{
    const char *value = NULL;
    if (files & PERF__AWS_CREDENTIALS_FILE)
        value = last_of(p, section, name, PERF__AWS_CREDENTIALS_FILE, key, sub);
    if (!value && (files & PERF__AWS_CONFIG_FILE))
        value = last_of(p, section, name, PERF__AWS_CONFIG_FILE, key, sub);
    return value;
}
