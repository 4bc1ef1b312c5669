/* SPDX-License-Identifier: MIT */
/*
 * redis_connect.c - how a connection comes to be and ends; all on the I/O thread.
 *
 * paused -> resolving -> connecting -> handshake -> greeting -> up -> broken -> paused.
 * Nothing here waits: names are resolved by a thread that lives as long as that
 * takes. A greeting is AUTH, CLIENT SETNAME and SELECT as the options say, and
 * what `greet` adds, in one write; only when all of it was accepted are ops sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <poll.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "redis_link_impl.h"

enum {
    ADDRESSES = 8,       /* of a name that are tried */
    KEEP_READING_MS = 50 /* the I/O thread goes on reading so long after an asynchronous call */
};
static const int64_t MS = 1000000;

struct target {
    struct sockaddr_storage address;
    socklen_t len;
};

/* A search for addresses, on a thread of its own or at once. */
struct perf__redis_resolve {
    struct perf__redis_link *link;
    pthread_t thread;
    bool has_thread;
    _Atomic bool done;
    struct perf__redis_address where;
    int status;
    char error[PERF__REDIS_SENTENCE];
    struct target targets[ADDRESSES];
    int count, next;
};

/* -------------------------------------------------------------------- failing */

static void close_socket(struct perf__redis_link *link)
{
    perf__redis_session_free(link->session);
    link->session = NULL;
    if (link->fd >= 0) {
        perf__redis_loop_forget(link);
        close(link->fd);
    }
    link->fd = -1;
    link->input_at = link->input_len = 0;
    perf__redis_parser_reset(&link->parser);
}

static void end_resolve(struct perf__redis_link *link)
{
    if (!link->resolve)
        return;
    if (link->resolve->has_thread)
        pthread_join(link->resolve->thread, NULL);
    perf__free(link->allocator, link->resolve);
    link->resolve = NULL;
}

static void tell(struct perf__redis_link *link, int event, int status, const char *error)
{
    if (link->options.event)
        link->options.event(link->options.ctx, link, event, status, error);
}

/* From half to all of the back-off that so many failures make. */
static int64_t backoff_ns(const struct perf__redis_link *link)
{
    int64_t ms = link->options.backoff_min_ms, max = link->options.backoff_max_ms;
    for (unsigned i = 1; i < link->failures && ms < max; i++)
        ms *= 2;
    ms = ms > max ? max : ms;
    return ms * MS / 2 + (int64_t)(perf__thread_random() % (uint64_t)(ms * MS / 2 + 1));
}

static void attempt_failed(struct perf__redis_link *link, int status, const char *error,
                           int64_t now)
{
    struct perf__redis_ended ended = {NULL, 0, false};
    char text[PERF__REDIS_SENTENCE];
    pthread_mutex_lock(&link->mutex);
    snprintf(link->failure, sizeof link->failure, "%s", error); /* it may be the resolve's */
    pthread_mutex_unlock(&link->mutex);
    close_socket(link);
    end_resolve(link);
    pthread_mutex_lock(&link->mutex);
    link->stats.connect_failures++;
    link->failures++;
    link->failed = status;
    snprintf(text, sizeof text, "%.70s: %.200s", link->label, link->failure);
    link->state = link->options.once ? PERF__REDIS_ENDED : PERF__REDIS_PAUSED;
    link->retry_ns = now + backoff_ns(link);
    if (link->options.fail_fast || link->options.once || status != PERF_EUNAVAILABLE)
        perf__redis_restart_stream(link, &ended, true, status, text);
    pthread_mutex_unlock(&link->mutex);
    perf__redis_settle(link, &ended);
    tell(link, PERF__REDIS_LINK_FAILED, status, text);
}

/* With the sentence of perf__fail. */
static void attempt_failed_so(struct perf__redis_link *link, int status, int64_t now)
{
    char text[PERF__REDIS_SENTENCE];
    snprintf(text, sizeof text, "%s", perf_last_error());
    attempt_failed(link, status, text, now);
}

