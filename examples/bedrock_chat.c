/* SPDX-License-Identifier: MIT */
/*
 * bedrock_chat.c - talk with a model in Amazon Bedrock; its words appear as it says them.
 *
 *     cc bedrock_chat.c $(pkg-config --cflags --libs libperf)
 *     ./a.out MODEL_ID
 *
 * MODEL_ID is such as amazon.nova-lite-v1:0. Region and keys come from the environment, as for
 * every tool of AWS. A line is what you say; an empty one, or the end of input, ends it.
 */
#include <libperf/aws_bedrock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The conversation so far: messages of Converse's JSON, separated by commas. */
struct talk {
    char *text;
    size_t len, size;
    char *answer; /* of the model, as JSON has it */
    size_t answer_len, answer_size;
};

static void append(char **text, size_t *len, size_t *size, const char *more, size_t more_len)
{
    if (*len + more_len + 1 > *size) {
        size_t room = (*size + more_len + 1) * 2;
        char *bigger = realloc(*text, room);
        if (!bigger)
            abort();
        *text = bigger;
        *size = room;
    }
    memcpy(*text + *len, more, more_len);
    *len += more_len;
    (*text)[*len] = 0;
}

static void add(struct talk *t, const char *more)
{
    append(&t->text, &t->len, &t->size, more, strlen(more));
}

/* What somebody said, as a JSON string without its quotes. */
static void add_escaped(struct talk *t, const char *said)
{
    char escaped[8];
    for (; *said; said++) {
        unsigned char c = (unsigned char)*said;
        if (c == '"' || c == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", c);
        else if (c < ' ')
            snprintf(escaped, sizeof escaped, "\\u%04x", c);
        else
            snprintf(escaped, sizeof escaped, "%c", c);
        add(t, escaped);
    }
}

/* Prints a JSON string's text; escapes beyond the common ones are shown as they are. */
static void say(const char *json, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (json[i] != '\\' || i + 1 == len) {
            putchar(json[i]);
            continue;
        }
        char c = json[++i];
        if (c == 'n')
            putchar('\n');
        else if (c == 't')
            putchar('\t');
        else if (c == 'u' || c == 'r' || c == 'b' || c == 'f')
            printf("\\%c", c);
        else
            putchar(c);
    }
    fflush(stdout);
}

/* {"contentBlockIndex":0,"delta":{"text":"..."}}: what is between the last quotes. A program of
 * yours has a JSON library. */
static int hear(struct talk *t, const char *type, const char *json)
{
    const char *text = strcmp(type, "contentBlockDelta") ? NULL : strstr(json, "\"text\":\"");
    if (!text)
        return PERF_OK;
    text += 8;
    size_t len = 0;
    while (text[len] && text[len] != '"')
        len += text[len] == '\\' && text[len + 1] ? 2 : 1;
    say(text, len);
    append(&t->answer, &t->answer_len, &t->answer_size, text, len);
    return PERF_OK;
}

static int converse(perf_aws *bedrock, const char *model, struct talk *t)
{
    perf_bedrock_stream *stream = NULL;
    const char *type;
    const void *json;
    size_t len = t->len + 32;
    char *request = malloc(len);
    if (!request)
        abort();
    snprintf(request, len, "{\"messages\":[%s]}", t->text);
    t->answer_len = 0;
    int rc = perf_bedrock_stream_open(bedrock, PERF_BEDROCK_CONVERSE, model, request,
                                      strlen(request), NULL, &stream);
    free(request);
    while (rc == PERF_OK) {
        rc = perf_bedrock_stream_next(stream, /* timeout_ms */ -1, &type, &json, &len);
        if (rc == PERF_OK)
            hear(t, type, json);
    }
    putchar('\n');
    if (rc != PERF_MISS)
        printf("%s: %s\n", perf_strstatus(rc), perf_last_error());
    perf_bedrock_stream_close(stream);
    return rc == PERF_MISS ? PERF_OK : rc;
}

int main(int argc, char **argv)
{
    perf_aws_options options = PERF_AWS_OPTIONS_INIT;
    struct talk t = {0};
    perf_aws *bedrock;
    char line[4096];
    int rc = PERF_OK;
    if (argc < 2) {
        printf("usage: bedrock_chat MODEL_ID\n"
               "talks with a model, such as amazon.nova-lite-v1:0; region and keys come from\n"
               "AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, ...\n");
        return 0;
    }
    options.service = "bedrock-runtime";
    if (perf_aws_open(&options, &bedrock)) {
        printf("%s\n", perf_last_error());
        return 0;
    }
    printf("%s at %s\n> ", argv[1], perf_aws_endpoint(bedrock));
    fflush(stdout);
    while (rc == PERF_OK && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!*line)
            break;
        add(&t, t.len ? "," : "");
        add(&t, "{\"role\":\"user\",\"content\":[{\"text\":\"");
        add_escaped(&t, line);
        add(&t, "\"}]}");
        rc = converse(bedrock, argv[1], &t);
        add(&t, ",{\"role\":\"assistant\",\"content\":[{\"text\":\"");
        add(&t, t.answer_len ? t.answer : "...");
        add(&t, "\"}]}");
        printf("> ");
        fflush(stdout);
    }
    printf("\n");
    perf_aws_close(bedrock);
    free(t.text);
    free(t.answer);
    return rc != PERF_OK && rc != PERF_EUNAVAILABLE; /* nobody is there: that is no failure */
}
