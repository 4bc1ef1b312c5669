/* SPDX-License-Identifier: MIT */
/*
 * http_loop.c - sockets and timers for curl, by epoll. All at the wheel.
 *
 * curl's own loop would look at every handle each time; curl_multi_socket_action
 * only looks at those with news. A connection that becomes idle stays in the
 * epoll set: taking it out and in again would cost two system calls a request,
 * and so we hear when its peer closes it.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "http.h"

enum {
    EVENTS = 64,           /* taken from epoll at once */
    SOCKETS_MAX = 1 << 20, /* highest descriptor that we can remember */
};

int64_t perf__http_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --------------------------------------------------------------- sockets */

/* The slot of fd, or NULL without memory. */
static struct perf__http_socket *slot_of(perf_http *http, curl_socket_t fd)
{
    if (fd < 0 || fd >= SOCKETS_MAX)
        return NULL;
    if ((size_t)fd >= http->socket_slots) {
        size_t slots = http->socket_slots ? http->socket_slots : 64;
        while (slots <= (size_t)fd)
            slots *= 2;
        struct perf__http_socket *sockets =
            perf__realloc(&http->host.allocator, http->sockets, slots * sizeof *sockets);
        if (!sockets)
            return NULL;
        memset(sockets + http->socket_slots, 0, (slots - http->socket_slots) * sizeof *sockets);
        http->sockets = sockets;
        http->socket_slots = slots;
    }
    return &http->sockets[fd];
}

/* Tells epoll. What we know may be out of date for descriptors that curl opens and closes itself,
 * so both ways are tried. Failing leaves a request to its deadline. */
static void watch(perf_http *http, curl_socket_t fd, struct perf__http_socket *s, uint32_t events)
{
    if (s->watched == events)
        return;
    struct epoll_event event = {.events = events, .data.fd = fd};
    int op = !events ? EPOLL_CTL_DEL : s->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int rc = epoll_ctl(http->epoll_fd, op, fd, &event);
    if (rc && op == EPOLL_CTL_MOD && errno == ENOENT)
        rc = epoll_ctl(http->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    else if (rc && op == EPOLL_CTL_ADD && errno == EEXIST)
        rc = epoll_ctl(http->epoll_fd, EPOLL_CTL_MOD, fd, &event);
    if (!rc || op == EPOLL_CTL_DEL)
        s->watched = events;
}

static ino_t inode_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) ? 0 : st.st_ino;
}

/* Some libcurls (7.88 is one) close a socket that is still connecting without telling us, and its
 * number may be a file of the host's by now: nothing is done to an idle one before this is asked.
 * False: the slot is empty. */
static bool still_ours(perf_http *http, int fd)
{
    struct perf__http_socket *s = &http->sockets[fd];
    if (s->open && inode_of(fd) == s->inode)
        return true;
    atomic_fetch_sub_explicit(&http->open_sockets, s->open, memory_order_relaxed);
    memset(s, 0, sizeof *s);
    return false;
}

/* Never fails: the multi handle would be dead for all requests. */
static int on_socket(CURL *curl, curl_socket_t fd, int what, void *ctx, void *per_socket)
{
    (void)curl, (void)per_socket;
    perf_http *http = ctx;
    struct perf__http_socket *s = slot_of(http, fd);
    if (!s)
        return 0;
    if (what == CURL_POLL_REMOVE) {
        s->wanted = 0;
        s->idle_ms = perf__http_now_ms();
        if (!s->open)
            watch(http, fd, s, 0);
        else if (s->watched && s->watched != EPOLLIN && still_ours(http, fd))
            watch(http, fd, s, EPOLLIN);
        return 0;
    }
    s->wanted = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
    watch(http, fd, s, s->wanted);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *ctx)
{
    (void)multi;
    perf_http *http = ctx;
    http->timer_ms = timeout_ms < 0 ? -1 : perf__http_now_ms() + timeout_ms;
    return 0;
}