/* ------------------------------------------------------------------- resolving */

static void add_target(struct perf__redis_resolve *r, const void *address, size_t len)
{
    memcpy(&r->targets[r->count].address, address, len);
    r->targets[r->count++].len = (socklen_t)len;
}

static int look_up(struct perf__redis_resolve *r, int flags)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    char port[16];
    hints.ai_flags = AI_NUMERICSERV | flags;
    snprintf(port, sizeof port, "%d", r->where.port);
    int rc = getaddrinfo(r->where.host, port, &hints, &list);
    if (rc)
        return rc;
    for (struct addrinfo *a = list; a && r->count < ADDRESSES; a = a->ai_next)
        if (a->ai_addrlen <= sizeof r->targets->address)
            add_target(r, a->ai_addr, a->ai_addrlen);
    freeaddrinfo(list);
    return 0;
}

static void use_unix_socket(struct perf__redis_resolve *r)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(r->where.host) >= sizeof address.sun_path) {
        r->status = PERF_EINVAL;
        snprintf(r->error, sizeof r->error, "the path of the Unix socket is too long");
        return;
    }
    memcpy(address.sun_path, r->where.host, strlen(r->where.host) + 1);
    add_target(r, &address, sizeof address);
}

static void *resolve_main(void *argument)
{
    struct perf__redis_resolve *r = argument;
    struct perf__redis_link *link = r->link;
    if (link->options.where) {
        r->status =
            link->options.where(link->options.ctx, link->options.connect_timeout_ms, &r->where);
        if (r->status)
            snprintf(r->error, sizeof r->error, "%s", perf_last_error());
    }
    if (!r->status && !r->where.port)
        use_unix_socket(r);
    int rc = r->status || r->count ? 0 : look_up(r, 0);
    if (rc) {
        r->status = PERF_EUNAVAILABLE;
        snprintf(r->error, sizeof r->error, "the name cannot be resolved: %s", gai_strerror(rc));
    }
    atomic_store(&r->done, true);
    if (r->has_thread)
        perf__redis_attend(link);
    return NULL;
}

static void begin_attempt(struct perf__redis_link *link, int64_t now)
{
    struct perf__redis_resolve *r = perf__calloc(link->allocator, 1, sizeof *r);
    if (!r) {
        attempt_failed(link, PERF_EUNAVAILABLE, "no memory to connect", now);
        return;
    }
    r->link = link;
    r->where = link->options.address;
    link->resolve = r;
    pthread_mutex_lock(&link->mutex);
    link->state = PERF__REDIS_RESOLVING;
    link->reconnect = false;
    pthread_mutex_unlock(&link->mutex);
    link->connect_by_ns = now + link->options.connect_timeout_ms * MS;
    if (!link->options.where && (!r->where.port || !look_up(r, AI_NUMERICHOST))) {
        resolve_main(r); /* nothing to wait for */
        return;
    }
    r->has_thread = true;
    int error = perf__thread_start(&r->thread, "perf-redis-dns", resolve_main, r);
    if (error) {
        r->has_thread = false;
        attempt_failed(link, PERF_EUNAVAILABLE, "no thread to resolve a name could be had", now);
    }
}

/* ------------------------------------------------------------------ connecting */

static void set_socket(int fd, int family)
{
    static const int on = 1, idle = 30, interval = 10, count = 3;
    if (family == AF_UNIX)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on); /* a peer that vanished is noticed */
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

