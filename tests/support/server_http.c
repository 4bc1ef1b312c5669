/* SPDX-License-Identifier: MIT */
/*
 * server_http.c - the plainest HTTP client, for the control of test servers.
 *
 * It speaks HTTP/1.0, so that a reply ends where the connection does and is never chunked.
 */
#include "server.h"

#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static bool send_all(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

static char *receive_all(int fd)
{
    size_t size = 4096, len = 0;
    char *all = malloc(size);
    ssize_t n;
    while (all && (n = recv(fd, all + len, size - len - 1, 0)) > 0) {
        len += (size_t)n;
        if (len + 1 == size) {
            char *more = realloc(all, size *= 2);
            if (!more)
                free(all);
            all = more;
        }
    }
    if (all)
        all[len] = 0;
    return all;
}

int test_http(int port, const char *method, const char *path, const char *headers, const char *body,
              char **reply)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval limit = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int status = 0;
    char *head = NULL, *answer = NULL;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (asprintf(&head, "%s %s HTTP/1.0\r\nHost: 127.0.0.1:%d\r\nContent-Length: %zu\r\n%s\r\n",
                 method, path, port, body ? strlen(body) : 0, headers ? headers : "") < 0)
        abort();
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
        connect(fd, (struct sockaddr *)&at, sizeof at) == 0 && send_all(fd, head, strlen(head)) &&
        (!body || send_all(fd, body, strlen(body))))
        answer = receive_all(fd);
    if (!answer || sscanf(answer, "HTTP/%*s %d", &status) != 1)
        status = 0;
    if (fd >= 0)
        close(fd);
    free(head);
    if (reply)
        *reply = answer;
    else
        free(answer);
    return status;
}