curl_socket_t perf__http_socket_open(void *ctx, curlsocktype purpose, struct curl_sockaddr *addr)
{
    (void)purpose;
    perf_http *http = ctx;
    int fd = socket(addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    struct perf__http_socket *s = slot_of(http, fd);
    if (!s) {
        close(fd);
        return CURL_SOCKET_BAD;
    }
    atomic_fetch_add_explicit(&http->open_sockets, !s->open, memory_order_relaxed);
    *s = (struct perf__http_socket){.open = true, .inode = inode_of(fd)};
    return fd;
}

int perf__http_socket_close(void *ctx, curl_socket_t fd)
{
    perf_http *http = ctx;
    struct perf__http_socket *s = slot_of(http, fd);
    if (!s)
        return close(fd); /* not one that we opened */
    /* A child of a fork may hold the socket, too: closing does not take it out of epoll then. */
    watch(http, fd, s, 0);
    atomic_fetch_sub_explicit(&http->open_sockets, s->open, memory_order_relaxed);
    memset(s, 0, sizeof *s);
    return close(fd);
}

/* No reuse: curl sees the end of it when it next looks. */
static void kill_idle(perf_http *http, size_t fd)
{
    struct perf__http_socket *s = &http->sockets[fd];
    if (!still_ours(http, (int)fd))
        return;
    watch(http, (curl_socket_t)fd, s, 0);
    shutdown((int)fd, SHUT_RDWR);
    s->dead = true;
}

/* News from a socket that nobody uses: its peer has gone, or talks out of turn (TLS tickets,
 * HTTP/2 pings), which is left for later. */
static void idle_news(perf_http *http, int fd, uint32_t events)
{
    if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
        kill_idle(http, (size_t)fd);
        return;
    }
    char byte;
    if (!still_ours(http, fd))
        epoll_ctl(http->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    else if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        kill_idle(http, (size_t)fd);
    else
        watch(http, fd, &http->sockets[fd], 0);
}

/* ------------------------------------------------------- idle connections */

static curl_socket_t refuse_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *addr)
{
    (void)ctx, (void)purpose, (void)addr;
    return CURL_SOCKET_BAD;
}

/* curl closes dead and old connections only on its way to a new one (and at most once a second):
 * a request that gets no socket takes it there. */
static void make_curl_prune(perf_http *http)
{
    int running;
    if (!http->sweeper) {
        CURL *curl = http->sweeper = curl_easy_init();
        if (!curl)
            return;
        curl_easy_setopt(curl, CURLOPT_URL, "http://127.0.0.1:1/");
        curl_easy_setopt(curl, CURLOPT_PROXY, "");
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(curl, CURLOPT_MAXAGE_CONN, (long)(http->options.idle_timeout_ms / 1000));
        curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, refuse_socket);
    }
    if (!curl_multi_add_handle(http->multi, http->sweeper)) {
        curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        curl_multi_remove_handle(http->multi, http->sweeper);
    }
}

static size_t kill_older(perf_http *http, int64_t ms)
{
    int64_t now = perf__http_now_ms();
    size_t found = 0;
    for (size_t fd = 0; fd < http->socket_slots; fd++) {
        struct perf__http_socket *s = &http->sockets[fd];
        if (!s->open || s->wanted || !s->idle_ms)
            continue;
        if (!s->dead && now - s->idle_ms >= ms)
            kill_idle(http, fd);
        found += s->dead;
    }
    return found;
}

void perf__http_loop_sweep(perf_http *http)
{
    perf__http_loop_wait(http, 0); /* which peers have left? */
    if (kill_older(http, http->options.idle_timeout_ms))
        make_curl_prune(http);
}

/* A process that was frozen (a Lambda function, a suspended machine) wakes with connections that
 * their peers gave up long ago, and curl's clock may have stood still. */
static void notice_freeze(perf_http *http)
{
    struct timespec boot;
    clock_gettime(CLOCK_BOOTTIME, &boot);
    int64_t now[3] = {(int64_t)boot.tv_sec * 1000 + boot.tv_nsec / 1000000,
                      perf__now_ms(&http->host.clock), perf__realtime_coarse_ms(&http->host.clock)};
    bool frozen = false;
    for (int i = 0; i < 3; i++) {
        frozen |= http->last_ms[i] && now[i] - http->last_ms[i] >= http->options.idle_timeout_ms;
        http->last_ms[i] = now[i];
    }
    if (__builtin_expect(frozen, 0))
        kill_older(http, 0);
}

/* ---------------------------------------------------------------- requests */

void perf__http_loop_finish(perf_http *http, perf_http_call *call)
{
    call->ended = true;
    call->next_finished = http->finished;
    http->finished = call;
}

void perf__http_loop_start(perf_http *http, perf_http_call *call)
{
    notice_freeze(http);
    call->easy = perf__http_easy_take(http, call);
    if (!call->easy) {
        perf__http_call_fail(call, PERF_ENOMEM, "no memory for a connection's handle");
        perf__http_loop_finish(http, call);
        return;
    }
    CURLMcode code = curl_multi_add_handle(http->multi, call->easy->curl);
    if (code) {
        perf__http_call_fail(call, code == CURLM_OUT_OF_MEMORY ? PERF_ENOMEM : PERF_EIO,
                             "libcurl refused it: %s", curl_multi_strerror(code));
        perf__http_easy_give(http, call->easy);
        call->easy = NULL;
        perf__http_loop_finish(http, call);
    }
}

