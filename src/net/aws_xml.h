/* SPDX-License-Identifier: MIT */
/*
 * aws_xml.h - walking through the small XML documents that S3 and the query
 * services answer with.
 *
 *     static int on_element(void *ctx, const char *path, const char *text, size_t len)
 *     {
 *         if (!strcmp(path, "ListBucketResult/Contents/Key")) ...
 *     }
 *     rc = perf__xml_read(allocator, "S3's list", body, size, on_element, &mine);
 *
 * Hostile bytes: depth, names and size are bounded, and a document type, the
 * beginning of every entity bomb, is refused. Any thread.
 */
#ifndef PERF_NET_AWS_XML_H
#define PERF_NET_AWS_XML_H

#include <libperf/types.h>

enum { PERF__XML_DEPTH = 24, PERF__XML_PATH = 512, PERF__XML_MAX = 64 << 20 };

/** An element has ended. path: the names from the root, joined by '/'; text: its own characters,
 *  without those of elements in it, with a zero byte behind. PERF_OK, or a code that ends it. */
typedef int (*perf__xml_fn)(void *ctx, const char *path, const char *text, size_t len);

/** Reads a whole document. PERF_OK; PERF_EPROTOCOL (what is no such document; what names it in the
 *  sentence); PERF_ENOMEM; on_element's own code. */
int perf__xml_read(const perf_allocator *allocator, const char *what, const void *data, size_t len,
                   perf__xml_fn on_element, void *ctx);

/** Length of text with & < > escaped; out NULL: only that. out has room for it and a zero byte. */
size_t perf__xml_escape(char *out, const char *text);

#endif
