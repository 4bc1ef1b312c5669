/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite.c - the embedded durable queue: tasks in one SQLite file, for several processes.
 *
 * When a call returned PERF_OK its transaction is committed: kill -9 does not
 * undo it, and with PERF_SYNC_FULL neither does a power cut.
 *
 * The trick is group commit: a commit costs more than the work in it, so
 * callers put their calls into a list, and whoever gets the connection runs
 * all that wait there, of every kind, in one transaction (a task may come and
 * be claimed in it without having been queued), and wakes the
 * others. If that fails, each is run again in a transaction of its own, so that
 * none fails for another's sake. Calls that would find nothing to do look
 * first, without a transaction. Any thread.
 */
#include "queue_sqlite.h"

#include <sched.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "turn.h"

enum { LOOK_MS = 50, ERROR_MAX = 512 };

enum verb { ENQUEUE, CLAIM, EXTEND, FINISH, CONTROL, SWEEP };

/* A call on its caller's stack. */
struct queue_job {
    struct queue_job *next;
    enum verb verb;
    int rc;
    bool needed;
    _Atomic uint32_t turn;
    char error[ERROR_MAX]; /* the sentence of rc, for the caller's thread */

    const perf_queue_task *tasks;
    size_t count;
    int *statuses;
    char (*existing)[72];
    const perf_queue_claim *want;
    perf_queue_reply *reply;
    size_t before; /* tasks in the reply that are not of this call */
    perf_queue_beat *beats;
    perf_queue_end *ends;
    int control;
    const char *name;
    uint64_t *n;
    size_t budget;
    perf_queue_swept *swept;
    int64_t now_ms;
};

/* ------------------------------------------------------------- a transaction */

/* Keeps the worst of several answers; PERF_EEXISTS is none of them. */
static void note(struct queue_job *job, int rc)
{
    if (!job->rc && rc && rc != PERF_EEXISTS)
        job->rc = rc;
}

/* Runs one call. Its statuses and job->rc are answers; db->rc undoes everything. */
static void execute(struct queue_db *db, struct queue_job *job)
{
    job->rc = PERF_OK;
    switch (job->verb) {
    case ENQUEUE:
        for (size_t i = 0; i < job->count && !db->rc; i++) {
            job->statuses[i] =
                perf__queue_write_enqueue(db, &job->tasks[i], job->now_ms, job->existing[i]);
            note(job, job->statuses[i]);
        }
        break;
    case CLAIM:
        job->rc = perf__queue_write_claim(db, job->want, job->reply);
        break;
    case EXTEND:
        for (size_t i = 0; i < job->count && !db->rc; i++)
            job->beats[i].status = perf__queue_write_extend(db, &job->beats[i]);
        break;
    case FINISH:
        for (size_t i = 0; i < job->count && !db->rc; i++)
            job->ends[i].outcome = perf__queue_write_finish(db, &job->ends[i]);
        break;
    case CONTROL:
        job->rc = perf__queue_write_control(db, job->control, job->name, job->now_ms, job->n);
        break;
    case SWEEP:
        job->rc = perf__queue_write_sweep(db, job->now_ms, job->budget, job->swept);
        break;
    }
}

/* Nothing of a call has happened. */
static void undo(struct queue_job *job)
{
    if (job->verb == CLAIM)
        while (job->reply->count > job->before)
            perf__free(job->reply->allocator, job->reply->tasks[--job->reply->count]);
    if (job->verb == SWEEP)
        *job->swept = (perf_queue_swept){.struct_size = sizeof *job->swept};
}

static void say(struct queue_job *job)
{
    if (job->rc >= 0)
        return;
    size_t len = strnlen(perf_last_error(), ERROR_MAX - 1);
    memcpy(job->error, perf_last_error(), len);
    job->error[len] = 0;
}

static void fail(struct queue_job *job, int rc)
{
    undo(job);
    job->rc = rc;
    for (size_t i = 0; job->verb == ENQUEUE && i < job->count; i++)
        job->statuses[i] = rc;
    say(job);
}

/* The calls of a transaction from first on, those that claim, those that submit, or the others. */
enum turn { OTHERS, CLAIMS, SUBMISSIONS };