/* The next address, if any; otherwise the attempt has failed with this errno. */
static void try_next(struct perf__redis_link *link, int error, int64_t now)
{
    struct perf__redis_resolve *r = link->resolve;
    close_socket(link);
    while (r->next < r->count) {
        struct target *t = &r->targets[r->next++];
        int family = t->address.ss_family;
        link->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (link->fd < 0) {
            error = errno;
            continue;
        }
        set_socket(link->fd, family);
        if (!connect(link->fd, (struct sockaddr *)&t->address, t->len) || errno == EINPROGRESS) {
            pthread_mutex_lock(&link->mutex);
            link->state = PERF__REDIS_CONNECTING;
            pthread_mutex_unlock(&link->mutex);
            /* Those that do not answer leave time for the others. */
            link->resolve_by_ns = now + (link->connect_by_ns - now) / (r->count - r->next + 1);
            perf__redis_loop_watch(link, EPOLLOUT);
            return;
        }
        error = errno;
        close_socket(link);
    }
    attempt_failed(link, PERF_EUNAVAILABLE, error ? strerror(error) : "no address to connect to",
                   now);
}

static void resolved(struct perf__redis_link *link, int64_t now)
{
    struct perf__redis_resolve *r = link->resolve;
    if (!atomic_load(&r->done)) {
        if (now >= link->connect_by_ns)
            link->connect_by_ns = INT64_MAX; /* the resolver cannot be stopped */
        return;
    }
    if (r->has_thread)
        pthread_join(r->thread, NULL);
    r->has_thread = false;
    if (r->status) {
        attempt_failed(link, r->status == PERF_EINVAL ? PERF_EINVAL : PERF_EUNAVAILABLE, r->error,
                       now);
        return;
    }
    if (link->connect_by_ns == INT64_MAX)
        link->connect_by_ns = now + link->options.connect_timeout_ms * MS;
    pthread_mutex_lock(&link->mutex);
    link->connected_to = r->where;
    if (r->where.port)
        snprintf(link->label, sizeof link->label, "redis %.60s:%d", r->where.host, r->where.port);
    else
        snprintf(link->label, sizeof link->label, "redis %.60s", r->where.host);
    pthread_mutex_unlock(&link->mutex);
    try_next(link, 0, now);
}

/* -------------------------------------------------------------------- greeting */

static bool say(struct perf__redis_link *link, size_t argc, const char *const *words)
{
    perf_bytes argv[4];
    char room[1024], *bytes = room;
    for (size_t i = 0; i < argc; i++)
        argv[i] = (perf_bytes){words[i], strlen(words[i])};
    size_t size = perf__redis_encoded_size(argc, argv);
    if (size > sizeof room && !(bytes = perf__alloc(link->allocator, size)))
        return false;
    perf__redis_encode(bytes, argc, argv);
    bool ok = perf__redis_buffer_add(link->allocator, &link->greeting, bytes, size);
    explicit_bzero(bytes, size);
    if (bytes != room)
        perf__free(link->allocator, bytes);
    link->greeting_count++;
    return ok;
}

/* Puts the greeting together. */
static int compose(struct perf__redis_link *link)
{
    const struct perf__redis_link_options *o = &link->options;
    char db[24];
    bool ok = true;
    link->greeting.len = link->greeting_sent = 0;
    link->greeting_count = 0;
    link->greeting_ignore = UINT32_MAX;
    if (o->password && o->user)
        ok = say(link, 3, (const char *const[]){"AUTH", o->user, o->password});
    else if (o->password)
        ok = say(link, 2, (const char *const[]){"AUTH", o->password});
    if (ok && o->client_name) {
        link->greeting_ignore = link->greeting_count; /* not all that speak RESP know it */
        ok = say(link, 3, (const char *const[]){"CLIENT", "SETNAME", o->client_name});
    }
    snprintf(db, sizeof db, "%lld", (long long)o->db);
    if (ok && o->db)
        ok = say(link, 2, (const char *const[]){"SELECT", db});
    link->greeting_own = link->greeting_count;
    char *bytes = NULL;
    size_t len = 0;
    uint32_t expected = 0;
    int rc = ok ? PERF_OK : perf__fail_nomem("a greeting to a Redis server");
    if (!rc && o->greet)
        rc = o->greet(o->ctx, link, &bytes, &len, &expected);
    if (!rc && len && !perf__redis_buffer_add(link->allocator, &link->greeting, bytes, len))
        rc = perf__fail_nomem("a greeting to a Redis server");
    perf__free(link->allocator, bytes);
    link->greeting_count += expected;
    link->greeting_left = link->greeting_count;
    return rc;
}

