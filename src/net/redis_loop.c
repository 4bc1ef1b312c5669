/* SPDX-License-Identifier: MIT */
/*
 * redis_loop.c - the I/O thread of any number of links: sockets by epoll, timers,
 * and links or tasks that call for it.
 *
 * A link that is up and read by its callers stays in the epoll set for its
 * peer's leaving only, which costs nothing while data comes. The loop's mutex is
 * a leaf: it is taken with a link's mutex held, never the other way round.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "redis_link_impl.h"

enum { EVENTS = 64, LONGEST_MS = 60000 };

TAILQ_HEAD(links, perf__redis_link);

struct perf__redis_loop {
    const struct perf__host *host;
    pthread_mutex_t mutex;
    struct links links; /* mutex for changes; the I/O thread is the one that walks it */
    struct perf__redis_link *attention, **attention_end;
    struct perf__redis_link *serving; /* by a call for attention */
    pthread_cond_t served;
    struct perf__redis_task *tasks, **tasks_end;
    bool started, stopping;
    _Atomic bool ending;
    _Atomic bool awake; /* the I/O thread will look again before it sleeps */
    pthread_t thread;
    int epoll_fd, wake_fd;
};

const struct perf__host *perf__redis_loop_host(struct perf__redis_loop *loop)
{
    return loop->host;
}

/* Thread-local by nature: whose I/O thread this one is. */
static _Thread_local struct perf__redis_loop *here __attribute__((tls_model("initial-exec")));

bool perf__redis_loop_is_here(struct perf__redis_loop *loop)
{
    return here == loop;
}

/* -------------------------------------------------------------------- sockets */

void perf__redis_loop_watch(struct perf__redis_link *link, uint32_t events)
{
    events |= EPOLLRDHUP | (events ? 0u : (uint32_t)EPOLLET);
    if (link->in_epoll && link->watched == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = link};
    epoll_ctl(link->loop->epoll_fd, link->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, link->fd,
              &event);
    link->in_epoll = true;
    link->watched = events;
}

void perf__redis_loop_forget(struct perf__redis_link *link)
{
    if (link->in_epoll)
        epoll_ctl(link->loop->epoll_fd, EPOLL_CTL_DEL, link->fd, NULL);
    link->in_epoll = false;
}

/* ------------------------------------------------------------------ the thread */

static void wake(struct perf__redis_loop *loop)
{
    if (!atomic_exchange(&loop->awake, true))
        (void)!write(loop->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

/* With the mutex. */
static void queue_attention(struct perf__redis_loop *loop, struct perf__redis_link *link)
{
    if (link->attention)
        return;
    link->attention = true;
    link->next_attention = NULL;
    *loop->attention_end = link;
    loop->attention_end = &link->next_attention;
}

void perf__redis_attend(struct perf__redis_link *link)
{
    struct perf__redis_loop *loop = link->loop;
    pthread_mutex_lock(&loop->mutex);
    queue_attention(loop, link);
    pthread_mutex_unlock(&loop->mutex);
    wake(loop);
}

static struct perf__redis_link *next_attention(struct perf__redis_loop *loop)
{
    pthread_mutex_lock(&loop->mutex);
    struct perf__redis_link *link = loop->attention;
    if (link) {
        loop->attention = link->next_attention;
        if (!loop->attention)
            loop->attention_end = &loop->attention;
        link->attention = false;
    }
    loop->serving = link;
    pthread_cond_broadcast(&loop->served);
    pthread_mutex_unlock(&loop->mutex);
    return link;
}

static void run_tasks(struct perf__redis_loop *loop)
{
    for (;;) {
        pthread_mutex_lock(&loop->mutex);
        struct perf__redis_task *task = loop->tasks;
        loop->tasks = NULL;
        loop->tasks_end = &loop->tasks;
        pthread_mutex_unlock(&loop->mutex);
        if (!task)
            return;
        while (task) {
            struct perf__redis_task *next = task->next;
            task->fn(task->ctx);
            task = next;
        }
    }
}

/* Calls for attention, then links whose time has come. How long there is to sleep. */
static int64_t serve_all(struct perf__redis_loop *loop)
{
    struct perf__redis_link *link;
    int64_t first = INT64_MAX, now = perf__redis_now();
    while ((link = next_attention(loop)))
        perf__redis_serve(link, 0, now);
    pthread_mutex_lock(&loop->mutex);
    TAILQ_FOREACH(link, &loop->links, all)
    {
        if (link->timer_ns <= now)
            queue_attention(loop, link);
        first = link->timer_ns < first ? link->timer_ns : first;
    }
    bool more = loop->attention || loop->tasks;
    pthread_mutex_unlock(&loop->mutex);
    return more ? now : first;
}

static void *loop_main(void *argument)
{
    struct perf__redis_loop *loop = argument;
    struct epoll_event events[EVENTS];
    here = loop;
    atomic_store(&loop->awake, true);
    for (;;) {
        run_tasks(loop);
        int64_t until = serve_all(loop);
        /* Whoever calls from here on must write to wake_fd; what came before is looked for. */
        atomic_store(&loop->awake, false);
        pthread_mutex_lock(&loop->mutex);
        bool stopping = loop->stopping, more = loop->attention || loop->tasks;
        pthread_mutex_unlock(&loop->mutex);
        if (stopping && !more)
            break;
        int64_t wait_ms = 0;
        if (!more && until > perf__redis_now()) {
            wait_ms = until == INT64_MAX ? LONGEST_MS : (until - perf__redis_now()) / 1000000 + 1;
            wait_ms = wait_ms > LONGEST_MS ? LONGEST_MS : wait_ms < 0 ? 0 : wait_ms;
        }
        int count = epoll_wait(loop->epoll_fd, events, EVENTS, (int)wait_ms);
        atomic_store(&loop->awake, true);
        int64_t now = perf__redis_now();
        for (int i = 0; i < count; i++)
            if (events[i].data.ptr)
                perf__redis_serve(events[i].data.ptr, events[i].events, now);
    }
    return NULL;
}

/* With the mutex. */
static int start(struct perf__redis_loop *loop)
{
    if (loop->stopping || atomic_load(&loop->ending))
        return perf__fail(PERF_ECLOSED, "the Redis client is closing");
    if (loop->started)
        return PERF_OK;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    int error = 0;
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event))
        error = errno;
    else
        error = perf__thread_start(&loop->thread, "perf-redis", loop_main, loop);
    if (!error) {
        loop->started = true;
        return PERF_OK;
    }
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    loop->epoll_fd = loop->wake_fd = -1;
    return perf__fail(PERF_EIO,
                      "no I/O thread for Redis could be had: %s; raise the limits of "
                      "threads and open files",
                      strerror(error));
}