static void execute_some(struct queue_db *db, struct queue_job *first, const struct queue_job *end,
                         enum turn turn)
{
    for (struct queue_job *job = first; job != end && !db->rc; job = job->next) {
        enum turn its = job->verb == CLAIM ? CLAIMS : job->verb == ENQUEUE ? SUBMISSIONS : OTHERS;
        if (!job->needed || its != turn)
            continue;
        /* Tasks of one call go by their order: they are taken all, or none. */
        if (turn == SUBMISSIONS && job->count > perf__queue_taker_room(&db->taker))
            db->taker.want = NULL;
        execute(db, job);
        say(job);
    }
}

/*
 * Submissions come last: a claim before them that found less than it wants takes them as they come,
 * and they are written once instead of twice, and not read at all. That goes on until
 * something stands in a lane, which is then before them.
 */
static void execute_all(struct queue_db *db, struct queue_job *first, const struct queue_job *end)
{
    db->taker.want = NULL;
    execute_some(db, first, end, OTHERS);
    bool news = db->news;
    db->news = false;
    execute_some(db, first, end, CLAIMS);
    execute_some(db, first, end, SUBMISSIONS);
    db->taker.want = NULL;
    db->news = db->news || news;
    for (struct queue_job *job = first; job != end; job = job->next)
        if (job->verb == CLAIM && job->rc == PERF_MISS && job->reply->count > job->before)
            job->rc = PERF_OK;
}

/* Runs the calls from first on that are needed, those of one transaction. */
static int run_transaction(struct sqlite_queue *q, struct queue_job *first, struct queue_job *end)
{
    struct queue_db *db = &q->writer;
    db->rc = PERF_OK;
    db->news = false;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_BEGIN, ""));
    perf__queue_db_refresh(db);
    execute_all(db, first, end);
    perf__queue_db_settle(db);
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_COMMIT, ""));
    if (!db->rc)
        return PERF_OK;
    if (!sqlite3_get_autocommit(db->db))
        sqlite3_exec(db->db, "ROLLBACK", NULL, NULL, NULL);
    db->changes = -1; /* what was remembered may never have been */
    perf__free(&q->allocator, db->claimed);
    db->claimed = NULL;
    db->news = false;
    return db->rc;
}

