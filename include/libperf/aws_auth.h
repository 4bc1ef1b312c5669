/* SPDX-License-Identifier: MIT */
/*
 * aws_auth.h - who you are for AWS, and proving it.
 *
 * In five lines:
 *
 *     perf_aws_credentials *who;
 *     perf_aws_keys *keys;
 *     perf_aws_credentials_open(NULL, &who);          // environment, files, container, instance
 *     perf_aws_credentials_get(who, 5000, &keys);     // found once, then kept and refreshed
 *     perf_aws_sign(keys, &request, &signature);      // headers to add, or a presigned URL
 *
 * The AWS client does all of this by itself; this header is for hosts that send
 * requests of their own, bring credentials of their own, or hand out links.
 *
 * Caveats first
 *  - Threads: every function may be called from any thread at any time, except
 *    perf_aws_credentials_close. The library starts no thread for credentials:
 *    they are refreshed in the thread that asks.
 *  - Signing opens no socket and reads no environment variable. Opening
 *    credentials reads the environment; getting them reads files and may ask
 *    services.
 *  - Secrets never reach logs or error texts, and are wiped when released.
 */
#ifndef LIBPERF_AWS_AUTH_H
#define LIBPERF_AWS_AUTH_H

#include <libperf/http.h>
#include <libperf/types.h>

PERF_BEGIN_DECLS

/* --------------------------------------------------------------------- keys */

/** An access key with its secret, perhaps a session token and an end. Immutable, counted;
 *  it keeps the signing keys made from it. */
typedef struct perf_aws_keys perf_aws_keys;

/**
 * Makes keys of strings, which are copied. session_token NULL: none. expires_ms: wall clock, in
 * milliseconds since 1970 UTC; 0: they do not end. host NULL: the defaults. The caller releases
 * *out.
 * Errors: PERF_EINVAL (an empty id or secret, or a character that no key has); PERF_ENOMEM.
 * Since 1.0.
 */
PERF_API int perf_aws_keys_new(const char *access_key_id, const char *secret_access_key,
                               const char *session_token, int64_t expires_ms, const perf_host *host,
                               perf_aws_keys **out);

/** Another reference to the same keys, to be released as well. Since 1.0. */
PERF_API perf_aws_keys *perf_aws_keys_share(perf_aws_keys *keys);

/** Gives a reference back; with the last one the secrets are wiped. NULL is allowed. Since 1.0. */
PERF_API void perf_aws_keys_release(perf_aws_keys *keys);

/** The access key id. Valid as long as the keys. Since 1.0. */
PERF_API const char *perf_aws_keys_id(const perf_aws_keys *keys);

/** The secret. Valid as long as the keys; do not log it. Since 1.0. */
PERF_API const char *perf_aws_keys_secret(const perf_aws_keys *keys);

/** The session token, or "". Valid as long as the keys; do not log it. Since 1.0. */
PERF_API const char *perf_aws_keys_token(const perf_aws_keys *keys);

/** When they end, in milliseconds since 1970 UTC; 0: they do not. Since 1.0. */
PERF_API int64_t perf_aws_keys_expires_ms(const perf_aws_keys *keys);

/* ------------------------------------------------------------------ signing */

/** Where the signature goes. */
enum {
    PERF_AWS_SIGN_HEADERS = 0, /**< into headers to be added */
    PERF_AWS_SIGN_URL = 1,     /**< into the query: a link that works for expires_s */
};

/** Rules in which services differ; bits of perf_aws_sign_request.flags. */
enum {
    PERF_AWS_SIGN_RAW_PATH = 1,     /**< keep dot segments and doubled slashes of the path */
    PERF_AWS_SIGN_ENCODE_ONCE = 2,  /**< percent-encoding of the path is not encoded again */
    PERF_AWS_SIGN_CONTENT_HASH = 4, /**< add the header x-amz-content-sha256 */
    PERF_AWS_SIGN_TOKEN_AFTER = 8,  /**< the session token is added, but not signed */
    PERF_AWS_SIGN_S3 = 7,           /**< S3's: the first three */
};

