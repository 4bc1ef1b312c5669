/* SPDX-License-Identifier: MIT */
/*
 * executor_impl.h - what the files of the executor share.
 *
 * executor.c   open, close, options, statistics
 * worker.c     what a thread does: find an item, run it, sleep
 * submit.c     how an item gets in, and what happens when there is no room
 * timer.c      one thread for what is due in time
 * grow.c       more threads, fewer threads
 * task.c       a task from submission to its end; run.c: what its function sees
 * task_wait.c  waiting for one; task_group.c: for several; notify.c: by a descriptor
 */
#ifndef PERF_TASK_EXECUTOR_IMPL_H
#define PERF_TASK_EXECUTOR_IMPL_H

#include <libperf/executor.h>
#include <libperf/resilience.h>
#include <pthread.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/futex.h"
#include "../base/options.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../metrics/histogram.h"
#include "heap.h"
#include "ring.h"

enum {
    PERF__MAX_THREADS = 512,
    PERF__LOCAL_ITEMS = 256, /* power of two */
    PERF__TAKE = 32,         /* most items taken from the common queue at once */
};

/* Priorities as indices, the order in which they are asked. */
enum { PERF__HIGH, PERF__NORMAL, PERF__LOW, PERF__PRIORITIES };

/*
 * A thread's own queue is the one of Go's scheduler (runtime/proc.go): a ring with one who puts
 * and many who take, the owner like a thief from the old end. First come, first served
 * costs a compare-and-swap a task and needs no fence.
 */
struct perf__worker {
    perf_executor *executor;
    _Atomic uint32_t head, tail;
    struct {
        _Atomic(perf_post_fn) fn;
        _Atomic(void *) arg;
    } items[PERF__LOCAL_ITEMS];
    char apart[64];
    _Atomic uint64_t done; /* items taken out and run; written by the owner */
    _Atomic uint64_t stolen, parked;
    uint32_t tick;
    bool searching;
    struct perf__running *running; /* the innermost task on this thread */
    pthread_t thread;
    bool started; /* the thread is to be joined; under the executor's mutex */
    _Atomic bool ended;
};

/* A task on a thread's stack; a task that waits may run another one inside. */
struct perf__running {
    perf_task *task;
    struct perf__running *outer;
};

/* Set in the threads of an executor only. */
extern _Thread_local struct perf__worker *perf__worker_self
    __attribute__((tls_model("initial-exec")));

enum { PERF__OPEN, PERF__DRAINING, PERF__STOPPING };

/* Counters that any thread adds to. */
enum {
    PERF__SUBMITTED, /* items that were to get in */
    PERF__REJECTED,  /* of those, not taken */
    PERF__IN_CALLER, /* of those, run in the caller */
    PERF__FAILED,
    PERF__UNRUN,   /* tasks that ended without having run */
    PERF__DROPPED, /* items whose task had ended already, or posts at a hard stop */
    PERF__HELPED,  /* tasks run by who waited for them */
    PERF__EXECUTOR_COUNTERS
};

struct perf_executor {
    struct perf__host host;
    uint64_t fork_generation;
    uint64_t max_queued;
    int64_t full, full_timeout_ms, grow_after_ms, idle_timeout_ms;
    char name[11];
    _Atomic int state;
    _Atomic(struct perf__ring *) rings[PERF__PRIORITIES]; /* each made when first used */
    struct perf__ring ring_memory[PERF__PRIORITIES];

    /* Who sleeps, and how they are woken: worker.c. */
    char apart[64];
    _Atomic uint32_t sleepers;
    _Atomic uint32_t searching; /* awake without work; 1 is enough, so nobody else is woken */
    _Atomic uint32_t tokens;    /* each wakes one sleeper: a semaphore on a futex */
    _Atomic uint32_t space_waiters, space; /* those who wait for room, and the word they sleep on */
    _Atomic uint32_t threads, blocked;     /* threads; of them, waiting inside a task */
    _Atomic uint32_t min_threads, max_threads;
    _Atomic uint32_t slots; /* workers[] below this have been used */
    _Atomic(struct perf__worker *) workers[PERF__MAX_THREADS];
    uint32_t threads_max;
    perf_adaptive_limit *limit; /* NULL: not adaptive */

    pthread_mutex_t mutex; /* threads that start and end, drainers, timers, notify: all rare */
    pthread_cond_t idle;   /* for drainers: a thread went to sleep or ended */
    uint32_t drainers;

    /* timer.c, under the mutex */
    pthread_cond_t due;
    pthread_t timer_thread;
    bool timer_started, timer_stop;
    struct perf__heap timers;
    _Atomic bool saturated; /* all threads have work: growing is thought about */
    uint64_t tick_tail, tick_done;

    /* notify.c, under the mutex */
    struct perf__done *notify_first, **notify_last;
    int notify_fd;

    struct perf__counters counters;
    struct perf__histogram run_ns, wait_ns;
};

/* Called when a task has ended; lives in the task or is its own block. */
struct perf__done {
    struct perf__done *next;
    void (*fn)(struct perf__done *self, perf_task *task);
    void *ctx;
    perf_task_done_fn user;
    perf_task *task; /* notify.c */
};

struct perf__progress {
    pthread_mutex_t mutex;
    perf_progress now;
};

struct perf_run {
    perf_task *task;
    struct perf__claim *claim;
    _Atomic int64_t deadline_ns; /* 0: none */
    _Atomic int64_t started_ns;  /* by the coarse clock */
    char *why;
    void *result;
    size_t result_len;
};

