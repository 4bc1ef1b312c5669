/* SPDX-License-Identifier: MIT */
/*
 * aws_profile.h - what ~/.aws/config and ~/.aws/credentials say.
 *
 * Read as AWS's own tools read them: [default], [profile NAME], [sso-session
 * NAME] and [services NAME] in the config file, [NAME] in the credentials file;
 * "key = value" or "key: value", keys without regard to case; lines that begin
 * with # or ; are comments; a line indented more than its key goes on with the
 * value, and a key without a value takes indented "key = value" lines below it.
 * Sections of one name are merged, and the later of equal keys counts.
 *
 * Written once, then read by any thread. Values may be secrets: they are wiped
 * when freed and never get into an error.
 */
#ifndef PERF_NET_AWS_PROFILE_H
#define PERF_NET_AWS_PROFILE_H

#include <libperf/types.h>
#include <stdbool.h>

enum perf__aws_section { PERF__AWS_PROFILE, PERF__AWS_SSO_SESSION, PERF__AWS_SERVICES };
enum perf__aws_file { PERF__AWS_CONFIG_FILE = 1, PERF__AWS_CREDENTIALS_FILE = 2 };

struct perf__aws_profiles;

int perf__aws_profiles_new(const perf_allocator *allocator, struct perf__aws_profiles **out);
void perf__aws_profiles_free(struct perf__aws_profiles *p);

/** Adds a text of so many bytes. name stands in errors: "NAME:LINE: what is wrong". PERF_EINVAL,
 *  PERF_ENOMEM. */
int perf__aws_profiles_parse(struct perf__aws_profiles *p, enum perf__aws_file file,
                             const char *name, const char *text, size_t len);

/** Adds a file; one that is not there is empty. PERF_EIO when it cannot be read. */
int perf__aws_profiles_load(struct perf__aws_profiles *p, enum perf__aws_file file,
                            const char *path);

/** Is there a section of this name, in these files (bits)? */
bool perf__aws_profiles_has(const struct perf__aws_profiles *p, enum perf__aws_section section,
                            const char *name, int files);

/** The value of a key, or NULL. The credentials file outranks the config file. sub: a key inside
 *  an indented block, or NULL. */
const char *perf__aws_profiles_get(const struct perf__aws_profiles *p,
                                   enum perf__aws_section section, const char *name, int files,
                                   const char *key, const char *sub);

#endif
