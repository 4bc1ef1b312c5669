/* SPDX-License-Identifier: MIT */
/* redis_tls.c - see redis_tls.h. The context is made once and then only read. */
#include "redis_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include "../base/alloc.h"
#include "../base/status.h"

struct perf__redis_tls {
    perf_allocator allocator;
    SSL_CTX *context;
    BIO_METHOD *method;
    bool insecure;
};

struct perf__redis_session {
    struct perf__redis_tls *tls;
    pthread_mutex_t mutex;
    SSL *ssl;
    int fd;
};

/* What OpenSSL says of its first error, without its file names. */
static const char *reason(void)
{
    unsigned long code = ERR_peek_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    return text ? text : "no reason given";
}

/* ------------------------------------------- a socket that raises no SIGPIPE */

static int bio_write(BIO *bio, const char *data, int len)
{
    const struct perf__redis_session *session = BIO_get_data(bio);
    ssize_t n = send(session->fd, data, (size_t)len, MSG_NOSIGNAL);
    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_write(bio);
    return (int)n;
}

static int bio_read(BIO *bio, char *data, int size)
{
    const struct perf__redis_session *session = BIO_get_data(bio);
    ssize_t n = recv(session->fd, data, (size_t)size, 0);
    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(bio);
    return (int)n;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

/* ------------------------------------------------------------------- context */

static int use_files(SSL_CTX *context, const perf_redis_options *o)
{
    if (o->ca_file || o->ca_path) {
        if (SSL_CTX_load_verify_locations(context, o->ca_file, o->ca_path) != 1)
            return perf__fail(PERF_ETLS, "the CAs of %s cannot be used: %s",
                              o->ca_file ? o->ca_file : o->ca_path, reason());
    } else if (SSL_CTX_set_default_verify_paths(context) != 1) {
        return perf__fail(PERF_ETLS, "the system's CAs cannot be used: %s", reason());
    }
    if (o->cert_file && SSL_CTX_use_certificate_chain_file(context, o->cert_file) != 1)
        return perf__fail(PERF_ETLS, "the certificate in %s cannot be used: %s", o->cert_file,
                          reason());
    const char *key = o->key_file ? o->key_file : o->cert_file;
    if (o->cert_file && (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 ||
                         SSL_CTX_check_private_key(context) != 1))
        return perf__fail(PERF_ETLS, "the key in %s cannot be used with %s: %s", key, o->cert_file,
                          reason());
    return PERF_OK;
}

int perf__redis_tls_new(const struct perf__host *host, const perf_redis_options *options,
                        struct perf__redis_tls **out)
{
    struct perf__redis_tls *tls = perf__calloc(&host->allocator, 1, sizeof *tls);
    int rc = PERF_OK;
    if (!tls)
        return perf__fail_nomem("TLS of a Redis client");
    ERR_clear_error();
    tls->allocator = host->allocator;
    tls->insecure = options->tls_insecure;
    tls->context = SSL_CTX_new(TLS_client_method());
    tls->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "libperf");
    if (!tls->context || !tls->method) {
        rc = perf__fail_nomem("TLS of a Redis client");
        goto out;
    }
    BIO_meth_set_write(tls->method, bio_write);
    BIO_meth_set_read(tls->method, bio_read);
    BIO_meth_set_ctrl(tls->method, bio_control);
    SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION);
    SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(tls->context,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(tls->context, tls->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    rc = use_files(tls->context, options);
out:
    ERR_clear_error();
    if (rc)
        perf__redis_tls_free(tls);
    else
        *out = tls;
    return rc;
}

void perf__redis_tls_free(struct perf__redis_tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    BIO_meth_free(tls->method);
    perf_allocator allocator = tls->allocator;
    perf__free(&allocator, tls);
}

/* ------------------------------------------------------------------- session */

/* Whom we expect, told to both sides: SNI takes names only. */
static bool set_name(const struct perf__redis_tls *tls, SSL *ssl, const char *name)
{
    unsigned char address[16];
    bool is_address =
        inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
    if (!is_address && SSL_set_tlsext_host_name(ssl, name) != 1)
        return false;
    if (tls->insecure)
        return true;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1
                      : SSL_set1_host(ssl, name) == 1;
}

int perf__redis_session_new(struct perf__redis_tls *tls, int fd, const char *name,
                            struct perf__redis_session **out)
{
    struct perf__redis_session *session = perf__calloc(&tls->allocator, 1, sizeof *session);
    if (!session || pthread_mutex_init(&session->mutex, NULL)) {
        perf__free(&tls->allocator, session);
        return perf__fail_nomem("a TLS session");
    }
    session->tls = tls;
    session->fd = fd;
    ERR_clear_error();
    session->ssl = SSL_new(tls->context);
    BIO *bio = session->ssl ? BIO_new(tls->method) : NULL;
    if (!bio) {
        perf__redis_session_free(session);
        return perf__fail_nomem("a TLS session");
    }
    BIO_set_data(bio, session);
    BIO_set_init(bio, 1);
    SSL_set_bio(session->ssl, bio, bio);
    SSL_set_connect_state(session->ssl);
    if (!set_name(tls, session->ssl, name)) {
        perf__redis_session_free(session);
        ERR_clear_error();
        return perf__fail(PERF_ETLS,
                          "'%.100s' is no name that a certificate could have; give "
                          "perf_redis_options.server_name",
                          name);
    }
    *out = session;
    return PERF_OK;
}

void perf__redis_session_free(struct perf__redis_session *session)
{
    if (!session)
        return;
    SSL_free(session->ssl);
    ERR_clear_error();
    pthread_mutex_destroy(&session->mutex);
    perf__free(&session->tls->allocator, session);
}

int perf__redis_session_handshake(struct perf__redis_session *session, short *events)
{
    ERR_clear_error();
    errno = 0;
    int rc = SSL_do_handshake(session->ssl);
    if (rc == 1)
        return 1;
    int error = SSL_get_error(session->ssl, rc);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        *events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
        return 0;
    }
    long verify = SSL_get_verify_result(session->ssl);
    if (!session->tls->insecure && verify != X509_V_OK)
        rc = perf__fail(PERF_ETLS, "the certificate is refused: %s",
                        X509_verify_cert_error_string(verify));
    else if (error == SSL_ERROR_SSL)
        rc = perf__fail(PERF_ETLS, "the TLS handshake failed: %s", reason());
    else
        rc = perf__fail(PERF_EIO, "the connection broke in the TLS handshake");
    ERR_clear_error();
    return rc;
}

/* What a failed read or write means, as errno. 0: the end. */
static int errno_of(struct perf__redis_session *session, int rc)
{
    int saved = errno, error = SSL_get_error(session->ssl, rc);
    ERR_clear_error();
    switch (error) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        return saved;
    default:
        return EPROTO;
    }
}

static ssize_t transfer(struct perf__redis_session *session, void *in, const void *out, size_t len)
{
    int size = len > (1 << 30) ? 1 << 30 : (int)len;
    pthread_mutex_lock(&session->mutex);
    ERR_clear_error();
    errno = 0;
    int rc = out ? SSL_write(session->ssl, out, size) : SSL_read(session->ssl, in, size);
    int error = rc > 0 ? 0 : errno_of(session, rc);
    pthread_mutex_unlock(&session->mutex);
    errno = error;
    return rc > 0 ? rc : error ? -1 : 0;
}

ssize_t perf__redis_session_read(struct perf__redis_session *session, void *buf, size_t size)
{
    return transfer(session, buf, NULL, size);
}

ssize_t perf__redis_session_write(struct perf__redis_session *session, const void *buf, size_t len)
{
    return transfer(session, NULL, buf, len);
}