/* The word of a task: its state, and flags. */
enum {
    PERF__STATE_MASK = 0xff,
    PERF__CANCEL = 0x100,  /* asked to stop */
    PERF__EXPIRED = 0x200, /* its time is over */
    PERF__WAITED = 0x400,  /* somebody sleeps on the word */
};

struct perf_task {
    _Atomic uint32_t refs;
    _Atomic uint32_t word;
    perf_executor *executor; /* not after its end; NULL: nobody's */
    perf_allocator allocator;
    perf_clock clock;
    perf_task_fn fn;
    void *arg;
    void (*free_arg)(void *arg);
    const char *name;
    perf_run run;
    int status;
    int32_t priority;     /* PERF__HIGH... */
    int64_t submitted_ns; /* 0: not measured */
    int64_t interval_ns;  /* recurring */
    perf_task *parent;    /* held */
    perf_task *previous;  /* of a chain, held: its result is our input */
    perf_task_group *group;
    perf_task *group_next, **group_link; /* among the group's living, under its mutex */
    struct perf__done *_Atomic done;     /* a stack; &perf__done_closed: the end has been told */
    struct perf__done own_done, group_done, notify_done;
    struct perf__heap_node timer;
    int64_t due_ns; /* when the timer is or was due; 0: it had none */
    bool timed;     /* it has a timer now and then */
    int fd;
    _Atomic(struct perf__progress *) progress;
};

/* executor.c */
static inline int perf__executor_usable(const perf_executor *e)
{
    if (!e)
        return perf__fail(PERF_EINVAL, "executor is NULL; give one that perf_executor_open made");
    return e->fork_generation == perf__fork_generation ? PERF_OK : perf__fail_forked();
}
/* Nothing queued, nothing running? */
bool perf__executor_quiet(perf_executor *e);

/* submit.c: item gets in, from outside or (self) a thread of e. force: a chain, a timer or a
 * worker's own item, which is taken also while draining, and never waits. */
int perf__submit(perf_executor *e, int priority, struct perf__item item, bool force);
/* One more thread for what was put, if that may be needed. */
void perf__submit_notify(perf_executor *e);
/* Room was made: those who wait for it are woken. */
void perf__submit_made_room(perf_executor *e);

/* worker.c */
void *perf__worker_main(void *worker);
bool perf__worker_put(struct perf__worker *w, struct perf__item item);
/* Wakes one thread if one sleeps and nobody is looking for work already. */
void perf__worker_wake(perf_executor *e);
void perf__worker_wake_all(perf_executor *e);
uint32_t perf__worker_count(const struct perf__worker *w);

/* grow.c */
int perf__grow(perf_executor *e, uint32_t up_to);
/* How long an idle thread sleeps before it asks whether it may end; negative: it stays. */
int64_t perf__idle_ns(perf_executor *e);
/* May this thread, idle for so long, end? Then it is counted out already. */
bool perf__shrink(perf_executor *e, int64_t idle_ns);
/* A thread of e is about to wait inside a task, or has. */
void perf__block_begin(perf_executor *e);
void perf__block_end(perf_executor *e);
/* Every grow_after_ms while all threads have work: true if it should come again. */
bool perf__grow_tick(perf_executor *e);
/* All threads have work; by who took the last item. */
void perf__grow_watch(perf_executor *e);

/* timer.c */
int perf__timer_set(perf_executor *e, perf_task *task, int64_t at_ns); /* takes a hold of task */
void perf__timer_clear(perf_executor *e, perf_task *task);             /* and gives it back */
int perf__timer_start(perf_executor *e);                               /* under the mutex */
void perf__timer_stop(perf_executor *e);

/* task.c */
int perf__task_new(perf_executor *e, perf_task_fn fn, void *arg, const perf_task_options *options,
                   int64_t interval_ms, perf_task **out);
/* Counted as submitted, and on its way: queued, or with its timer. The caller's hold is taken
 * along. */
int perf__task_begin(perf_task *task, bool force);
/* Puts a task that waited into the queue; by its timer or its chain. */
void perf__task_enqueue(perf_task *task);
/* Takes a queued task for running here; false: it has ended or runs. */
bool perf__task_take(perf_task *task);
/* Runs a taken task on this thread, and ends it. */
void perf__task_run(perf_task *task);
void perf__task_due(perf_task *task); /* by timer.c */
/* Not begun: ends with status. False: it runs or has ended. */
bool perf__task_drop(perf_task *task, int status);
void perf__task_end(perf_task *task, int status, int state);
void perf__task_unref(perf_task *task);
/* done is called when task ends, or at once. */
void perf__task_call(perf_task *task, struct perf__done *done);
bool perf__task_has_ended(const perf_task *task);
void perf__task_item(void *task); /* the function of a task's item */

static inline uint32_t perf__task_word(const perf_task *task)
{
    return atomic_load_explicit(&task->word, memory_order_acquire);
}

/* run.c */
void perf__run_begin(perf_run *run, perf_task *task);
void perf__run_destroy(perf_run *run);

/* task_group.c */
void perf__group_add(perf_task_group *group, perf_task *task);
/* Not submitted after all. */
void perf__group_forget(perf_task_group *group, perf_task *task);

/* notify.c */
void perf__notify(struct perf__done *done, perf_task *task);
void perf__notify_close(perf_executor *e);

/* task_wait.c: sleeps until task has ended or until_ns of its clock (0: for ever). */
bool perf__task_sleep(perf_task *task, int64_t until_ns);
/* The task's own status, now that it has ended. */
int perf__task_answer(perf_task *task, perf_bytes *result);

#endif
