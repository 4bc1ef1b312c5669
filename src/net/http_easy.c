/* SPDX-License-Identifier: MIT */
/*
 * http_easy.c - curl's easy handles: what is set on them, and what they call.
 *
 * A handle is set up once for the client and kept; a request sets only what
 * differs from the one before. All at the wheel.
 */
#include <string.h>

#include "../base/alloc.h"
#include "http.h"

enum { SHAPE_GET = 1, SHAPE_HEAD, SHAPE_BODY, SHAPE_READ };

/* ---------------------------------------------------------------- callbacks */

/* Ends the request with the status and sentence that are set. */
static size_t give_up(perf_http_call *call, int status)
{
    call->failed = call->status = status;
    return 0;
}

static size_t on_header(char *line, size_t size, size_t count, void *ctx)
{
    struct perf__http_easy *easy = ctx;
    perf_http_call *call = easy->call;
    size_t len = size * count;
    call->first_byte = true;
    if (!call->reply && !(call->reply = perf__http_reply_new(&call->http->host.allocator)))
        return give_up(call, perf__http_call_fail(call, PERF_ENOMEM, "no memory for the reply"));
    int rc = perf__http_reply_line(call->reply, line, len, call->http->options.max_header_bytes);
    if (!rc)
        return len;
    const char *why = rc == PERF_ENOMEM ? "no memory for the reply's headers"
                      : rc == PERF_ETOOBIG
                          ? "the reply's headers are more than max_header_bytes, or too many"
                          : "the reply's headers are not HTTP";
    return give_up(call, perf__http_call_fail(call, rc, "%s", why));
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct perf__http_easy *easy = ctx;
    perf_http_call *call = easy->call;
    size_t len = size * count;
    int rc;
    if (!call->reply)
        return give_up(call, perf__http_call_fail(call, PERF_EPROTOCOL, "a body without headers"));
    call->reply->in_body = true;
    if (len > call->max_body - (uint64_t)call->bytes_in) {
        rc = PERF_ETOOBIG;
    } else if (call->write) {
        rc = call->write(call->write_ctx, call->reply, data, len);
        if (rc)
            return give_up(call, perf__http_call_fail(call, rc < 0 ? rc : PERF_EINVAL,
                                                      "ended by the write callback"));
    } else {
        rc = perf__http_reply_append(call->reply, data, len, call->max_body);
    }
    call->bytes_in += (int64_t)len;
    if (!rc)
        return len;
    return give_up(call, rc == PERF_ENOMEM
                             ? perf__http_call_fail(call, rc, "no memory for the reply's body")
                             : perf__http_call_fail(call, rc,
                                                    "the reply's body is larger than "
                                                    "max_body_bytes (%llu)",
                                                    (unsigned long long)call->max_body));
}

static size_t on_read(char *data, size_t size, size_t count, void *ctx)
{
    struct perf__http_easy *easy = ctx;
    perf_http_call *call = easy->call;
    int64_t room = (int64_t)(size * count), left = call->read_len - call->sent_bytes;
    if (call->read_len >= 0 && left < room)
        room = left;
    int64_t got = room ? call->read(call->read_ctx, data, (size_t)room) : 0;
    if (got < 0)
        perf__http_call_fail(call, (int)got, "ended by the read callback");
    else if (got > room)
        perf__http_call_fail(call, PERF_EINVAL, "the read callback gave more than it was asked");
    else if (!got && call->read_len >= 0 && left)
        perf__http_call_fail(call, PERF_EINVAL,
                             "the read callback gave %lld of %lld bytes (read_len)",
                             (long long)call->sent_bytes, (long long)call->read_len);
    else {
        call->sent_bytes += got;
        call->read_done = !got || call->sent_bytes == call->read_len;
        return (size_t)got;
    }
    give_up(call, call->status);
    return CURL_READFUNC_ABORT;
}

/*
 * There is a connection and the request is about to be sent. curl comes here a second time when a
 * kept connection broke before the reply's first byte: it would send any request again, but one
 * that is not idempotent may have been done already (RFC 9110, 9.2.2).
 */
