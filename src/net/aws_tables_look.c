/* SPDX-License-Identifier: MIT */
/*
 * aws_tables_look.c - reads what DynamoDB says about a table, and compares it with
 * the design. Hostile bytes in, a look or an error out. Any thread.
 */
#include <stdio.h>
#include <string.h>

#include "../base/status.h"
#include "aws_tables.h"

static bool is(struct perf__json value, const char *text)
{
    size_t len = strlen(text);
    return value.len == len + 2 && value.at[0] == '"' && !memcmp(value.at + 1, text, len);
}

/* A member that is a text, shortened; "" when there is none. */
static void text_of(struct perf__json object, const char *name, char *out, size_t size)
{
    struct perf__json value;
    *out = 0;
    if (perf__json_find(object, name, '"', &value))
        perf__json_short(value, out, size);
}

/* The keys of a table or an index as "pk (S), sk (S)"; types: the AttributeDefinitions. */
static void say_keys(struct perf__json object, struct perf__json types, char *out, size_t size)
{
    struct perf__json schema, key, definition, value;
    size_t at = 0, used = 0;
    *out = 0;
    if (!perf__json_find(object, "KeySchema", '[', &schema))
        return;
    while (perf__json_next(schema, &at, NULL, &key) && used < size) {
        char name[64], type[8] = "?";
        size_t at_type = 0;
        text_of(key, "AttributeName", name, sizeof name);
        while (perf__json_next(types, &at_type, NULL, &definition))
            if (perf__json_find(definition, "AttributeName", '"', &value) && is(value, name))
                text_of(definition, "AttributeType", type, sizeof type);
        int n = snprintf(out + used, size - used, "%s%s (%s)", used ? ", " : "", name, type);
        used += n > 0 ? (size_t)n : 0;
    }
}

static int look_at_index(const struct perf__table_design *design, const char *table,
                         struct perf__json index, struct perf__json types,
                         struct perf__table_look *look)
{
    struct perf__json value, projection;
    char name[256], found[192], wanted[192], kind[16];
    bool leaves = false;
    text_of(index, "IndexName", name, sizeof name);
    if (perf__json_find(index, "IndexStatus", '"', &value) && !is(value, "ACTIVE")) {
        look->busy = true;
        leaves = is(value, "DELETING");
        perf__json_short(value, look->status, sizeof look->status);
    }
    for (size_t i = 0; i < PERF__TABLE_INDEXES && design->indexes[i].name; i++) {
        const struct perf__table_index *ours = &design->indexes[i];
        if (leaves || strcmp(ours->name, name) != 0)
            continue; /* one that is being deleted is waited for, and then made */
        say_keys(index, types, found, sizeof found);
        snprintf(wanted, sizeof wanted, "%s (S), %s (%c)", ours->hash, ours->range,
                 ours->range_type);
        if (strcmp(found, wanted) != 0)
            return perf__fail(PERF_EEXISTS,
                              "dynamodb: index %s of table %s has the keys %.120s, and libperf "
                              "needs %s; delete that index, or give another table for the %s",
                              ours->name, table, found, wanted, design->role);
        *kind = 0;
        if (perf__json_find(index, "Projection", '{', &projection))
            text_of(projection, "ProjectionType", kind, sizeof kind);
        if (strcmp(kind, "ALL") != 0 && strcmp(kind, ours->projection) != 0)
            return perf__fail(PERF_EEXISTS,
                              "dynamodb: index %s of table %s projects %s, and libperf needs %s; "
                              "delete that index, and run this again",
                              ours->name, table, *kind ? kind : "nothing", ours->projection);
        look->has_index[i] = true;
    }
    return PERF_OK;
}

int perf__table_look(const struct perf__table_design *design, const char *name, const void *reply,
                     size_t len, struct perf__table_look *look)
{
    struct perf__json all, table, types = {"[]", 2}, list, index, value;
    char keys[192];
    size_t at = 0;
    memset(look, 0, sizeof *look);
    int rc = perf__json_check(PERF_EPROTOCOL, "DescribeTable's reply", reply, len, '{', &all);
    if (rc)
        return rc;
    if (!perf__json_find(all, "Table", '{', &table))
        return perf__fail(PERF_EPROTOCOL, "DescribeTable's reply has no Table");
    look->exists = true;
    text_of(table, "TableStatus", look->status, sizeof look->status);
    look->busy = strcmp(look->status, "ACTIVE") != 0;
    if (look->busy && !strcmp(look->status, "DELETING"))
        return PERF_OK; /* what it was like does not matter any more */
    perf__json_find(table, "AttributeDefinitions", '[', &types);
    if (types.len < sizeof look->attributes)
        memcpy(look->attributes, types.at, types.len);
    say_keys(table, types, keys, sizeof keys);
    if (strcmp(keys, "pk (S), sk (S)") != 0)
        return perf__fail(PERF_EEXISTS,
                          "dynamodb: table %s has the keys %.120s, and libperf needs pk (S), "
                          "sk (S); it was left alone: give another table for the %s (%s)",
                          name, keys, design->role, design->variable);
    /* A table that is paid per request says 0 units. */
    if (perf__json_find(table, "ProvisionedThroughput", '{', &value)) {
        struct perf__json units;
        if (perf__json_find(value, "ReadCapacityUnits", 0, &units))
            perf__json_uint(units, &look->units[0]);
        if (perf__json_find(value, "WriteCapacityUnits", 0, &units))
            perf__json_uint(units, &look->units[1]);
    }
    look->provisioned = look->units[0] && look->units[1];
    if (perf__json_find(table, "GlobalSecondaryIndexes", '[', &list))
        while (!rc && perf__json_next(list, &at, NULL, &index))
            rc = look_at_index(design, name, index, types, look);
    return rc;
}

int perf__table_look_ttl(const char *name, const void *reply, size_t len,
                         struct perf__table_look *look)
{
    struct perf__json all, ttl;
    char status[24], attribute[64];
    int rc = perf__json_check(PERF_EPROTOCOL, "DescribeTimeToLive's reply", reply, len, '{', &all);
    if (rc)
        return rc;
    if (!perf__json_find(all, "TimeToLiveDescription", '{', &ttl))
        return perf__fail(PERF_EPROTOCOL,
                          "DescribeTimeToLive's reply has no TimeToLiveDescription");
    text_of(ttl, "TimeToLiveStatus", status, sizeof status);
    text_of(ttl, "AttributeName", attribute, sizeof attribute);
    if (!strcmp(status, "DISABLING")) { /* takes up to an hour, and then it can be enabled */
        look->busy = true;
        memcpy(look->status, status, sizeof "DISABLING");
        return PERF_OK;
    }
    look->has_ttl = !strcmp(status, "ENABLED") || !strcmp(status, "ENABLING");
    if (look->has_ttl && strcmp(attribute, "expires") != 0)
        return perf__fail(PERF_EEXISTS,
                          "dynamodb: table %s has its time to live in \"%s\", and libperf keeps it "
                          "in \"expires\"; turn that off and run this again, or give another table",
                          name, attribute);
    return PERF_OK;
}
