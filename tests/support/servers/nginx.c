/* SPDX-License-Identifier: MIT */
/*
 * nginx.c - nginx in one process (no master), so that signals hit what serves.
 */
#include "server.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct given {
    const char *http;
    int upstream;
};

/* Copies text to f with the placeholders replaced. */
static void expand(FILE *f, const struct test_server *s, const char *text, int upstream)
{
    while (*text) {
        if (!strncmp(text, "@PORT@", 6)) {
            fprintf(f, "%d", s->ports[0]);
            text += 6;
        } else if (!strncmp(text, "@PORT", 5) && text[5] >= '2' && text[5] <= '4' &&
                   text[6] == '@') {
            fprintf(f, "%d", s->ports[text[5] - '1']);
            text += 7;
        } else if (!strncmp(text, "@UPSTREAM@", 10)) {
            fprintf(f, "%d", upstream);
            text += 10;
        } else if (!strncmp(text, "@DIR@", 5)) {
            fputs(s->dir, f);
            text += 5;
        } else {
            fputc(*text++, f);
        }
    }
}

/* Light builds lack some modules, and then the directives for their directories. */
static void temporary_paths(FILE *f, const char *program)
{
    static const char *const kinds[] = {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"};
    char command[100], built[16384] = "", without[40];
    FILE *v;
    snprintf(command, sizeof command, "%s -V 2>&1", program);
    v = popen(command, "r");
    if (v) {
        built[fread(built, 1, sizeof built - 1, v)] = 0;
        pclose(v);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(without, sizeof without, "--without-http_%s_module", kinds[i]);
        if (!strstr(built, without))
            fprintf(f, "    %s_temp_path tmp_%s;\n", kinds[i], kinds[i]);
    }
}

static bool prepare(struct test_server *s)
{
    const struct given *given = s->given;
    const char *program = access("/usr/sbin/nginx", X_OK) == 0 ? "/usr/sbin/nginx" : "nginx";
    FILE *f;

    if (strstr(given->http, "@DIR@/cert.pem") || strstr(given->http, "@DIR@/other.pem")) {
        if (!test_server_certificates(s))
            return false;
    }
    for (int i = 1; i < TEST_SERVER_PORTS; i++) { /* those that the text does not listen on */
        char placeholder[24];
        snprintf(placeholder, sizeof placeholder, "@PORT%d@", i + 1);
        if (!strstr(given->http, placeholder)) {
            close(s->reserved[i]);
            s->reserved[i] = -1;
        }
    }
    f = fopen(test_server_file(s, "nginx.conf"), "w");
    if (!f)
        return test_server_fail("nginx.conf cannot be written");
    fprintf(f, "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr warn;\n"
               "events {\n    worker_connections 1024;\n}\n"
               "http {\n    access_log access.log;\n");
    temporary_paths(f, program);
    expand(f, s, given->http, given->upstream);
    fputs("\n}\n", f);
    if (fclose(f) != 0)
        return test_server_fail("nginx.conf cannot be written");

    test_server_arg(s, "%s", program);
    test_server_arg(s, "-p");
    test_server_arg(s, "%s", s->dir);
    test_server_arg(s, "-c");
    test_server_arg(s, "nginx.conf");
    test_server_arg(s, "-e");
    test_server_arg(s, "stderr");
    return true;
}

static const struct test_server_kind nginx = {
    .name = "nginx",
    .ports = TEST_SERVER_PORTS,
    .prepare = prepare,
};

struct test_server *test_server_nginx(const char *http, int upstream)
{
    struct given given = {http, upstream};
    return test_server_start(&nginx, &given);
}

static uint32_t crc32_of(const char *text)
{
    uint32_t crc = ~0u;
    for (; *text; text++) {
        crc ^= (unsigned char)*text;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
    }
    return ~crc;
}

struct test_server *test_server_throttle(int upstream, const char *rate, int burst)
{
    static const char refusal[] =
        "{\"__type\":\"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException\","
        "\"message\":\"The level of configured provisioned throughput for the table was exceeded. "
        "Consider increasing your provisioning level with the UpdateTable API.\"}";
    static const char http[] = "    limit_req_zone \"all\" zone=all:64k rate=%s;\n"
                               "    limit_req_status 429;\n"
                               "    client_max_body_size 64m;\n"
                               "    upstream behind {\n"
                               "        server 127.0.0.1:@UPSTREAM@ max_fails=0;\n"
                               "        keepalive 8;\n"
                               "    }\n"
                               "    server {\n"
                               "        listen 127.0.0.1:@PORT@;\n"
                               "        location / {\n"
                               "            limit_req zone=all%s nodelay;\n"
                               "            error_page 429 = @throttled;\n"
                               "            proxy_pass http://behind;\n"
                               "            proxy_http_version 1.1;\n"
                               "            proxy_set_header Connection \"\";\n"
                               "            proxy_set_header Host $http_host;\n"
                               "        }\n"
                               "        location @throttled {\n"
                               "            default_type application/x-amz-json-1.0;\n"
                               "            add_header x-amzn-RequestId $request_id always;\n"
                               "            add_header x-amz-crc32 %u always;\n"
                               "            return 400 '%s';\n"
                               "        }\n"
                               "    }\n";
    char text[2048], burst_text[32] = "";
    if (burst > 0)
        snprintf(burst_text, sizeof burst_text, " burst=%d", burst);
    snprintf(text, sizeof text, http, rate, burst_text, crc32_of(refusal), refusal);
    return test_server_nginx(text, upstream);
}
