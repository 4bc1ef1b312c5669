/* SPDX-License-Identifier: MIT */
/*
 * aws_tables.c - brings the tables from what they are to what they should be.
 *
 * A loop for each table: look at it; while something of it is being changed, wait;
 * else make the first change that is missing, and look again. So a run that was cut
 * short, or two at once, come to the same end, and an index is added only when the
 * one before is there. One thread at a time for each call.
 */
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/options.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "aws_client.h"
#include "aws_flight.h"
#include "aws_tables.h"

enum {
    DEFAULT_TIMEOUT_MS = 600000,
    MAX_TIMEOUT_MS = 86400000,
    FIRST_PAUSE_MS = 100, /* between looks; doubled */
    PAUSE_MAX_MS = 5000,
    CALL_MS = 10000,
    STEPS_MAX = 2 + PERF__TABLE_INDEXES,
    REFUSALS_MAX = 5 /* of one change, that may be because somebody else just made it */
};

enum { NOTHING, CREATE, INDEX, TTL };

struct step {
    int kind;
    size_t index;
};

struct table {
    const struct perf__table_design *design;
    const char *name;
    bool existed;
    struct perf__table_look look;
    struct step steps[STEPS_MAX]; /* made, or to be made */
    size_t step_count;
};

struct perf_aws_tables_report {
    perf_allocator allocator;
    size_t changes;
    struct perf__text text, json;
};

struct run {
    perf_aws *aws;
    perf_aws_tables_options options;
    struct perf__table_names names;
    struct table tables[PERF__TABLES];
    size_t count, planned, made;
    int64_t deadline_ns; /* the system's clock */
};

static int too_late(const struct run *run, const struct table *t)
{
    return perf__fail(PERF_ETIMEDOUT,
                      "dynamodb: table %s is not ready after %lld ms (%s); what was begun goes on: "
                      "run this again, or with a longer timeout_ms",
                      t->name, (long long)run->options.timeout_ms,
                      t->look.busy ? t->look.status : "still to be changed");
}

/* -------------------------------------------------------------------- steps */

static void say_step(const struct table *t, struct step step, char *out, size_t size)
{
    const struct perf__table_index *index = &t->design->indexes[step.index];
    int n = 0;
    if (step.kind == TTL) {
        snprintf(out, size, "turn on time to live, in the attribute \"expires\"");
    } else if (step.kind == INDEX) {
        snprintf(out, size, "add the index %s (%s, %s)", index->name, index->hash, index->range);
    } else {
        n = snprintf(out, size, "create it, paid per request, with the keys pk and sk");
        for (size_t i = 0; i < PERF__TABLE_INDEXES && t->design->indexes[i].name; i++) {
            index = &t->design->indexes[i];
            if (n > 0 && (size_t)n < size)
                n +=
                    snprintf(out + n, size - (size_t)n, "%s %s (%s, %s)",
                             i ? " and" : " and the index", index->name, index->hash, index->range);
        }
    }
}

static const char *action_of(struct step step)
{
    return step.kind == CREATE  ? "CreateTable"
           : step.kind == INDEX ? "UpdateTable"
                                : "UpdateTimeToLive";
}

/* The first thing that is missing. */
static struct step next_step(const struct table *t)
{
    if (!t->look.exists)
        return (struct step){CREATE, 0};
    for (size_t i = 0; i < PERF__TABLE_INDEXES && t->design->indexes[i].name; i++)
        if (!t->look.has_index[i])
            return (struct step){INDEX, i};
    return (struct step){t->look.has_ttl ? NOTHING : TTL, 0};
}

static void add_step(struct table *t, struct step step)
{
    if (t->step_count < STEPS_MAX)
        t->steps[t->step_count++] = step;
}

/* All that is missing, as it looks now. */
static void plan(struct table *t)
{
    struct perf__table_look now = t->look;
    struct step step;
    if (now.exists && now.busy && !strcmp(now.status, "DELETING"))
        t->look = (struct perf__table_look){0};
    while ((step = next_step(t)).kind) {
        add_step(t, step);
        if (step.kind == CREATE) { /* with all its indexes */
            t->look = (struct perf__table_look){.exists = true};
            for (size_t i = 0; i < PERF__TABLE_INDEXES; i++)
                t->look.has_index[i] = true;
        } else if (step.kind == INDEX) {
            t->look.has_index[step.index] = true;
        } else {
            t->look.has_ttl = true;
        }
    }
    t->look = now;
}

/* -------------------------------------------------------------------- calls */

static int call(struct run *run, const struct table *t, const char *operation,
                struct perf__text *body, perf_aws_reply **out)
{
    int64_t left = perf__deadline_left(run->deadline_ns);
    int rc = body->failed ? perf__fail_nomem("a request about a table")
             : !left      ? too_late(run, t)
                          : perf_aws_call(run->aws, operation, body->data, body->len,
                                     left < CALL_MS ? left : CALL_MS, out);
    perf__text_free(body);
    return rc;
}

