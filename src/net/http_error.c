/* SPDX-License-Identifier: MIT */
/*
 * http_error.c - how a request ended: curl's codes and our deadlines as status
 * codes with a sentence.
 *
 * The line that matters to whoever retries is drawn by "was anything sent?":
 * PERF_EUNAVAILABLE before, PERF_EIO after. At the wheel.
 */
#include <string.h>

#include "http.h"

/* Is this failed handshake the network's fault, and not that of a certificate? */
static bool broke_in_handshake(const perf_http_call *call)
{
    long verify = 0;
    curl_easy_getinfo(call->easy->curl, CURLINFO_SSL_VERIFYRESULT, &verify);
    return !verify && (strstr(call->easy->error, "SSL_ERROR_SYSCALL") ||
                       strstr(call->easy->error, "onnection reset") ||
                       strstr(call->easy->error, "onnection was reset"));
}

static void failure(perf_http_call *call, CURLcode code)
{
    const char *why = *call->easy->error ? call->easy->error : curl_easy_strerror(code);
    const perf_http_options *o = &call->http->options;
    bool sent = call->sent_ms != 0;
    int status = sent ? PERF_EIO : PERF_EUNAVAILABLE;
    switch (code) {
    case CURLE_OUT_OF_MEMORY:
        /* Older curls say so of a header line beyond their own bound, too. */
        if (call->first_byte && !(call->reply && call->reply->in_body)) {
            perf__http_call_fail(call, PERF_ETOOBIG, "a header of the reply is too long (%s)", why);
            return;
        }
        status = PERF_ENOMEM;
        break;
    case CURLE_URL_MALFORMAT:
        status = PERF_EINVAL;
        break;
    case CURLE_OPERATION_TIMEDOUT:
        if (!sent) {
            perf__http_call_fail(call, PERF_EUNAVAILABLE,
                                 "no connection within connect_timeout_ms (%lld)",
                                 (long long)o->connect_timeout_ms);
            return;
        }
        status = PERF_ETIMEDOUT;
        break;
    case CURLE_SSL_CONNECT_ERROR:
        status = broke_in_handshake(call) ? PERF_EUNAVAILABLE : PERF_ETLS;
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_USE_SSL_FAILED:
        status = PERF_ETLS;
        break;
    case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9, that is: anything but HTTP */
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_PARTIAL_FILE:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_HTTP3:
        status = sent ? PERF_EPROTOCOL : PERF_EUNAVAILABLE;
        break;
    case CURLE_RECV_ERROR:
        status = call->first_byte ? PERF_EPROTOCOL : status;
        break;
    default: /* CURLE_GOT_NOTHING, CURLE_SEND_ERROR, CURLE_COULDNT_CONNECT and their like */
        break;
    }
    perf__http_call_fail(call, status, "%s%s", why,
                         status == PERF_EIO ? "; the request may have been done" : "");
}

void perf__http_outcome(perf_http_call *call, CURLcode code)
{
    CURL *curl = call->easy->curl;
    long connects = 0, request = 0, version = 0;
    curl_off_t up = 0;
    curl_easy_getinfo(curl, CURLINFO_NUM_CONNECTS, &connects);
    curl_easy_getinfo(curl, CURLINFO_REQUEST_SIZE, &request);
    curl_easy_getinfo(curl, CURLINFO_SIZE_UPLOAD_T, &up);
    call->connects = connects;
    call->bytes_out = (int64_t)request + (int64_t)up;
    if (call->reply)
        call->bytes_in += (int64_t)call->reply->header_bytes;
    if (call->failed)
        return;
    if (code) {
        failure(call, code);
        return;
    }
    if (!call->reply || call->reply->in_headers) {
        perf__http_call_fail(call, PERF_EPROTOCOL, "the answer ends within its headers");
        return;
    }
    call->status = PERF_OK;
    if (call->https && !curl_easy_getinfo(curl, CURLINFO_HTTP_VERSION, &version))
        atomic_store_explicit(&call->host->speaks_h1,
                              version == CURL_HTTP_VERSION_1_1 || version == CURL_HTTP_VERSION_1_0,
                              memory_order_relaxed);
}

/* Bytes of body that went out so far, and whether all of it did. */
static int64_t uploaded(const perf_http_call *call, bool *all)
{
    curl_off_t up = 0;
    if (call->has_body)
        curl_easy_getinfo(call->easy->curl, CURLINFO_SIZE_UPLOAD_T, &up);
    *all = !call->has_body || (call->read ? call->read_done : up >= (curl_off_t)call->body_len);
    return (int64_t)up;
}

static bool stalled(perf_http *http, perf_http_call *call, int64_t now, int64_t bytes)
{
    const perf_http_options *o = &http->options;
    if (now - call->stall_ms < o->stall_ms)
        return false;
    double needed = (double)o->min_bytes_per_s * (double)(now - call->stall_ms) / 1000;
    bool slow = (double)(bytes - call->stall_bytes) < needed;
    call->stall_ms = now;
    call->stall_bytes = bytes;
    return slow;
}

bool perf__http_late(perf_http *http, perf_http_call *call, int64_t now)
{
    bool running = call->stage == PERF__HTTP_RUNNING && call->sent_ms;
    if (now >= call->deadline_ms) {
        const char *when = call->stage == PERF__HTTP_WAITING ? "waiting for a free connection"
                           : !running                        ? "connecting"
                           : !call->first_byte               ? "waiting for the reply"
                                                             : "receiving the reply";
        perf__http_call_fail(call, PERF_ETIMEDOUT, "not over after %lld ms: %s",
                             (long long)(now - call->start_ms), when);
        return true;
    }
    call->check_ms = call->deadline_ms;
    if (call->stage != PERF__HTTP_RUNNING)
        return false;
    if (!running) { /* the connection may come at any time: look again before the next deadline */
        int64_t step = call->first_byte_ms && call->first_byte_ms < http->options.stall_ms
                           ? call->first_byte_ms
                           : http->options.stall_ms;
        if (now + step < call->check_ms)
            call->check_ms = now + step;
        return false;
    }

    bool all_sent;
    int64_t up = uploaded(call, &all_sent), due = call->deadline_ms;
    if (!call->first_byte && all_sent) {
        call->stall_ms = now; /* waiting for the reply is no stall */
        if (!call->first_byte_ms)
            return false;
        due = call->sent_ms + call->first_byte_ms;
        if (due <= now) {
            perf__http_call_fail(call, PERF_ETIMEDOUT,
                                 "no answer within first_byte_timeout_ms (%lld)",
                                 (long long)call->first_byte_ms);
            return true;
        }
    } else {
        if (!call->first_byte) { /* still sending: the first byte's time has not begun */
            call->sent_ms = now;
            due = now + (call->first_byte_ms ? call->first_byte_ms : call->deadline_ms);
        }
        if (stalled(http, call, now, up + call->bytes_in)) {
            perf__http_call_fail(call, PERF_ETIMEDOUT,
                                 "slower than %llu bytes/s (min_bytes_per_s) for %lld ms",
                                 (unsigned long long)http->options.min_bytes_per_s,
                                 (long long)http->options.stall_ms);
            return true;
        }
        int64_t next = call->stall_ms + http->options.stall_ms;
        due = next < due ? next : due;
    }
    if (due < call->check_ms)
        call->check_ms = due;
    return false;
}