int perf__redis_loop_add(struct perf__redis_link *link)
{
    struct perf__redis_loop *loop = link->loop;
    pthread_mutex_lock(&loop->mutex);
    int rc = start(loop);
    if (!rc)
        TAILQ_INSERT_TAIL(&loop->links, link, all);
    pthread_mutex_unlock(&loop->mutex);
    return rc;
}

void perf__redis_loop_remove(struct perf__redis_link *link)
{
    struct perf__redis_loop *loop = link->loop;
    pthread_mutex_lock(&loop->mutex);
    TAILQ_REMOVE(&loop->links, link, all);
    if (link->attention) {
        struct perf__redis_link **at = &loop->attention;
        while (*at != link)
            at = &(*at)->next_attention;
        *at = link->next_attention;
        if (loop->attention_end == &link->next_attention)
            loop->attention_end = at;
        link->attention = false;
    }
    while (loop->serving == link)
        pthread_cond_wait(&loop->served, &loop->mutex);
    pthread_mutex_unlock(&loop->mutex);
}

bool perf__redis_loop_ends(struct perf__redis_loop *loop)
{
    return atomic_load_explicit(&loop->ending, memory_order_acquire);
}

void perf__redis_loop_end_all(struct perf__redis_loop *loop)
{
    struct perf__redis_link *link;
    atomic_store(&loop->ending, true);
    pthread_mutex_lock(&loop->mutex);
    TAILQ_FOREACH(link, &loop->links, all)
    queue_attention(loop, link);
    bool started = loop->started;
    pthread_mutex_unlock(&loop->mutex);
    if (started)
        wake(loop);
}

int perf__redis_loop_post(struct perf__redis_loop *loop, struct perf__redis_task *task)
{
    pthread_mutex_lock(&loop->mutex);
    int rc = start(loop);
    if (!rc) {
        task->next = NULL;
        *loop->tasks_end = task;
        loop->tasks_end = &task->next;
    }
    pthread_mutex_unlock(&loop->mutex);
    if (!rc)
        wake(loop);
    return rc;
}

/* --------------------------------------------------------------- open, close */

int perf__redis_loop_open(const struct perf__host *host, struct perf__redis_loop **out)
{
    struct perf__redis_loop *loop = perf__calloc(&host->allocator, 1, sizeof *loop);
    if (!loop || pthread_mutex_init(&loop->mutex, NULL)) {
        perf__free(&host->allocator, loop);
        return perf__fail_nomem("the I/O thread of a Redis client");
    }
    if (perf__cond_init(&loop->served)) {
        pthread_mutex_destroy(&loop->mutex);
        perf__free(&host->allocator, loop);
        return perf__fail_nomem("the I/O thread of a Redis client");
    }
    loop->host = host;
    loop->epoll_fd = loop->wake_fd = -1;
    loop->attention_end = &loop->attention;
    loop->tasks_end = &loop->tasks;
    TAILQ_INIT(&loop->links);
    *out = loop;
    return PERF_OK;
}

void perf__redis_loop_close(struct perf__redis_loop *loop)
{
    if (!loop)
        return;
    pthread_mutex_lock(&loop->mutex);
    loop->stopping = true;
    bool started = loop->started;
    pthread_mutex_unlock(&loop->mutex);
    if (started) {
        wake(loop);
        pthread_join(loop->thread, NULL);
        close(loop->epoll_fd);
        close(loop->wake_fd);
    }
    pthread_cond_destroy(&loop->served);
    pthread_mutex_destroy(&loop->mutex);
    perf__free(&loop->host->allocator, loop);
}

void perf__redis_loop_abandon(struct perf__redis_loop *loop)
{
    struct perf__redis_link *link;
    TAILQ_FOREACH(link, &loop->links, all)
    if (link->fd >= 0)
        close(link->fd);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
}
