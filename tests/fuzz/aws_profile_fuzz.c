/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as one of AWS's shared files: the parser ends, reads nothing past them, and what it
 * found can be asked for. An error names the file and a line and shows nothing of the text.
 */
#include <libperf/types.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "../../src/net/aws_profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"default", "a", "", "profile a"};
    static const char *const keys[] = {"region", "a", "s3", ""};
    struct perf__aws_profiles *p;
    if (size < 1 || perf__aws_profiles_new(&perf__default_allocator, &p))
        return 0;
    char *text = malloc(size); /* exactly, so that a sanitizer sees one byte more */
    if (!text)
        abort();
    memcpy(text, data + 1, size - 1);
    enum perf__aws_file file = data[0] & 1 ? PERF__AWS_CONFIG_FILE : PERF__AWS_CREDENTIALS_FILE;
    int rc = perf__aws_profiles_parse(p, file, "FILE", text, size - 1);
    if (rc && strncmp(perf_last_error(), "FILE:", 5) != 0 && !strstr(perf_last_error(), "1 MiB"))
        abort();
    size_t seen = 0;
    for (int section = 0; section < 3; section++)
        for (size_t i = 0; i < 4; i++)
            for (size_t k = 0; k < 4; k++)
                for (size_t sub = 0; sub < 4; sub++) {
                    const char *value =
                        perf__aws_profiles_get(p, (enum perf__aws_section)section, names[i], 3,
                                               keys[k], sub ? keys[sub] : NULL);
                    if (value && !perf__aws_profiles_has(p, (enum perf__aws_section)section,
                                                         names[i], (int)file))
                        abort();
                    seen += value ? strlen(value) : 0;
                }
    if (seen > 192 * size)
        abort();
    perf__aws_profiles_free(p);
    free(text);
    return 0;
}