static int describe(struct run *run, const struct table *t, const char *operation,
                    perf_aws_reply **out)
{
    struct perf__text body = {.allocator = &run->aws->host.allocator};
    perf__text_putf(&body, "{\"TableName\":\"%s\"}", t->name);
    return call(run, t, operation, &body, out);
}

static bool is_missing(int rc)
{
    return rc == PERF_EREMOTE && !strcmp(perf_aws_error_code(), "ResourceNotFoundException");
}

static int look(struct run *run, struct table *t)
{
    perf_aws_reply *reply = NULL;
    memset(&t->look, 0, sizeof t->look);
    int rc = describe(run, t, "DescribeTable", &reply);
    if (is_missing(rc))
        return PERF_OK;
    if (rc)
        return rc;
    rc = perf__table_look(t->design, t->name, perf_aws_reply_body(reply),
                          perf_aws_reply_size(reply), &t->look);
    perf_aws_reply_release(reply);
    if (rc || t->look.busy)
        return rc;
    rc = describe(run, t, "DescribeTimeToLive", &reply);
    if (is_missing(rc)) { /* deleted in between */
        memset(&t->look, 0, sizeof t->look);
        return PERF_OK;
    }
    if (rc)
        return rc;
    rc = perf__table_look_ttl(t->name, perf_aws_reply_body(reply), perf_aws_reply_size(reply),
                              &t->look);
    perf_aws_reply_release(reply);
    return rc;
}

static int make(struct run *run, struct table *t, struct step step)
{
    struct perf__text body = {.allocator = &run->aws->host.allocator};
    perf_aws_reply *reply = NULL;
    if (step.kind == CREATE)
        perf__table_put_create(&body, t->design, t->name);
    else if (step.kind == INDEX)
        perf__table_put_index(&body, t->design, t->name, step.index, &t->look);
    else
        perf__text_putf(&body,
                        "{\"TableName\":\"%s\",\"TimeToLiveSpecification\":{\"Enabled\":true,"
                        "\"AttributeName\":\"expires\"}}",
                        t->name);
    int rc = call(run, t, action_of(step), &body, &reply);
    perf_aws_reply_release(reply);
    return rc;
}

/* --------------------------------------------------------------------- loop */

static void tell(struct run *run, const struct table *t, const char *doing, size_t step)
{
    if (run->options.progress)
        run->options.progress(run->options.progress_ctx, t->name, doing, (int64_t)step,
                              (int64_t)run->planned);
}

static int pause_for(struct run *run, const struct table *t, int64_t *pause_ms)
{
    char text[96];
    int64_t left = perf__deadline_left(run->deadline_ns);
    if (left <= 0)
        return too_late(run, t);
    snprintf(text, sizeof text, "wait (%s)", t->look.busy ? t->look.status : "it is in use");
    tell(run, t, text, 0);
    int rc = perf__aws_pause(run->aws, *pause_ms < left ? *pause_ms : left);
    *pause_ms = *pause_ms * 2 < PAUSE_MAX_MS ? *pause_ms * 2 : PAUSE_MAX_MS;
    return rc;
}

/* Refusals that another look may explain: somebody else was faster, or changes it just now. */
static bool is_in_use(int rc)
{
    const char *code = perf_aws_error_code();
    return rc == PERF_ECONFLICT || rc == PERF_ETHROTTLED ||
           (rc == PERF_EREMOTE &&
            (!strcmp(code, "LimitExceededException") || !strcmp(code, "ValidationException") ||
             !strcmp(code, "ResourceNotFoundException")));
}

static int bring_up(struct run *run, struct table *t)
{
    int64_t pause_ms = FIRST_PAUSE_MS;
    int refusals = 0;
    char text[256];
    t->step_count = 0;
    for (;;) {
        int rc = look(run, t);
        if (rc)
            return rc;
        if (t->look.busy) {
            if ((rc = pause_for(run, t, &pause_ms)))
                return rc;
            continue;
        }
        struct step step = next_step(t);
        if (step.kind == NOTHING)
            return PERF_OK;
        say_step(t, step, text, sizeof text);
        if (!refusals)
            tell(run, t, text, ++run->made);
        rc = make(run, t, step);
        if (!rc) {
            add_step(t, step);
            refusals = 0;
            pause_ms = FIRST_PAUSE_MS;
        } else if (is_in_use(rc) && ++refusals <= REFUSALS_MAX) {
            rc = pause_for(run, t, &pause_ms);
        }
        if (rc)
            return rc;
    }
}

/* ------------------------------------------------------------------- report */

