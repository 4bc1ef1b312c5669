/* SPDX-License-Identifier: MIT */
/*
 * aws_floor.c - the least that GetItem can cost: bytes laid out beforehand are written to a socket
 * that stays open, and the reply is read until its Content-Length is there. Nothing is signed (the
 * local service does not look), parsed, timed or retried.
 *
 * usage: aws-floor http://127.0.0.1:PORT. Modes: "one", and "threads" for 64 of them.
 */
#include "aws_subject.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static int port;
static char request[1024];
static size_t request_len;
/* Connections are kept from run to run, as the clients keep theirs. */
static int idle[BENCH_AWS_FLIGHT], idle_count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static int connection(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = -1, one = 1;
    pthread_mutex_lock(&mutex);
    if (idle_count)
        fd = idle[--idle_count];
    pthread_mutex_unlock(&mutex);
    if (fd >= 0)
        return fd;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to))
        bench_die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static int call(int fd)
{
    char reply[8192];
    size_t len = 0, whole = sizeof reply;
    if (send(fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len)
        bench_die("send");
    while (len < whole) {
        ssize_t got = recv(fd, reply + len, sizeof reply - 1 - len, 0);
        if (got <= 0)
            bench_die("recv");
        len += (size_t)got;
        reply[len] = '\0';
        char *end = strstr(reply, "\r\n\r\n");
        char *length = strcasestr(reply, "\r\nContent-Length:");
        if (end && length && length < end)
            whole = (size_t)(end + 4 - reply) + strtoul(length + 17, NULL, 10);
        if (whole >= sizeof reply && len >= sizeof reply - 1)
            bench_die("a reply that is too long");
    }
    return bench_aws_holds_value(reply, len);
}

static void work(struct bench_aws_share *share)
{
    int fd = connection();
    while (bench_aws_take(share))
        if (!call(fd))
            atomic_fetch_add(share->wrong, 1);
    pthread_mutex_lock(&mutex);
    idle[idle_count++] = fd;
    pthread_mutex_unlock(&mutex);
}

static int subject_run(const char *mode, unsigned count, _Atomic unsigned *wrong)
{
    struct bench_aws_share share = {work, count, wrong};
    if (!strcmp(mode, "one"))
        work(&share);
    else if (!strcmp(mode, "threads"))
        bench_aws_threads(&share, BENCH_AWS_FLIGHT);
    else
        return 0;
    return 1;
}

int main(int argc, char **argv)
{
    const char *colon = argc > 1 ? strrchr(argv[1], ':') : NULL;
    port = colon ? atoi(colon + 1) : 0;
    int len = snprintf(request, sizeof request,
                       "POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                       "Content-Type: application/x-amz-json-1.0\r\n"
                       "X-Amz-Target: DynamoDB_20120810.GetItem\r\n"
                       "X-Amz-Date: 20250101T000000Z\r\n"
                       "Authorization: AWS4-HMAC-SHA256 "
                       "Credential=bench/20250101/us-east-1/dynamodb/aws4_request, "
                       "SignedHeaders=content-type;host;x-amz-date;x-amz-target, "
                       "Signature=%064d\r\n"
                       "Content-Length: %zu\r\n\r\n%s",
                       port, 0, sizeof bench_aws_request - 1, bench_aws_request);
    if (port <= 0 || len < 0 || (size_t)len >= sizeof request) {
        fprintf(stderr, "usage: aws-floor http://127.0.0.1:PORT\n");
        return 2;
    }
    request_len = (size_t)len;
    bench_aws_loop();
    return 0;
}