/** What is to be signed. Zero in a field means the default. All is borrowed for the call. */
typedef struct perf_aws_sign_request {
    size_t struct_size;
    const char *method; /**< default "GET" */
    const char *path;  /**< as it is sent, from the first slash to the question mark; default "/" */
    const char *query; /**< as it is sent, without the question mark; default none */
    const perf_http_header *headers; /**< those to be signed; Host must be among them */
    size_t header_count;             /**< at most 256 */
    perf_bytes payload;              /**< the body, to be hashed */
    const char *payload_hash; /**< instead of payload: its SHA-256 in hexadecimal, or a word such as
                                   "UNSIGNED-PAYLOAD". A header x-amz-content-sha256 does the same.
                                   Default for S3's URLs: "UNSIGNED-PAYLOAD" */
    const char *region;       /**< such as "us-east-1"; required */
    const char *service;      /**< the signing name, such as "dynamodb"; required */
    int64_t time_ms;          /**< wall clock, milliseconds since 1970 UTC; default now */
    int64_t form;             /**< PERF_AWS_SIGN_HEADERS or PERF_AWS_SIGN_URL */
    int64_t expires_s;        /**< how long the URL works, 1 to 604800 seconds; default 3600 */
    uint64_t flags;           /**< PERF_AWS_SIGN_...; 0: the service's own, which are
                                   PERF_AWS_SIGN_S3 for names that begin with "s3", else none */
    const perf_host *host;    /**< allocator and clock */
} perf_aws_sign_request;
#define PERF_AWS_SIGN_REQUEST_INIT                                                   \
    {                                                                                \
        sizeof(perf_aws_sign_request), 0, 0, 0, 0, 0, {0, 0}, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** What signing a request gave. Immutable; its strings are valid until it is released. */
typedef struct perf_aws_signature perf_aws_signature;

/**
 * Signs request with AWS Signature Version 4. The caller releases *out.
 * Errors: PERF_EINVAL naming the field (also when the headers hold Authorization, X-Amz-Date or
 * X-Amz-Security-Token, which the signer adds); PERF_EACCESS (the keys have ended); PERF_ENOMEM.
 * Since 1.0.
 */
PERF_API int perf_aws_sign(perf_aws_keys *keys, const perf_aws_sign_request *request,
                           perf_aws_signature **out);

/** The i-th header to add to the request, or PERF_MISS behind the last. A URL has none.
 *  Since 1.0. */
PERF_API int perf_aws_signature_header_at(const perf_aws_signature *signature, size_t i,
                                          const char **name, const char **value);

/** Path, question mark and query to put behind scheme and host: for PERF_AWS_SIGN_URL with the
 *  signature in it. Since 1.0. */
PERF_API const char *perf_aws_signature_target(const perf_aws_signature *signature);

/** The signature alone, 64 hexadecimal digits. Since 1.0. */
PERF_API const char *perf_aws_signature_hex(const perf_aws_signature *signature);

/** What was hashed for the signature, to compare with what a refusing service says it expected.
 *  It holds the session token: do not log it. Since 1.0. */
PERF_API const char *perf_aws_signature_canonical_request(const perf_aws_signature *signature);

/** The string that was signed. Since 1.0. */
PERF_API const char *perf_aws_signature_string_to_sign(const perf_aws_signature *signature);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_aws_signature_release(perf_aws_signature *signature);

/* -------------------------------------------------------------- credentials */

/** Where keys come from, and the keys that came last. */
typedef struct perf_aws_credentials perf_aws_credentials;

/** A source of keys of the host's own. It must outlive the credentials. */
typedef struct perf_aws_credentials_provider {
    size_t struct_size;
    void *ctx;
    /** Finds keys within timeout_ms; the caller releases *out. PERF_OK or a negative PERF_E code,
     *  whose sentence may be none. Called by the thread that asks, by one at a time. */
    int (*get)(void *ctx, int64_t timeout_ms, perf_aws_keys **out);
} perf_aws_credentials_provider;
#define PERF_AWS_CREDENTIALS_PROVIDER_INIT          \
    {                                               \
        sizeof(perf_aws_credentials_provider), 0, 0 \
    }

/** How to open credentials. Zero in a field means the default. */
typedef struct perf_aws_credentials_options {
    size_t struct_size;
    const char *profile; /**< a profile of the shared files; the environment's keys are then not
                              looked at. Default: AWS_PROFILE, else "default" */
    const char *region;  /**< where STS is asked; default AWS_REGION, AWS_DEFAULT_REGION, profile */
    const perf_aws_credentials_provider *provider; /**< asked instead of AWS's chain */
    perf_http *http;    /**< for STS and SSO; must outlive the credentials. Default: one's own */
    int64_t timeout_ms; /**< of a call that gives none; default 10000 */
    const perf_host *host;
} perf_aws_credentials_options;
#define PERF_AWS_CREDENTIALS_OPTIONS_INIT                      \
    {                                                          \
        sizeof(perf_aws_credentials_options), 0, 0, 0, 0, 0, 0 \
    }

/**
 * Opens credentials: reads the environment and AWS's shared files, asks nobody yet. options may be
 * NULL. The chain, in order: environment; the profile's role (source_profile or
 * credential_source); web identity; SSO; keys in the credentials file; credential_process; keys in
 * the config file; ECS or EKS container; EC2 instance.
 * Errors: PERF_EINVAL (an option, or the shared files, by file and line); PERF_EIO; PERF_ENOMEM.
 * Since 1.0.
 */
PERF_API int perf_aws_credentials_open(const perf_aws_credentials_options *options,
                                       perf_aws_credentials **out);

/** Closes them; no other call may be under way. Keys handed out stay valid. NULL is allowed.
 *  Since 1.0. */
PERF_API int perf_aws_credentials_close(perf_aws_credentials *credentials);

/**
 * Keys that work now, found or refreshed if need be, within timeout_ms (0: the default). Keys that
 * end are refreshed 15 minutes ahead, or in the last quarter of a life shorter than an hour, by one
 * caller while the others go on with those there are. A
 * refresh that fails is tried again later; until the keys' end it is only logged.
 * The caller releases *out.
 * Errors: PERF_EACCESS (no source has keys, or one refuses); PERF_ETIMEDOUT; PERF_EINVAL (the
 * profile); PERF_EUNSUPPORTED (a role that wants an MFA code); a source's own; PERF_EFORKED;
 * PERF_ENOMEM. Since 1.0.
 */
PERF_API int perf_aws_credentials_get(perf_aws_credentials *credentials, int64_t timeout_ms,
                                      perf_aws_keys **out);

/**
 * The keys that are there, without waiting for anybody. *refresh_wanted (may be NULL) becomes 1
 * when a thread that may wait should call perf_aws_credentials_get now, else 0. PERF_MISS: there
 * are none that work. The caller releases *out. Since 1.0.
 */
PERF_API int perf_aws_credentials_peek(perf_aws_credentials *credentials, perf_aws_keys **out,
                                       int64_t *refresh_wanted);

/** A service refused these keys: the next perf_aws_credentials_get finds new ones. Keys that are
 *  no longer the present ones change nothing. Since 1.0. */
PERF_API int perf_aws_credentials_reject(perf_aws_credentials *credentials,
                                         const perf_aws_keys *keys);

/** The source of the present keys: "environment", "assume-role", "web-identity", "sso",
 *  "shared-file", "process", "config-file", "container", "instance", "provider", or "" when there
 *  are none. Static storage. Since 1.0. */
PERF_API const char *perf_aws_credentials_source(perf_aws_credentials *credentials);

PERF_END_DECLS

#endif
