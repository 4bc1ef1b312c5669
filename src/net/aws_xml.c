/* SPDX-License-Identifier: MIT */
/*
 * aws_xml.c - expat with bounds. An element's characters lie behind those of the
 * elements around it in one buffer, so that each level only needs to know where
 * its own begin. Any thread.
 */
#include "aws_xml.h"

#include <expat.h>
#include <stdbool.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

struct walk {
    const perf_allocator *allocator;
    perf__xml_fn on_element;
    void *ctx;
    XML_Parser parser;
    int rc;
    bool bad;
    size_t depth, path_len;
    size_t path_at[PERF__XML_DEPTH]; /* where the level's name begins, its slash included */
    size_t text_at[PERF__XML_DEPTH];
    char *text;
    size_t text_len, text_size;
    char path[PERF__XML_PATH];
};

static void stop(struct walk *w, int rc)
{
    w->rc = rc;
    w->bad = !rc;
    XML_StopParser(w->parser, XML_FALSE);
}

static bool make_room(struct walk *w, size_t more)
{
    if (w->text_size - w->text_len > more)
        return true;
    size_t size = w->text_size ? w->text_size : 256;
    while (size - w->text_len <= more)
        size *= 2;
    char *text = perf__realloc(w->allocator, w->text, size);
    if (!text) {
        stop(w, perf__fail_nomem("an XML document"));
        return false;
    }
    w->text = text;
    w->text_size = size;
    return true;
}

static void XMLCALL on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    struct walk *w = ctx;
    size_t len = strlen(name);
    (void)attributes;
    if (w->depth == PERF__XML_DEPTH || len + 2 > sizeof w->path - w->path_len) {
        stop(w, PERF_OK);
        return;
    }
    w->path_at[w->depth] = w->path_len;
    w->text_at[w->depth] = w->text_len;
    w->depth++;
    if (w->path_len)
        w->path[w->path_len++] = '/';
    memcpy(w->path + w->path_len, name, len + 1);
    w->path_len += len;
}

static void XMLCALL on_text(void *ctx, const XML_Char *text, int len)
{
    struct walk *w = ctx;
    if (w->rc || w->bad || len <= 0 || !make_room(w, (size_t)len))
        return;
    memcpy(w->text + w->text_len, text, (size_t)len);
    w->text_len += (size_t)len;
}

static void XMLCALL on_end(void *ctx, const XML_Char *name)
{
    struct walk *w = ctx;
    (void)name;
    if (w->rc || w->bad || !make_room(w, 0))
        return;
    size_t begin = w->text_at[--w->depth];
    w->text[w->text_len] = 0;
    int rc = w->on_element(w->ctx, w->path, w->text + begin, w->text_len - begin);
    w->text_len = begin;
    w->path_len = w->path_at[w->depth];
    w->path[w->path_len] = 0;
    if (rc)
        stop(w, rc);
}

static void XMLCALL on_doctype(void *ctx, const XML_Char *name, const XML_Char *system,
                               const XML_Char *public, int internal)
{
    (void)name, (void)system, (void)public, (void)internal;
    stop(ctx, PERF_OK);
}

int perf__xml_read(const perf_allocator *allocator, const char *what, const void *data, size_t len,
                   perf__xml_fn on_element, void *ctx)
{
    struct walk w = {.allocator = allocator, .on_element = on_element, .ctx = ctx};
    if (len > PERF__XML_MAX)
        return perf__fail(PERF_EPROTOCOL, "%s is larger than %d MiB", what, PERF__XML_MAX >> 20);
    w.parser = XML_ParserCreate(NULL);
    if (!w.parser)
        return perf__fail_nomem(what);
    XML_SetUserData(w.parser, &w);
    XML_SetElementHandler(w.parser, on_start, on_end);
    XML_SetCharacterDataHandler(w.parser, on_text);
    XML_SetStartDoctypeDeclHandler(w.parser, on_doctype);
    bool whole = XML_Parse(w.parser, len ? data : "", (int)len, 1) == XML_STATUS_OK;
    if (!w.rc && (!whole || w.bad))
        w.rc = XML_GetErrorCode(w.parser) == XML_ERROR_NO_MEMORY
                   ? perf__fail_nomem(what)
                   : perf__fail(PERF_EPROTOCOL, "%s is no XML document that can be read: %s", what,
                                w.bad ? "it is too deep, or has a document type"
                                      : XML_ErrorString(XML_GetErrorCode(w.parser)));
    XML_ParserFree(w.parser);
    perf__free(allocator, w.text);
    return w.rc;
}

size_t perf__xml_escape(char *out, const char *text)
{
    size_t len = 0;
    for (; *text; text++) {
        char one[2] = {*text, 0};
        const char *as = *text == '&'   ? "&amp;"
                         : *text == '<' ? "&lt;"
                         : *text == '>' ? "&gt;"
                                        : one;
        char number[] = "&#00;";
        unsigned char c = (unsigned char)*text;
        if (c < ' ') { /* line ends would be read as others */
            number[2] = (char)('0' + c / 10);
            number[3] = (char)('0' + c % 10);
            as = number;
        }
        size_t n = strlen(as);
        if (out)
            memcpy(out + len, as, n);
        len += n;
    }
    if (out)
        out[len] = 0;
    return len;
}
