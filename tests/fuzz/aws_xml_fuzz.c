/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as an XML document of a service, walked over; and any text escaped, which comes back as
 * it was if XML can hold it.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "../../src/net/aws_xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    size_t count;
    const char *expected;
    int found;
};

static int on_element(void *ctx, const char *path, const char *text, size_t len)
{
    struct seen *s = ctx;
    if (!*path || strlen(path) >= PERF__XML_PATH || strlen(text) != len)
        abort();
    s->count++;
    if (s->expected && !strcmp(path, "a/b") && !strcmp(text, s->expected))
        s->found = 1;
    return s->count > 1000 ? PERF_ECANCELED : PERF_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen s = {0, NULL, 0};
    int rc = perf__xml_read(&perf__default_allocator, "a document", data, size, on_element, &s);
    if (rc && rc != PERF_EPROTOCOL && rc != PERF_ECANCELED)
        abort();
    if (!rc && !s.count)
        abort();

    char *text = malloc(size + 1), *document = malloc(6 * size + 64);
    if (!text || !document)
        abort();
    memcpy(text, data, size);
    text[size] = 0;
    size_t begin = strlen(strcpy(document, "<a><b>"));
    size_t len = perf__xml_escape(document + begin, text);
    if (len != perf__xml_escape(NULL, text) || strlen(document) != begin + len)
        abort();
    strcat(document, "</b></a>");
    s = (struct seen){0, text, 0};
    rc = perf__xml_read(&perf__default_allocator, "a document", document, strlen(document),
                        on_element, &s);
    if (rc == PERF_OK && (s.count != 2 || !s.found))
        abort();
    free(text);
    free(document);
    return 0;
}