static int on_connection(void *ctx, char *peer, char *local, int peer_port, int local_port)
{
    (void)peer, (void)local, (void)peer_port, (void)local_port;
    struct perf__http_easy *easy = ctx;
    perf_http_call *call = easy->call;
    call->attempts++;
    if (call->attempts > 2 || (call->attempts == 2 && !call->idempotent)) {
        give_up(call, perf__http_call_fail(call, PERF_EIO,
                                           "the server closed the kept connection before it "
                                           "answered; the request may have been done"));
        return CURL_PREREQFUNC_ABORT;
    }
    call->sent_ms = call->stall_ms = perf__http_now_ms();
    return CURL_PREREQFUNC_OK;
}

/* ------------------------------------------------------------------ options */

/* What holds for all requests of a client. */
static CURLcode set_client(perf_http *http, struct perf__http_easy *easy)
{
    const perf_http_options *o = &http->options;
    CURL *c = easy->curl;
    CURLcode rc = CURLE_OK;
#define SET(option, value)    (rc = rc ? rc : curl_easy_setopt(c, option, value))
#define SET_IF(option, value) ((value) ? SET(option, value) : rc)
    SET(CURLOPT_PRIVATE, easy);
    SET(CURLOPT_ERRORBUFFER, easy->error);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
#if LIBCURL_VERSION_NUM >= 0x075500
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
    SET(CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
    /* Else the end of a request that is still resolving waits for the system's resolver. */
    SET(CURLOPT_QUICK_EXIT, 1L);
#endif
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_EXPECT_100_TIMEOUT_MS, 300L);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, 65536L);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, easy);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, easy);
    SET(CURLOPT_READFUNCTION, on_read);
    SET(CURLOPT_READDATA, easy);
    SET(CURLOPT_PREREQFUNCTION, on_connection);
    SET(CURLOPT_PREREQDATA, easy);
    SET(CURLOPT_OPENSOCKETFUNCTION, perf__http_socket_open);
    SET(CURLOPT_OPENSOCKETDATA, http);
    SET(CURLOPT_CLOSESOCKETFUNCTION, perf__http_socket_close);
    SET(CURLOPT_CLOSESOCKETDATA, http);
    SET(CURLOPT_SHARE, http->share);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)o->connect_timeout_ms);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, (long)((o->dns_ttl_ms + 999) / 1000));
    SET(CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
    SET(CURLOPT_MAXAGE_CONN, (long)((o->idle_timeout_ms + 999) / 1000));
    SET(CURLOPT_MAXLIFETIME_CONN, (long)((o->max_lifetime_ms + 999) / 1000));
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, o->tls_insecure ? 0L : 1L);
    SET(CURLOPT_SSL_VERIFYHOST, o->tls_insecure ? 0L : 2L);
    SET_IF(CURLOPT_CAINFO, o->ca_file);
    SET_IF(CURLOPT_CAPATH, o->ca_path);
    SET_IF(CURLOPT_SSLCERT, o->client_cert_file);
    SET_IF(CURLOPT_SSLKEY, o->client_key_file);
    SET_IF(CURLOPT_UNIX_SOCKET_PATH, o->unix_socket);
    SET(CURLOPT_PROXY, http->http_proxy);
    SET_IF(CURLOPT_NOPROXY, http->no_proxy);
    SET(CURLOPT_USERAGENT, o->user_agent);
#undef SET
#undef SET_IF
    return rc;
}