static void is_up(struct perf__redis_link *link, int64_t now)
{
    end_resolve(link);
    if (link->greeting.bytes) /* it may hold a password */
        explicit_bzero(link->greeting.bytes, link->greeting.space);
    pthread_mutex_lock(&link->mutex);
    link->state = PERF__REDIS_IS_UP;
    link->stats.connects++;
    link->failures = 0;
    link->failed = PERF_OK;
    link->up_ns = link->heard_ns = now;
    link->pinged_ns = 0;
    link->blocked = false;
    bool send = link->out.len && !link->writing;
    if (send)
        link->writing = link->loop_writes = true;
    link->read_wanted = link->options.listens || link->head != link->tail;
    atomic_store(&link->reader, PERF__REDIS_FREE);
    pthread_mutex_unlock(&link->mutex);
    perf__redis_loop_watch(link, 0);
    tell(link, PERF__REDIS_LINK_UP, PERF_OK, "");
}

static void begin_greeting(struct perf__redis_link *link, int64_t now)
{
    int rc = compose(link);
    if (rc) {
        attempt_failed_so(link, PERF_EUNAVAILABLE, now);
        return;
    }
    pthread_mutex_lock(&link->mutex);
    link->state = PERF__REDIS_GREETING;
    pthread_mutex_unlock(&link->mutex);
    if (!link->greeting_left)
        is_up(link, now);
    else
        perf__redis_loop_watch(link, EPOLLIN | EPOLLOUT);
}

/* The server's text, but its first word only when it repeats our password. */
static void refused(struct perf__redis_link *link, const perf_redis_reply *reply, int64_t now)
{
    const char *password = link->options.password, *said = reply->u.data;
    char text[120];
    int status = perf_redis_reply_status(reply);
    bool repeats = password && strstr(said, password);
    snprintf(text, sizeof text, "%.*s", repeats ? (int)strcspn(said, " ") : 100, said);
    attempt_failed(link, status, text, now);
}

static void read_greeting(struct perf__redis_link *link, int64_t now)
{
    perf_redis_reply *none = NULL, *reply = NULL;
    size_t room = PERF__REDIS_READ - link->input_len;
    char *to = link->input + link->input_len;
    ssize_t n = link->session ? perf__redis_session_read(link->session, to, room)
                              : recv(link->fd, to, room, 0);
    if (n <= 0) {
        if (!n || (errno != EAGAIN && errno != EINTR))
            attempt_failed(link, PERF_EUNAVAILABLE,
                           n ? strerror(errno) : "the server closed the connection at once", now);
        return;
    }
    link->input_len += (size_t)n;
    const char *at = link->input, *end = at + link->input_len;
    int rc = 1;
    while (link->greeting_left && rc == 1) {
        rc = perf__redis_parse(&link->parser, &at, end, &none, &reply);
        if (rc == 1) {
            uint32_t index = link->greeting_count - link->greeting_left--;
            bool error = link->parser.status ||
                         (reply->type == PERF_REDIS_ERROR && index != link->greeting_ignore);
            if (error && reply)
                refused(link, reply, now);
            else if (error)
                attempt_failed(link, PERF_EUNAVAILABLE, "no memory for the server's greeting", now);
            else if (index >= link->greeting_own && link->options.greeted)
                link->options.greeted(link->options.ctx, index - link->greeting_own, reply);
            perf_redis_reply_release(reply);
            if (error)
                return;
        }
    }
    if (rc < 0) {
        attempt_failed(link, PERF_EPROTOCOL, "this is no Redis server: its bytes are no replies",
                       now);
        return;
    }
    memmove(link->input, at, (size_t)(end - at));
    link->input_len = (size_t)(end - at);
    if (!link->greeting_left)
        is_up(link, now);
}

