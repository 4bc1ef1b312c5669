/* SPDX-License-Identifier: MIT */
/*
 * redis_tls.h - TLS over a non-blocking socket, by OpenSSL.
 *
 * One thread reads while another one writes; an SSL object takes only one at a
 * time, so each session has a mutex, which is never held while anyone waits.
 */
#ifndef PERF_NET_REDIS_TLS_H
#define PERF_NET_REDIS_TLS_H

#include <sys/types.h>

#include "redis_link.h"

struct perf__redis_session;

/** A session on a connected socket; verifies `name`. PERF_OK, PERF_ENOMEM or PERF_ETLS. */
int perf__redis_session_new(struct perf__redis_tls *tls, int fd, const char *name,
                            struct perf__redis_session **out);
/** Sends no farewell when the socket is dead; the socket stays open. NULL is allowed. */
void perf__redis_session_free(struct perf__redis_session *session);
/** 1: done; 0: wait for *events (POLLIN, POLLOUT); PERF_ETLS or PERF_EIO, with the sentence. */
int perf__redis_session_handshake(struct perf__redis_session *session, short *events);
/** As recv and send: bytes, 0 at the end, or -1 and errno (EAGAIN: not now). */
ssize_t perf__redis_session_read(struct perf__redis_session *session, void *buf, size_t size);
ssize_t perf__redis_session_write(struct perf__redis_session *session, const void *buf, size_t len);

#endif