static void put_report(const struct run *run, struct perf_aws_tables_report *r)
{
    char text[256];
    bool dry = run->options.dry_run;
    perf__text_putf(&r->json, "{\"dry_run\":%s,\"changes\":%zu,\"tables\":[",
                    dry ? "true" : "false", r->changes);
    for (size_t i = 0; i < run->count; i++) {
        const struct table *t = &run->tables[i];
        if (!t->step_count)
            perf__text_putf(&r->text, "%s (%s): nothing to do\n", t->name, t->design->role);
        perf__text_putf(&r->json, "%s{\"table\":\"%s\",\"role\":\"%s\",\"existed\":%s,\"steps\":[",
                        i ? "," : "", t->name, t->design->role, t->existed ? "true" : "false");
        for (size_t j = 0; j < t->step_count; j++) {
            struct step step = t->steps[j];
            say_step(t, step, text, sizeof text);
            perf__text_putf(&r->text, "%s (%s): ", t->name, t->design->role);
            perf__text_putf(&r->text, "%s%s\n", dry ? "would " : "done: ", text);
            perf__text_putf(&r->json,
                            "%s{\"action\":\"%s\",\"name\":\"%s\",\"text\":", j ? "," : "",
                            action_of(step),
                            step.kind == INDEX ? t->design->indexes[step.index].name
                            : step.kind == TTL ? "expires"
                                               : t->name);
            perf__text_put_json(&r->json, text, strlen(text));
            perf__text_puts(&r->json, "}");
        }
        perf__text_puts(&r->json, "]}");
    }
    perf__text_puts(&r->json, "]}");
}

static int report(const struct run *run, perf_aws_tables_report **out)
{
    const perf_allocator *a = &run->aws->host.allocator;
    perf_aws_tables_report *r = perf__calloc(a, 1, sizeof *r);
    if (!r)
        return perf__fail_nomem("the report about the tables");
    r->allocator = *a;
    r->text.allocator = r->json.allocator = &r->allocator;
    for (size_t i = 0; i < run->count; i++)
        r->changes += run->tables[i].step_count;
    put_report(run, r);
    if (r->text.failed || r->json.failed) {
        perf_aws_tables_release(r);
        return perf__fail_nomem("the report about the tables");
    }
    *out = r;
    return PERF_OK;
}

/* ------------------------------------------------------------------- public */

static int begin(const perf_aws_tables_options *given, struct run *run)
{
    memset(run, 0, sizeof *run);
    perf_aws_tables_options *o = &run->options;
    int rc = perf__options_take("perf_aws_tables_options", given, o, sizeof *o);
    if (!rc)
        rc = perf__check_range("dry_run", o->dry_run, 0, 1);
    if (!rc)
        rc = perf__check_range("timeout_ms", o->timeout_ms, 0, MAX_TIMEOUT_MS);
    if (!rc)
        rc = perf__tables_name(o, &run->names);
    run->aws = o->aws;
    if (!rc && !run->aws)
        rc = perf_aws_shared("dynamodb", &run->aws);
    if (!rc)
        rc = perf__aws_check_client(run->aws, "perf_aws_tables_ensure", "dynamodb",
                                    PERF_AWS_PROTOCOL_JSON);
    if (rc)
        return rc;
    if (!o->timeout_ms)
        o->timeout_ms = DEFAULT_TIMEOUT_MS;
    run->deadline_ns = perf__deadline_after(o->timeout_ms);
    for (size_t i = 0; i < PERF__TABLES; i++)
        if (run->names.flags & perf__tables[i].flag)
            run->tables[run->count++] =
                (struct table){.design = &perf__tables[i], .name = run->names.name[i]};
    return PERF_OK;
}

int perf_aws_tables_ensure(const perf_aws_tables_options *options, perf_aws_tables_report **out)
{
    struct run run;
    int rc = begin(options, &run);
    for (size_t i = 0; !rc && i < run.count; i++) {
        struct table *t = &run.tables[i];
        rc = look(&run, t);
        t->existed = t->look.exists;
        if (!rc)
            plan(t);
        run.planned += t->step_count;
    }
    for (size_t i = 0; !rc && !run.options.dry_run && i < run.count; i++)
        rc = bring_up(&run, &run.tables[i]);
    if (!rc && out)
        rc = report(&run, out);
    return rc;
}

size_t perf_aws_tables_changes(const perf_aws_tables_report *r)
{
    return r ? r->changes : 0;
}

const char *perf_aws_tables_text(const perf_aws_tables_report *r)
{
    return r ? r->text.data : "";
}

const char *perf_aws_tables_json(const perf_aws_tables_report *r)
{
    return r ? r->json.data : "";
}

void perf_aws_tables_release(perf_aws_tables_report *r)
{
    if (!r)
        return;
    perf_allocator allocator = r->allocator;
    r->text.allocator = r->json.allocator = &allocator;
    perf__text_free(&r->text);
    perf__text_free(&r->json);
    perf__free(&allocator, r);
}