/* Which calls have something to do? */
static bool look(struct sqlite_queue *q, struct queue_job *first)
{
    struct queue_db *db = &q->writer;
    bool any = false, reading = false;
    db->rc = PERF_OK;
    for (struct queue_job *job = first; job; job = job->next)
        any = any || (job->verb != CLAIM && job->verb != SWEEP);
    for (struct queue_job *job = first; job; job = job->next) {
        job->needed = true;
        if (any || (job->verb != CLAIM && job->verb != SWEEP))
            continue;
        if (!reading) {
            perf__queue_db_run(db, perf__queue_db_bind(db, SQL_BEGIN_READ, ""));
            perf__queue_db_refresh(db);
            reading = true;
        }
        bool needed = job->verb == CLAIM ? perf__queue_write_may_claim(db, job->want)
                                         : perf__queue_write_may_sweep(db, job->now_ms, job->swept);
        job->needed = needed || db->rc;
        job->rc = job->verb == CLAIM ? PERF_MISS : PERF_OK;
    }
    if (reading && !sqlite3_get_autocommit(db->db) &&
        sqlite3_exec(db->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        sqlite3_exec(db->db, "ROLLBACK", NULL, NULL, NULL);
    for (struct queue_job *job = first; job; job = job->next)
        any = any || job->needed;
    return any;
}

/* Runs a list of calls. True: something became claimable. */
static bool run_all(struct sqlite_queue *q, struct queue_job *first)
{
    if (!look(q, first))
        return false;
    int rc = run_transaction(q, first, NULL);
    if (!rc)
        return q->writer.news;
    if (!first->next || rc == PERF_EBUSY) {
        for (struct queue_job *job = first; job; job = job->next)
            if (job->needed)
                fail(job, rc);
        return false;
    }
    bool news = false;
    for (struct queue_job *job = first; job; job = job->next) {
        if (!job->needed)
            continue;
        undo(job);
        rc = run_transaction(q, job, job->next);
        if (rc)
            fail(job, rc);
        else
            news = news || q->writer.news;
    }
    return news;
}

/* ----------------------------------------------------------------- the list */

/* The connection is free; the mutex is held. Who takes it, to be told: the next one in the list. */
static struct queue_job *pass_on(struct sqlite_queue *q)
{
    q->busy = q->first != NULL;
    return q->first;
}

/* Runs all that wait, of which own is one, and lets go of the connection. The mutex is held, and
 * free when it returns: nobody is woken only to wait for it. */
static void lead(struct sqlite_queue *q, const struct queue_job *own)
{
    /* Those who were woken by the last commit are about to bring their next call. */
    if (q->crowd > 1) {
        pthread_mutex_unlock(&q->mutex);
        sched_yield();
        pthread_mutex_lock(&q->mutex);
    }
    struct queue_job *first = q->first;
    q->first = NULL;
    q->last = &q->first;
    pthread_mutex_unlock(&q->mutex);
    bool news = run_all(q, first);
    size_t crowd = 0;
    for (const struct queue_job *job = first; job; job = job->next)
        crowd++;
    pthread_mutex_lock(&q->mutex);
    if (news) {
        q->news++;
        pthread_cond_broadcast(&q->changed);
    }
    q->crowd = crowd;
    struct queue_job *leader = pass_on(q);
    pthread_mutex_unlock(&q->mutex);
    if (leader)
        perf__turn_tell(&leader->turn, TURN_LEADS);
    for (struct queue_job *job = first, *next; job; job = next) {
        next = job->next;
        if (job != own)
            perf__turn_tell(&job->turn, TURN_DONE);
    }
}

static int run(struct sqlite_queue *q, struct queue_job *job)
{
    pthread_mutex_lock(&q->mutex);
    if (job->verb == CLAIM)
        q->seen[perf__thread_slot() % WAIT_SLOTS] = q->news;
    *q->last = job;
    q->last = &job->next;
    bool leads = !q->busy;
    q->busy = true;
    if (!leads) {
        pthread_mutex_unlock(&q->mutex);
        leads = perf__turn_wait(&job->turn) == TURN_LEADS;
        if (leads)
            pthread_mutex_lock(&q->mutex);
    }
    if (leads)
        lead(q, job);
    if (job->rc < 0 && job->error[0])
        perf__fail(job->rc, "%s", job->error);
    return job->rc;
}

/* ---------------------------------------------------------------- the verbs */

/* Within the host's own transaction on its own connection. */
static int enqueue_within(struct sqlite_queue *q, struct queue_job *job, sqlite3 *host)
{
    const char *file = sqlite3_db_filename(host, "main");
    if (!file || strcmp(file, q->path))
        return perf__fail(PERF_EINVAL,
                          "perf_submit_options.transaction is a connection to another file than "
                          "%.200s",
                          q->path);
    if (sqlite3_get_autocommit(host))
        return perf__fail(PERF_EINVAL,
                          "perf_submit_options.transaction has no transaction under way; BEGIN "
                          "IMMEDIATE one first");
    struct queue_db *db = perf__calloc(&q->allocator, 1, sizeof *db);
    if (!db)
        return perf__fail_nomem("a task within a transaction");
    db->q = q;
    db->db = host;
    db->changes = -1;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_SAVEPOINT, ""));
    bool saved = !db->rc;
    perf__queue_db_refresh(db);
    execute(db, job);
    perf__queue_db_settle(db);
    int rc = db->rc;
    if (rc && saved) {
        say(job);
        db->rc = PERF_OK;
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_ROLLBACK_TO, ""));
    }
    if (saved)
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_RELEASE, ""));
    perf__queue_db_clear(db);
    perf__free(&q->allocator, db);
    if (rc)
        for (size_t i = 0; i < job->count; i++)
            job->statuses[i] = rc;
    return rc ? rc : job->rc;
}

static int sqlite_enqueue(void *queue, const perf_queue_task *tasks, size_t count,
                          void *transaction, int64_t now_ms, int *statuses, char (*existing)[72])
{
    struct queue_job job = {.verb = ENQUEUE,
                            .tasks = tasks,
                            .count = count,
                            .statuses = statuses,
                            .existing = existing,
                            .now_ms = now_ms};
    return transaction ? enqueue_within(queue, &job, transaction) : run(queue, &job);
}

static int sqlite_claim(void *queue, const perf_queue_claim *want, perf_queue_reply *reply)
{
    struct queue_job job = {.verb = CLAIM, .want = want, .reply = reply, .before = reply->count};
    return run(queue, &job);
}

static int sqlite_extend(void *queue, perf_queue_beat *beats, size_t count, int64_t now_ms)
{
    struct queue_job job = {.verb = EXTEND, .beats = beats, .count = count, .now_ms = now_ms};
    return run(queue, &job);
}

static int sqlite_finish(void *queue, perf_queue_end *ends, size_t count)
{
    struct queue_job job = {.verb = FINISH, .ends = ends, .count = count};
    return run(queue, &job);
}