static void greet(struct perf__redis_link *link, int64_t now)
{
    if (link->greeting_sent < link->greeting.len) {
        const char *bytes = link->greeting.bytes + link->greeting_sent;
        size_t len = link->greeting.len - link->greeting_sent;
        ssize_t n = link->session ? perf__redis_session_write(link->session, bytes, len)
                                  : send(link->fd, bytes, len, MSG_NOSIGNAL);
        if (n > 0)
            link->greeting_sent += (size_t)n;
        else if (errno != EAGAIN && errno != EINTR) {
            attempt_failed(link, PERF_EUNAVAILABLE, strerror(errno), now);
            return;
        }
        if (link->greeting_sent == link->greeting.len)
            perf__redis_loop_watch(link, EPOLLIN);
    }
    read_greeting(link, now);
}

static void handshake(struct perf__redis_link *link, int64_t now)
{
    short events = 0;
    int rc = perf__redis_session_handshake(link->session, &events);
    if (rc == 1)
        begin_greeting(link, now);
    else if (!rc)
        perf__redis_loop_watch(link, events == POLLIN ? EPOLLIN : EPOLLOUT);
    else
        attempt_failed_so(link, rc == PERF_ETLS ? PERF_ETLS : PERF_EUNAVAILABLE, now);
}

static void connected(struct perf__redis_link *link, int64_t now)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
        try_next(link, error ? error : errno, now);
        return;
    }
    if (!link->options.tls) {
        begin_greeting(link, now);
        return;
    }
    const char *name =
        link->options.server_name ? link->options.server_name : link->connected_to.host;
    int rc = perf__redis_session_new(link->options.tls, link->fd, name, &link->session);
    if (rc) {
        attempt_failed_so(link, rc == PERF_ETLS ? PERF_ETLS : PERF_EUNAVAILABLE, now);
        return;
    }
    pthread_mutex_lock(&link->mutex);
    link->state = PERF__REDIS_HANDSHAKE;
    pthread_mutex_unlock(&link->mutex);
    handshake(link, now);
}

/* ------------------------------------------------------------------- up, broken */

static void serve_reader(struct perf__redis_link *link, uint32_t events, int64_t now)
{
    int role = PERF__REDIS_FREE;
    bool news = events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    pthread_mutex_lock(&link->mutex);
    bool wanted = link->read_wanted;
    link->read_wanted = false;
    pthread_mutex_unlock(&link->mutex);
    if (news || wanted)
        atomic_compare_exchange_strong(&link->reader, &role, PERF__REDIS_THREAD);
    if (atomic_load(&link->reader) != PERF__REDIS_THREAD)
        return; /* a caller reads, and sees what we see */
    if ((news || wanted) && perf__redis_read_once(link)) {
        link->heard_ns = now;
        link->pinged_ns = 0;
    }
    pthread_mutex_lock(&link->mutex);
    if (link->state != PERF__REDIS_IS_UP)
        atomic_store(&link->reader, PERF__REDIS_NOBODY_MAY);
    else if (link->head == link->tail && !link->options.listens &&
             now - link->last_async_ns > KEEP_READING_MS * MS)
        atomic_store(&link->reader, PERF__REDIS_FREE);
    pthread_mutex_unlock(&link->mutex);
}

/* A connection that listens may be dead for long without a ping. */
static void ping(struct perf__redis_link *link, int64_t now)
{
    static const char words[] = "*1\r\n$4\r\nPING\r\n";
    int64_t every = link->options.ping_ms * MS;
    if (!every || !link->options.listens)
        return;
    if (link->pinged_ns && now - link->pinged_ns >= every) {
        pthread_mutex_lock(&link->mutex);
        perf__redis_break(link, PERF_EIO, "the server gave no sign of life");
        pthread_mutex_unlock(&link->mutex);
    } else if (!link->pinged_ns && now - link->heard_ns >= every) {
        link->pinged_ns = now;
        perf__redis_tell(link, words, sizeof words - 1);
    }
}

