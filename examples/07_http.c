/* SPDX-License-Identifier: MIT */
/*
 * 07_http.c - fetch URLs, one after the other and all at once.
 *
 *     cc 07_http.c $(pkg-config --cflags --libs libperf) && ./a.out https://example.com/ ...
 *
 * Without arguments it asks a port of this machine where nobody listens, to show what failures
 * look like: a code to act upon, and a sentence to read.
 */
#include <arpa/inet.h>
#include <libperf/http.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void show(const char *url, int rc, perf_http_reply *reply)
{
    if (rc != PERF_OK) {
        printf("%s\n    %s: %s\n", url, perf_strstatus(rc), perf_last_error());
        return;
    }
    const char *type = perf_http_reply_header(reply, "Content-Type");
    printf("%s\n    %d, %zu bytes of %s\n", url, (int)perf_http_reply_status(reply),
           perf_http_reply_size(reply), type ? type : "unknown type");
    perf_http_reply_release(reply);
}

/* The simplest way: wait for each. */
static void one_after_the_other(perf_http *http, char **urls, int count)
{
    for (int i = 0; i < count; i++) {
        perf_http_reply *reply = NULL;
        int rc = perf_http_get(http, urls[i], /* timeout_ms */ 5000, &reply);
        show(urls[i], rc, reply);
    }
}

/* All at once, and one descriptor that an event loop could watch. */
static int all_at_once(perf_http *http, char **urls, int count)
{
    int fd, left = 0, rc = perf_http_fd(http, &fd);
    perf_http_call **calls = calloc((size_t)count, sizeof *calls);
    if (rc || !calls)
        goto out;
    for (int i = 0; i < count; i++) {
        perf_http_request request = PERF_HTTP_REQUEST_INIT;
        request.url = urls[i];
        request.timeout_ms = 5000;
        rc = perf_http_start(http, &request, &calls[i]);
        if (rc)
            show(urls[i], rc, NULL);
        else
            left++;
    }
    while (left > 0) {
        perf_http_call *call;
        poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1);
        while (perf_http_next_done(http, &call) == PERF_OK) {
            perf_http_reply *reply = NULL;
            int i = 0;
            while (calls[i] != call)
                i++;
            int end = perf_http_call_wait(call, 0, &reply);
            show(urls[i], end, reply);
            perf_http_call_release(call);
            left--;
        }
    }
    rc = PERF_OK;
out:
    free(calls);
    return rc;
}

/* A port that was free a moment ago. */
static int closed_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0), port = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && !bind(fd, (struct sockaddr *)&address, size) &&
        !getsockname(fd, (struct sockaddr *)&address, &size))
        port = ntohs(address.sin_port);
    if (fd >= 0)
        close(fd);
    return port;
}

int main(int argc, char **argv)
{
    perf_http_options options = PERF_HTTP_OPTIONS_INIT;
    perf_http *http;
    options.connect_timeout_ms = 2000;
    if (perf_http_open(&options, &http)) {
        fprintf(stderr, "%s\n", perf_last_error());
        return 1;
    }

    char closed[64];
    char *examples[] = {closed, (char[]){"http://no-such-host.invalid/?signature=secret"},
                        (char[]){"gopher://old.example/"}};
    char **urls = argc > 1 ? argv + 1 : examples;
    int count = argc > 1 ? argc - 1 : 3;
    snprintf(closed, sizeof closed, "http://127.0.0.1:%d/", closed_port());

    one_after_the_other(http, urls, count);
    int rc = all_at_once(http, urls, count);

    perf_http_stats stats = PERF_HTTP_STATS_INIT;
    perf_http_get_stats(http, &stats);
    printf("%llu requests, %llu replies, %llu connections\n", (unsigned long long)stats.requests,
           (unsigned long long)stats.replies, (unsigned long long)stats.connects);
    perf_http_close(http);
    return rc != PERF_OK;
}