static int sqlite_control(void *queue, int verb, const char *name, int64_t now_ms, uint64_t *n)
{
    struct queue_job job = {
        .verb = CONTROL, .control = verb, .name = name, .now_ms = now_ms, .n = n};
    return run(queue, &job);
}

static int sqlite_sweep(void *queue, int64_t now_ms, size_t budget, perf_queue_swept *swept)
{
    struct queue_job job = {.verb = SWEEP, .now_ms = now_ms, .budget = budget, .swept = swept};
    return run(queue, &job);
}

static int sqlite_get(void *queue, const char *id, perf_queue_reply *reply)
{
    struct sqlite_queue *q = queue;
    pthread_mutex_lock(&q->reading);
    int rc = perf__queue_read_get(&q->reader, id, reply);
    pthread_mutex_unlock(&q->reading);
    return rc;
}

static int sqlite_find(void *queue, const perf_queue_filter *filter, perf_queue_reply *reply)
{
    struct sqlite_queue *q = queue;
    pthread_mutex_lock(&q->reading);
    int rc = perf__queue_read_find(&q->reader, filter, reply);
    pthread_mutex_unlock(&q->reading);
    return rc;
}

static int sqlite_count(void *queue, const char *name, int64_t now_ms, perf_queue_counts *counts)
{
    struct sqlite_queue *q = queue;
    (void)now_ms;
    pthread_mutex_lock(&q->reading);
    int rc = perf__queue_read_count(&q->reader, name, counts);
    pthread_mutex_unlock(&q->reading);
    return rc;
}

/* --------------------------------------------------------------------- wait */

/* Has another process committed since the last look? The mutex is held, and free in between. */
static bool others_changed(struct sqlite_queue *q)
{
    int64_t now = perf__now_ns(&perf__default_clock);
    if (q->busy || now - q->looked_ns < (int64_t)LOOK_MS * 1000000 / 2)
        return false;
    q->busy = true;
    q->looked_ns = now;
    pthread_mutex_unlock(&q->mutex);
    struct queue_db *db = &q->writer;
    db->rc = PERF_OK;
    int64_t version =
        perf__queue_db_number(db, perf__queue_db_bind(db, SQL_DATA_VERSION, ""), q->data_version);
    bool changed = version != q->data_version;
    q->data_version = version;
    pthread_mutex_lock(&q->mutex);
    struct queue_job *leader = pass_on(q);
    if (leader)
        perf__turn_tell(&leader->turn, TURN_LEADS);
    return changed;
}

static int sqlite_wait(void *queue, int64_t timeout_ms)
{
    struct sqlite_queue *q = queue;
    pthread_mutex_lock(&q->mutex);
    if (timeout_ms < 0) {
        q->wakes++;
        pthread_cond_broadcast(&q->changed);
    } else if (timeout_ms > 0) {
        int64_t deadline = perf__deadline_after(timeout_ms);
        uint64_t seen = q->seen[perf__thread_slot() % WAIT_SLOTS], wakes = q->wakes;
        while (q->news == seen && q->wakes == wakes) {
            if (others_changed(q)) {
                q->news++;
                pthread_cond_broadcast(&q->changed);
                break;
            }
            int64_t look = perf__deadline_after(LOOK_MS);
            if (q->news != seen || q->wakes != wakes)
                break;
            if (!perf__cond_wait(&q->changed, &q->mutex, look < deadline ? look : deadline) &&
                look >= deadline)
                break;
        }
    }
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}

const perf_queue_vtable perf__queue_sqlite = {
    .struct_size = sizeof(perf_queue_vtable),
    .name = "sqlite",
    .capabilities = PERF_QUEUE_DURABLE | PERF_QUEUE_SHARED | PERF_QUEUE_PRIORITY |
                    PERF_QUEUE_UNIQUE | PERF_QUEUE_LIMIT | PERF_QUEUE_AFTER |
                    PERF_QUEUE_TRANSACTION,
    .open = perf__queue_sqlite_open,
    .close = perf__queue_sqlite_close,
    .enqueue = sqlite_enqueue,
    .claim = sqlite_claim,
    .extend = sqlite_extend,
    .finish = sqlite_finish,
    .get = sqlite_get,
    .find = sqlite_find,
    .count = sqlite_count,
    .control = sqlite_control,
    .sweep = sqlite_sweep,
    .wait = sqlite_wait,
};