static void serve_up(struct perf__redis_link *link, uint32_t events, int64_t now)
{
    struct perf__redis_ended ended = {NULL, 0, false};
    link->serving = true; /* what is submitted meanwhile is written below */
    serve_reader(link, events, now);
    ping(link, now);
    perf__redis_call_finished(link);
    link->serving = false;
    pthread_mutex_lock(&link->mutex);
    bool write = link->writing && link->loop_writes && (!link->blocked || (events & EPOLLOUT));
    pthread_mutex_unlock(&link->mutex);
    if (write)
        perf__redis_flush(link);
    pthread_mutex_lock(&link->mutex);
    perf__redis_expire(link, &ended, now);
    bool up = link->state == PERF__REDIS_IS_UP;
    int role = PERF__REDIS_FREE;
    if (link->read_wanted && up) /* by what a callback submitted */
        atomic_compare_exchange_strong(&link->reader, &role, PERF__REDIS_THREAD);
    link->read_wanted = false;
    link->timer_ns = link->next_deadline;
    if (up)
        perf__redis_loop_watch(
            link, (link->blocked ? (uint32_t)EPOLLOUT : 0u) |
                      (atomic_load(&link->reader) == PERF__REDIS_THREAD ? (uint32_t)EPOLLIN : 0u));
    pthread_mutex_unlock(&link->mutex);
    if (link->options.listens && link->options.ping_ms) {
        int64_t from = link->pinged_ns ? link->pinged_ns : link->heard_ns;
        int64_t due = from + link->options.ping_ms * MS;
        link->timer_ns = due < link->timer_ns ? due : link->timer_ns;
    }
    perf__redis_settle(link, &ended);
    perf__redis_call_finished(link);
}

/* Reader and writer have been asked to leave. False: one has not. */
static bool serve_broken(struct perf__redis_link *link, int64_t now)
{
    struct perf__redis_ended ended = {NULL, 0, false};
    char text[PERF__REDIS_SENTENCE];
    int role = PERF__REDIS_THREAD;
    atomic_compare_exchange_strong(&link->reader, &role, PERF__REDIS_NOBODY_MAY);
    role = PERF__REDIS_FREE;
    atomic_compare_exchange_strong(&link->reader, &role, PERF__REDIS_NOBODY_MAY);
    pthread_mutex_lock(&link->mutex);
    if (link->loop_writes)
        link->writing = link->loop_writes = false;
    if (link->writing || atomic_load(&link->reader) != PERF__REDIS_NOBODY_MAY) {
        pthread_mutex_unlock(&link->mutex);
        return false;
    }
    link->blocked = false;
    snprintf(text, sizeof text, "%.70s: the connection broke: %.90s", link->label,
             link->why_broken);
    int status = link->broken;
    bool once = link->options.once;
    perf__redis_restart_stream(link, &ended, once, status, text);
    link->stats.lost++;
    link->state = once ? PERF__REDIS_ENDED : PERF__REDIS_PAUSED;
    if (once) {
        link->failed = PERF_EUNAVAILABLE;
        snprintf(link->failure, sizeof link->failure, "%s", link->why_broken);
    }
    /* At once, unless it did not live long: a server that throws us out is not to be hammered. */
    if (now - link->up_ns < link->options.backoff_max_ms * MS && !link->reconnect)
        link->failures++;
    link->retry_ns = link->failures > 1 ? now + backoff_ns(link) : now;
    pthread_mutex_unlock(&link->mutex);
    close_socket(link);
    perf__redis_settle(link, &ended);
    tell(link, PERF__REDIS_LINK_LOST, status, text);
    return true;
}

/* ------------------------------------------------------------------------ close */