void perf__http_loop_stop(perf_http *http, perf_http_call *call)
{
    curl_multi_remove_handle(http->multi, call->easy->curl);
    perf__http_easy_give(http, call->easy);
    call->easy = NULL;
    perf__http_loop_finish(http, call);
}

static void collect(perf_http *http)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(http->multi, &left))) {
        struct perf__http_easy *easy = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&easy);
        if (message->msg != CURLMSG_DONE || !easy)
            continue; /* the sweeper */
        perf_http_call *call = easy->call;
        perf__http_outcome(call, message->data.result);
        perf__http_loop_stop(http, call);
    }
}

void perf__http_loop_turn(perf_http *http)
{
    int running;
    if (http->timer_ms >= 0 && perf__http_now_ms() >= http->timer_ms) {
        http->timer_ms = -1;
        curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        collect(http);
    }
}

void perf__http_loop_wait(perf_http *http, int64_t until_ms)
{
    struct epoll_event events[EVENTS];
    int64_t now = perf__http_now_ms();
    int64_t until = http->timer_ms >= 0 && http->timer_ms < until_ms ? http->timer_ms : until_ms;
    int64_t timeout = until - now;
    timeout = timeout < 0 ? 0 : timeout > 60000 ? 60000 : timeout;
    int count = epoll_wait(http->epoll_fd, events, EVENTS, (int)timeout), running;
    for (int i = 0; i < count; i++) {
        int fd = events[i].data.fd;
        uint32_t news = events[i].events;
        if (fd == http->wake_fd)
            continue; /* edge-triggered: nothing to read */
        if (!http->sockets[fd].watched)
            continue; /* closed by what we did for an earlier event */
        if (!http->sockets[fd].wanted) {
            idle_news(http, fd, news);
            continue;
        }
        int mask = (news & (EPOLLIN | EPOLLRDHUP | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
                   (news & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                   (news & EPOLLERR ? CURL_CSELECT_ERR : 0);
        curl_multi_socket_action(http->multi, fd, mask, &running);
    }
    if (count > 0)
        collect(http);
}

void perf__http_loop_wake(perf_http *http)
{
    (void)!write(http->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

/* ------------------------------------------------------------ begin and end */

int perf__http_loop_open(perf_http *http)
{
    http->multi = NULL;
    http->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    http->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    http->timer_ms = -1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = http->wake_fd};
    if (http->epoll_fd < 0 || http->wake_fd < 0 ||
        epoll_ctl(http->epoll_fd, EPOLL_CTL_ADD, http->wake_fd, &event))
        return perf__fail(PERF_EIO,
                          "no epoll or event descriptor could be had: %s; raise the "
                          "limit of open files",
                          strerror(errno));
    http->multi = curl_multi_init();
    http->share = curl_share_init();
    if (!http->multi || !http->share)
        return perf__fail_nomem("libcurl's handles");
    CURLM *m = http->multi;
    curl_share_setopt(http->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(m, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(m, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(m, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
    /* Our queue keeps within these; they make curl close idle connections for new ones. */
    curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, (long)http->options.max_connections);
    curl_multi_setopt(m, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)http->options.max_connections);
    curl_multi_setopt(m, CURLMOPT_MAX_HOST_CONNECTIONS, (long)http->options.max_host_connections);
    return PERF_OK;
}

void perf__http_loop_close(perf_http *http)
{
    while (http->easies) {
        struct perf__http_easy *next = http->easies->next;
        perf__http_easy_free(http->easies);
        http->easies = next;
    }
    curl_easy_cleanup(http->sweeper);
    curl_multi_cleanup(http->multi);
    curl_share_cleanup(http->share);
    if (http->epoll_fd >= 0)
        close(http->epoll_fd);
    if (http->wake_fd >= 0)
        close(http->wake_fd);
    perf__free(&http->host.allocator, http->sockets);
    http->easies = NULL;
    http->sweeper = http->multi = http->share = NULL;
    http->epoll_fd = http->wake_fd = -1;
    http->sockets = NULL;
    http->socket_slots = 0;
}

void perf__http_loop_abandon(perf_http *http)
{
    for (size_t fd = 0; fd < http->socket_slots; fd++)
        if (still_ours(http, (int)fd))
            close((int)fd);
    close(http->epoll_fd);
    close(http->wake_fd);
    close(http->done_fd);
}