static CURLcode set_shape(struct perf__http_easy *easy, const perf_http_call *call)
{
    CURL *c = easy->curl;
    CURLcode rc = CURLE_OK;
    int shape = call->read                      ? SHAPE_READ
                : call->has_body                ? SHAPE_BODY
                : !strcmp(call->method, "HEAD") ? SHAPE_HEAD
                : !strcmp(call->method, "POST") || !strcmp(call->method, "PUT") ||
                        !strcmp(call->method, "PATCH")
                    ? SHAPE_BODY /* an empty one, for they send Content-Length: 0 */
                    : SHAPE_GET;
    if (shape != easy->shape) {
        easy->shape = 0;
        if ((rc = curl_easy_setopt(c, CURLOPT_HTTPGET, 1L)))
            return rc;
        if (shape == SHAPE_HEAD)
            rc = curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
        else if (shape == SHAPE_BODY)
            rc = curl_easy_setopt(c, CURLOPT_POST, 1L);
        else if (shape == SHAPE_READ)
            rc = curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
        if (rc)
            return rc;
        easy->shape = shape;
    }
    if (shape == SHAPE_BODY) {
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, call->body_len ? call->body : "");
        rc = curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_len);
    } else if (shape == SHAPE_READ) {
        rc = curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)call->read_len);
    }

    static const char *const natural[] = {"", "GET", "HEAD", "POST", "PUT"};
    const char *method = strcmp(call->method, natural[shape]) != 0 ? call->method : NULL;
    if (!rc && (!method != !easy->custom || (method && strcmp(method, easy->method) != 0))) {
        easy->custom = method != NULL;
        easy->method[0] = '\0';
        if (!(rc = curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method)) && method)
            memcpy(easy->method, method, strlen(method) + 1);
    }
    return rc;
}

static CURLcode set_protocol(perf_http *http, struct perf__http_easy *easy,
                             const perf_http_call *call)
{
    int64_t asked = http->options.version;
    long version = asked == PERF_HTTP_VERSION_1_1 ? CURL_HTTP_VERSION_1_1
                   : call->https                  ? CURL_HTTP_VERSION_2TLS
                   : asked == PERF_HTTP_VERSION_2 ? CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
                                                  : CURL_HTTP_VERSION_1_1;
    /* Where HTTP/2 may be spoken, the first requests share one connection instead of opening one
     * each; once a host is known to speak HTTP/1, waiting for that would only cost time. */
    int share = version != CURL_HTTP_VERSION_1_1 &&
                !atomic_load_explicit(&call->host->speaks_h1, memory_order_relaxed);
    /* libcurl 7.88 fails on every second request of such a connection ("framing layer"). */
    bool fresh = http->no_shared_h2c && version == CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
    CURLcode rc = CURLE_OK;
    if (version != easy->version &&
        !(rc = curl_easy_setopt(easy->curl, CURLOPT_HTTP_VERSION, version)) &&
        !(rc = curl_easy_setopt(easy->curl, CURLOPT_FRESH_CONNECT, (long)fresh)) &&
        !(rc = curl_easy_setopt(easy->curl, CURLOPT_FORBID_REUSE, (long)fresh)))
        easy->version = version;
    if (!rc && share != easy->share &&
        !(rc = curl_easy_setopt(easy->curl, CURLOPT_PIPEWAIT, (long)share)))
        easy->share = share;
    if (!rc && call->https != (easy->proxy != 0) &&
        !(rc = curl_easy_setopt(easy->curl, CURLOPT_PROXY,
                                call->https ? http->https_proxy : http->http_proxy)))
        easy->proxy = call->https;
    return rc;
}

struct perf__http_easy *perf__http_easy_take(perf_http *http, perf_http_call *call)
{
    struct perf__http_easy *easy = http->easies;
    if (easy) {
        http->easies = easy->next;
    } else {
        easy = perf__calloc(&http->host.allocator, 1, sizeof *easy);
        if (!easy)
            return NULL;
        easy->http = http;
        if (!(easy->curl = curl_easy_init()) || set_client(http, easy)) {
            perf__http_easy_free(easy);
            return NULL;
        }
    }
    easy->call = call;
    easy->error[0] = '\0';
    if (set_shape(easy, call) || set_protocol(http, easy, call) ||
        curl_easy_setopt(easy->curl, CURLOPT_URL, call->url) ||
        curl_easy_setopt(easy->curl, CURLOPT_HTTPHEADER, call->headers)) {
        perf__http_easy_free(easy);
        return NULL;
    }
    return easy;
}

void perf__http_easy_give(perf_http *http, struct perf__http_easy *easy)
{
    easy->call = NULL;
    easy->next = http->easies;
    http->easies = easy;
}

void perf__http_easy_free(struct perf__http_easy *easy)
{
    curl_easy_cleanup(easy->curl);
    perf__free(&easy->http->host.allocator, easy);
}