static void serve_closing(struct perf__redis_link *link)
{
    struct perf__redis_ended ended = {NULL, 0, false};
    char text[] = "the Redis client was closed";
    pthread_mutex_lock(&link->mutex);
    perf__redis_break(link, PERF_ECLOSED, text);
    bool broken = link->state == PERF__REDIS_BROKEN;
    pthread_mutex_unlock(&link->mutex);
    if (broken && !serve_broken(link, 0))
        return;
    if (link->resolve && link->resolve->has_thread && !atomic_load(&link->resolve->done))
        return; /* it calls when it is done */
    close_socket(link);
    end_resolve(link);
    pthread_mutex_lock(&link->mutex);
    link->state = PERF__REDIS_ENDED;
    link->timer_ns = INT64_MAX;
    perf__redis_restart_stream(link, &ended, true, PERF_ECLOSED, text);
    pthread_mutex_unlock(&link->mutex);
    perf__redis_settle(link, &ended);
    perf__redis_call_finished(link);
    pthread_mutex_lock(&link->mutex);
    link->closed = true;
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->mutex);
}

/* One step of whatever state the link is in, which may lead to another. */
static void step(struct perf__redis_link *link, int state, uint32_t events, int64_t now)
{
    switch (state) {
    case PERF__REDIS_PAUSED:
        if (now >= link->retry_ns || link->reconnect)
            begin_attempt(link, now);
        break;
    case PERF__REDIS_RESOLVING:
        resolved(link, now);
        break;
    case PERF__REDIS_CONNECTING:
        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            connected(link, now);
        else if (now >= link->resolve_by_ns)
            try_next(link, ETIMEDOUT, now);
        break;
    case PERF__REDIS_HANDSHAKE:
        if (events)
            handshake(link, now);
        break;
    case PERF__REDIS_GREETING:
        if (events)
            greet(link, now);
        break;
    case PERF__REDIS_IS_UP:
        serve_up(link, events, now);
        break;
    case PERF__REDIS_BROKEN:
        serve_broken(link, now);
        break;
    default:
        break;
    }
}

static int state_of(struct perf__redis_link *link, bool *closing)
{
    pthread_mutex_lock(&link->mutex);
    int state = link->state;
    if (perf__redis_loop_ends(link->loop))
        link->closing = true;
    *closing = link->closing;
    pthread_mutex_unlock(&link->mutex);
    return state;
}

void perf__redis_serve(struct perf__redis_link *link, uint32_t events, int64_t now)
{
    struct perf__redis_ended ended = {NULL, 0, false};
    bool closing;
    perf__redis_call_finished(link);
    for (int before = -1, state = state_of(link, &closing); state != before && !closing;
         events = 0) {
        step(link, state, events, now);
        before = state;
        state = state_of(link, &closing);
    }
    if (closing) {
        pthread_mutex_lock(&link->mutex);
        bool closed = link->closed;
        pthread_mutex_unlock(&link->mutex);
        if (!closed)
            serve_closing(link);
        return;
    }
    int state = state_of(link, &closing);
    bool connecting = state == PERF__REDIS_CONNECTING || state == PERF__REDIS_HANDSHAKE ||
                      state == PERF__REDIS_GREETING;
    if (connecting && now >= link->connect_by_ns) {
        attempt_failed(link, PERF_EUNAVAILABLE, "no connection within connect_timeout_ms", now);
        state = state_of(link, &closing);
    }
    if (state == PERF__REDIS_IS_UP)
        return;
    pthread_mutex_lock(&link->mutex);
    perf__redis_expire(link, &ended, now);
    link->timer_ns = link->next_deadline;
    pthread_mutex_unlock(&link->mutex);
    int64_t due = state == PERF__REDIS_PAUSED       ? link->retry_ns
                  : state == PERF__REDIS_CONNECTING ? link->resolve_by_ns
                  : connecting                      ? link->connect_by_ns
                                                    : INT64_MAX;
    link->timer_ns = due < link->timer_ns ? due : link->timer_ns;
    perf__redis_settle(link, &ended);
    perf__redis_call_finished(link);
}
