/* SPDX-License-Identifier: MIT */
/*
 * server_test.c - the test servers themselves: each starts and answers, ends with its test, comes
 * back on its ports, and can be paused.
 */
#include "leaks.h"
#include "server.h"
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

static bool closes_within(int port, int ms)
{
    for (; ms > 0; ms -= 10) {
        if (!test_port_accepts(port))
            return true;
        sleep_ms(10);
    }
    return false;
}

/* The letter that ps shows. */
static char state_of(pid_t pid)
{
    char path[64], state = '?';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
            state = '?';
        fclose(f);
    }
    return state;
}

/* What every server must do; check asks it something and takes only the right answer. */
static void exercise(struct test_server *s, bool (*check)(struct test_server *s))
{
    int port = s->port;
    pid_t first = s->pid;
    char dir[sizeof s->dir];
    memcpy(dir, s->dir, sizeof dir);

    cr_assert(check(s), "%s does not answer", s->kind->name);

    test_server_pause(s);
    cr_assert_eq(state_of(s->pid), 'T');
    test_server_resume(s);
    cr_assert(check(s), "%s does not answer after its pause", s->kind->name);

    test_server_kill(s);
    cr_assert_eq(s->pid, 0);
    cr_assert(closes_within(port, 1000), "killed, and still accepting");
    cr_assert_eq(kill(first, 0), -1);
    cr_assert(test_server_restart(s), "%s", test_server_why());
    cr_assert_eq(s->port, port);
    cr_assert_neq(s->pid, first);
    cr_assert(check(s), "%s does not answer after its restart", s->kind->name);

    test_server_stop(s);
    cr_assert(closes_within(port, 1000), "stopped, and still accepting");
    cr_assert_neq(access(dir, F_OK), 0, "%s is left behind", dir);
}

/* A process that starts one and is killed takes the server and its directory along. */
static void dies_with_its_test(struct test_server *(*start)(void))
{
    struct {
        int port;
        char dir[64];
    } told = {0, ""};
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t test = fork();
    if (test == 0) {
        struct test_server *s = start();
        if (s) {
            told.port = s->port;
            memcpy(told.dir, s->dir, sizeof told.dir);
        }
        if (write(ends[1], &told, sizeof told) < 0)
            _exit(1);
        for (;;)
            pause();
    }
    cr_assert_eq(read(ends[0], &told, sizeof told), (ssize_t)sizeof told);
    close(ends[0]);
    close(ends[1]);
    cr_assert(told.port && test_port_accepts(told.port), "it did not start");
    kill(test, SIGKILL);
    waitpid(test, NULL, 0);
    cr_assert(closes_within(told.port, 2000), "its test is dead, and it still accepts");
    for (int waited = 0; waited < 3000 && access(told.dir, F_OK) == 0; waited += 10)
        sleep_ms(10);
    cr_assert_neq(access(told.dir, F_OK), 0, "%s is left behind", told.dir);
}

/* ------------------------------------------------------------------------ nginx */

static const char hello[] = "    server {\n"
                            "        listen 127.0.0.1:@PORT@;\n"
                            "        location / { return 200 \"hello from @UPSTREAM@\"; }\n"
                            "    }\n";

static struct test_server *start_nginx(void)
{
    return test_server_nginx(hello, 42);
}

static bool nginx_answers(struct test_server *s)
{
    char *reply = NULL;
    bool ok = test_http(s->port, "GET", "/", NULL, NULL, &reply) == 200 &&
              strstr(reply, "\r\n\r\nhello from 42");
    free(reply);
    return ok;
}

Test(server_nginx, lives_and_ends)
{
    struct test_leaks leaks = test_leaks_begin();
    struct test_server *s = start_nginx();
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    exercise(s, nginx_answers);
    test_leaks_end(&leaks);
    dies_with_its_test(start_nginx);
    test_leaks_end(&leaks);
}

static void *ask(void *s)
{
    return nginx_answers(s) ? s : NULL;
}

Test(server_nginx, paused_it_answers_only_when_resumed)
{
    struct test_server *s = start_nginx();
    struct timespec until;
    pthread_t asker;
    void *answered = NULL;
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    test_server_pause(s);
    cr_assert_eq(pthread_create(&asker, NULL, ask, s), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 200000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    cr_assert_neq(pthread_timedjoin_np(asker, &answered, &until), 0, "paused, and it answers");
    test_server_resume(s);
    cr_assert_eq(pthread_join(asker, &answered), 0);
    cr_assert_not_null(answered);
    test_server_pause(s);
    test_server_stop(s); /* a paused one can be stopped, too */
}

Test(server_nginx, bad_configuration_says_why)
{
    struct test_leaks leaks = test_leaks_begin();
    cr_assert_null(test_server_nginx("    nonsense on;\n", 0));
    cr_assert_not_null(strstr(test_server_why(), "nonsense"), "%s", test_server_why());
    test_leaks_end(&leaks);
}

Test(server_nginx, tls_and_http2)
{
    static const char config[] = "    ssl_certificate_key @DIR@/key.pem;\n"
                                 "    server {\n"
                                 "        listen 127.0.0.1:@PORT@ ssl http2;\n"
                                 "        ssl_certificate @DIR@/cert.pem;\n"
                                 "        location / { return 200 $server_protocol; }\n"
                                 "    }\n"
                                 "    server {\n"
                                 "        listen 127.0.0.1:@PORT2@ ssl;\n"
                                 "        ssl_certificate @DIR@/other.pem;\n"
                                 "        location / { return 200 other; }\n"
                                 "    }\n";
    static const char script[] =
        "set -e\n"
        "hello() { openssl s_client -connect 127.0.0.1:$1 -CAfile $DIR/ca.pem \\\n"
        "    -verify_return_error -verify_hostname localhost -alpn h2,http/1.1 </dev/null 2>&1; }\n"
        "hello $PORT | grep -q 'ALPN protocol: h2'\n"
        "hello $PORT | grep -q 'Verification: OK'\n"
        "hello $PORT2 | grep -q 'Verification error: hostname mismatch'\n";
    char command[1024];
    struct test_server *s = test_server_nginx(config, 0);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    snprintf(command, sizeof command, "DIR=%s PORT=%d PORT2=%d; %s", s->dir, s->port, s->ports[1],
             script);
    cr_assert(test_server_run(s, (const char *const[]){"sh", "-c", command, NULL}), "%s",
              test_server_why());
    test_server_stop(s);
}

Test(server_nginx, throttles_as_dynamodb_does)
{
    struct test_server *back = start_nginx();
    if (!back)
        PERF_TEST_SKIP(test_server_why());
    struct test_server *s = test_server_throttle(back->port, "1r/m", 2);
    cr_assert_not_null(s, "%s", test_server_why());
    char *reply = NULL;
    for (int i = 0; i < 3; i++) /* one, and the burst */
        cr_assert(nginx_answers(s));
    cr_assert_eq(test_http(s->port, "POST", "/", NULL, "{}", &reply), 400);
    cr_assert_not_null(strstr(reply, "Content-Type: application/x-amz-json-1.0\r\n"));
    cr_assert_not_null(strstr(reply, "#ProvisionedThroughputExceededException\""));
    cr_assert_not_null(strstr(reply, "x-amzn-RequestId: "));

    /* The checksum, against gzip's, which keeps it in its last eight bytes. */
    char command[1200], *body = strstr(reply, "\r\n\r\n") + 4;
    char *crc = strstr(reply, "x-amz-crc32: ");
    cr_assert_not_null(crc);
    cr_assert(test_server_write(s, "body", body));
    snprintf(command, sizeof command,
             "test %lu = $(gzip -c %s/body | tail -c 8 | od -An -tu4 | awk '{print $1}')",
             strtoul(crc + 13, NULL, 10), s->dir);
    cr_assert(test_server_run(s, (const char *const[]){"sh", "-c", command, NULL}), "%s",
              test_server_why());
    free(reply);
    test_server_stop(s);
    test_server_stop(back);
}

/* ------------------------------------------------------------------------- moto */

static bool python(struct test_server *s, const char *code)
{
    return test_server_run(s, (const char *const[]){test_server_python(), "-c", code, NULL});
}

static bool moto_answers(struct test_server *s)
{
    return s->access_key[0] && s->secret_key[0] &&
           test_http(s->port, "GET", "/moto-api/data.json", NULL, NULL, NULL) == 200;
}

Test(server_moto, lives_and_ends)
{
    struct test_leaks leaks = test_leaks_begin();
    struct test_server *s = test_server_moto();
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    exercise(s, moto_answers);
    dies_with_its_test(test_server_moto);
    test_leaks_end(&leaks);
}

Test(server_moto, checks_signatures)
{
    static const char script[] =
        "import boto3, botocore\n"
        "def client(service, key, secret):\n"
        "    return boto3.client(service, endpoint_url='%s', region_name='us-east-1',\n"
        "                        aws_access_key_id=key, aws_secret_access_key=secret)\n"
        "def refused(call):\n"
        "    try:\n"
        "        call()\n"
        "    except botocore.exceptions.ClientError as e:\n"
        "        return e.response['ResponseMetadata']['HTTPStatusCode'] == 403\n"
        "    return False\n"
        "key, secret = '%s', '%s'\n"
        "s3, sqs = client('s3', key, secret), client('sqs', key, secret)\n"
        "s3.create_bucket(Bucket='bucket')\n"
        "s3.put_object(Bucket='bucket', Key='k', Body=b'value')\n"
        "assert s3.get_object(Bucket='bucket', Key='k')['Body'].read() == b'value'\n"
        "url = sqs.create_queue(QueueName='q')['QueueUrl']\n"
        "sqs.send_message(QueueUrl=url, MessageBody='hello')\n"
        "assert sqs.receive_message(QueueUrl=url)['Messages'][0]['Body'] == 'hello'\n"
        "assert client('sts', key, secret).get_caller_identity()['Arn'].endswith('tester')\n"
        "client('cloudwatch', key, secret).put_metric_data(Namespace='n',\n"
        "    MetricData=[{'MetricName': 'm', 'Value': 1}])\n"
        "client('dynamodb', key, secret).list_tables()\n"
        "made = client('sts', key, secret).assume_role(\n"
        "    RoleArn='arn:aws:iam::123456789012:role/r', RoleSessionName='session')\n"
        "assert made['Credentials']['SessionToken']\n"
        "said = client('bedrock-runtime', key, secret).invoke_model(modelId='m', body=b'{}')\n"
        "assert said['body'].read()\n"
        "for service in 's3', 'sqs', 'sts', 'dynamodb':\n"
        "    ask = {'s3': 'list_buckets', 'sqs': 'list_queues', 'sts': 'get_caller_identity',\n"
        "           'dynamodb': 'list_tables'}[service]\n"
        "    assert refused(getattr(client(service, key, secret + 'x'), ask)), service\n"
        "    assert refused(getattr(client(service, 'AKIAUNKNOWN', secret), ask)), service\n";
    char code[4096];
    struct test_server *s = test_server_moto();
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    snprintf(code, sizeof code, script, s->url, s->access_key, s->secret_key);
    cr_assert(python(s, code), "%s", test_server_why());
    test_server_stop(s);
}

/* --------------------------------------------------------------- DynamoDB Local */

static int dynamodb(struct test_server *s, const char *target, const char *body, char **reply)
{
    char headers[512];
    snprintf(headers, sizeof headers,
             "Content-Type: application/x-amz-json-1.0\r\n"
             "X-Amz-Target: DynamoDB_20120810.%s\r\n"
             "Authorization: AWS4-HMAC-SHA256 Credential=k/20250101/eu-west-1/dynamodb/"
             "aws4_request, SignedHeaders=host, Signature=none\r\n",
             target);
    return test_http(s->port, "POST", "/", headers, body, reply);
}

static bool dynamodb_answers(struct test_server *s)
{
    char *reply = NULL;
    int created =
        dynamodb(s, "CreateTable",
                 "{\"TableName\":\"table\",\"BillingMode\":\"PAY_PER_REQUEST\","
                 "\"KeySchema\":[{\"AttributeName\":\"k\",\"KeyType\":\"HASH\"}],"
                 "\"AttributeDefinitions\":[{\"AttributeName\":\"k\",\"AttributeType\":\"S\"}]}",
                 NULL);
    bool ok =
        (created == 200 || created == 400) && /* 400: it is there, from the call before */
        dynamodb(s, "PutItem",
                 "{\"TableName\":\"table\",\"Item\":{\"k\":{\"S\":\"a\"},\"v\":{\"N\":\"42\"}}}",
                 NULL) == 200 &&
        dynamodb(s, "GetItem", "{\"TableName\":\"table\",\"Key\":{\"k\":{\"S\":\"a\"}}}", &reply) ==
            200 &&
        strstr(reply, "\"v\":{\"N\":\"42\"}") && strcasestr(reply, "\r\nx-amz-crc32: ");
    free(reply);
    return ok;
}

Test(server_dynamodb, lives_and_ends)
{
    struct test_leaks leaks = test_leaks_begin();
    struct test_server *s = test_server_dynamodb();
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    exercise(s, dynamodb_answers);
    dies_with_its_test(test_server_dynamodb);
    test_leaks_end(&leaks);
}

/* ------------------------------------------------------------------- PostgreSQL */

static bool postgres_answers(struct test_server *s)
{
    char command[512];
    snprintf(command, sizeof command,
             "for at in 127.0.0.1 %s; do test 42 = \"$(psql -h $at -p %d -U postgres -w -tA -c "
             "'select 6 * 7')\" || exit 1; done",
             s->dir, s->port);
    return test_server_run(s, (const char *const[]){"sh", "-c", command, NULL});
}

Test(server_postgres, lives_and_ends)
{
    struct test_leaks leaks = test_leaks_begin();
    struct test_server *s = test_server_postgres();
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    exercise(s, postgres_answers);
    dies_with_its_test(test_server_postgres);
    test_leaks_end(&leaks);
}

/* ------------------------------------------------------------------------ Redis */

static bool redis_answers(struct test_server *s)
{
    return test_redis_says(s, "OK", "SET k 'a value'") && test_redis_says(s, "a value", "GET k");
}

static struct test_server *start_redis(void)
{
    return test_server_redis(NULL);
}

Test(server_redis, lives_and_ends)
{
    struct test_leaks leaks = test_leaks_begin();
    struct test_server *s = start_redis();
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    exercise(s, redis_answers);
    dies_with_its_test(start_redis);
    test_leaks_end(&leaks);
}

Test(server_redis, passwords_users_socket_and_a_file)
{
    static const char script[] = "set -e\n"
                                 "cli() { redis-cli -s redis.sock \"$@\" 2>&1; }\n"
                                 "cli get k | grep -q NOAUTH\n"
                                 "cli -a wrong get k | grep -q WRONGPASS\n"
                                 "cli --user app -a hers get k | grep -q kept\n"
                                 "cli -a secret get k | grep -q kept\n";
    struct test_redis asked = {
        .password = "secret", .user = "app", .user_password = "hers", .appendonly = true};
    struct test_server *s = test_server_redis(&asked);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    cr_assert(test_redis_says(s, "OK", "SET k kept"), "%s", test_server_why());
    for (int i = 0; i < 2; i++) {
        cr_assert(test_server_run(s, (const char *const[]){"sh", "-c", script, NULL}), "%s",
                  test_server_why());
        cr_assert(test_server_restart(s), "%s", test_server_why());
    }
    test_server_stop(s);
}

Test(server_redis, tls_and_certificates_of_clients)
{
    static const char script[] =
        "cli() { redis-cli -p %d --tls --cacert ca.pem \"$@\" 2>&1; }\n"
        "cli --cert cert.pem --key key.pem ping | grep -q PONG || exit 1\n"
        "! cli ping | grep -q PONG || exit 2\n"
        "! redis-cli -p %d ping 2>&1 | grep -q PONG || exit 3\n"
        "openssl s_client -connect 127.0.0.1:%d -CAfile ca.pem -verify_hostname localhost \\\n"
        "    -verify_return_error </dev/null 2>&1 | grep -q 'Verification: OK'\n";
    char command[1024];
    struct test_redis asked = {.tls = true, .client_certificates = true};
    struct test_server *s = test_server_redis(&asked);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    cr_assert(strncmp(s->url, "rediss://", 9) == 0);
    cr_assert(redis_answers(s), "%s", test_server_why());
    snprintf(command, sizeof command, script, s->port, s->port, s->port);
    cr_assert(test_server_run(s, (const char *const[]){"sh", "-c", command, NULL}), "%s",
              test_server_why());
    test_server_stop(s);
}

/* Which node says that it is the master of a slot's key. */
static int master_of(struct test_redis_cluster *c, const char *key)
{
    for (int i = 0; i < TEST_REDIS_NODES; i++)
        if (c->nodes[i]->pid && test_redis_says(c->nodes[i], "OK", "SET %s %s", key, key))
            return i;
    return -1;
}

static int master_within(struct test_redis_cluster *c, const char *key, int not_this, int ms)
{
    for (; ms > 0; ms -= 50, sleep_ms(50)) {
        int master = master_of(c, key);
        if (master >= 0 && master != not_this)
            return master;
    }
    return -1;
}

/* A node killed is succeeded by its replica and comes back as one; so is a node that pauses. */
static void exercise_cluster(struct test_redis_cluster *c)
{
    cr_assert_eq(master_of(c, "b"), 0); /* slots 3300, 7365 and 15495 */
    cr_assert_eq(master_of(c, "c"), 1);
    cr_assert_eq(master_of(c, "a"), 2);
    char *text = test_redis_cli(c->nodes[0], "GET a");
    cr_assert(text && !strncmp(text, "MOVED 15495 127.0.0.1:", 22), "%s", text);
    free(text);

    test_server_kill(c->nodes[2]);
    cr_assert_eq(master_within(c, "a", 2, 15000), 5);
    cr_assert(test_server_restart(c->nodes[2]), "%s", test_server_why());
    cr_assert(test_redis_cluster_settle(c, 15000), "%s", test_server_why());
    cr_assert(test_redis_says(c->nodes[2], "a", "-c GET a"), "%s", test_server_why());

    test_server_pause(c->nodes[1]);
    for (int ms = 0; test_redis_says(c->nodes[4], "OK", "SET c later") == false; ms += 50) {
        cr_assert_lt(ms, 15000);
        sleep_ms(50);
    }
    test_server_resume(c->nodes[1]);
    cr_assert(test_redis_cluster_settle(c, 15000), "%s", test_server_why());
    cr_assert(test_redis_says(c->nodes[1], "later", "-c GET c"), "%s", test_server_why());
}

Test(server_redis, cluster)
{
    struct test_leaks leaks = test_leaks_begin();
    struct test_redis_cluster *c = test_redis_cluster(NULL);
    if (!c)
        PERF_TEST_SKIP(test_server_why());
    exercise_cluster(c);
    test_redis_cluster_stop(c);
    test_leaks_end(&leaks);
}

Test(server_redis, cluster_with_tls_and_a_password)
{
    struct test_redis asked = {.tls = true, .password = "secret"};
    struct test_redis_cluster *c = test_redis_cluster(&asked);
    if (!c)
        PERF_TEST_SKIP(test_server_why());
    cr_assert_eq(master_of(c, "a"), 2);
    cr_assert(test_redis_says(c->nodes[0], "a", "-c GET a"), "%s", test_server_why());
    test_redis_cluster_stop(c);
}

Test(server_redis, sentinel)
{
    struct test_leaks leaks = test_leaks_begin();
    struct test_redis asked = {.password = "secret", .sentinel_password = "theirs"};
    struct test_redis_sentinel *c = test_redis_sentinel(&asked);
    if (!c)
        PERF_TEST_SKIP(test_server_why());
    cr_assert_eq(test_redis_sentinel_master(c), 0);
    cr_assert(test_redis_says(c->nodes[0], "OK", "SET k v"), "%s", test_server_why());
    cr_assert(test_redis_says(c->nodes[0], "2", "WAIT 2 5000"), "%s", test_server_why());

    test_server_kill(c->sentinels[2]); /* two are still a majority */
    test_server_kill(c->nodes[0]);
    int master = 0;
    for (int ms = 0; (master = test_redis_sentinel_master(c)) <= 0; ms += 50) {
        cr_assert_lt(ms, 15000);
        sleep_ms(50);
    }
    cr_assert(test_server_restart(c->sentinels[2]), "%s", test_server_why());
    cr_assert(test_server_restart(c->nodes[0]), "%s", test_server_why());
    cr_assert(test_redis_sentinel_settle(c, 20000), "%s", test_server_why());
    cr_assert_eq(test_redis_sentinel_master(c), master);
    cr_assert(test_redis_says(c->nodes[0], "v", "GET k"), "%s", test_server_why());
    test_redis_sentinel_stop(c);
    test_leaks_end(&leaks);
}

/* -------------------------------------------------------------------- toxiproxy */

static int behind;

static struct test_server *start_toxiproxy(void)
{
    return test_server_toxiproxy(behind);
}

/* What came through the proxy: NULL if nothing did; *ms is how long it took. */
static char *through(struct test_server *s, int *status, int64_t *ms)
{
    struct timespec a, b;
    char *reply = NULL;
    clock_gettime(CLOCK_MONOTONIC, &a);
    *status = test_http(s->ports[1], "GET", "/", NULL, NULL, &reply);
    clock_gettime(CLOCK_MONOTONIC, &b);
    *ms = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
    return reply;
}

static bool toxiproxy_answers(struct test_server *s)
{
    int status;
    int64_t ms;
    free(through(s, &status, &ms));
    return status == 200;
}

Test(server_toxiproxy, lives_and_ends)
{
    struct test_leaks leaks = test_leaks_begin();
    struct test_server *back = start_nginx();
    if (!back)
        PERF_TEST_SKIP(test_server_why());
    behind = back->port;
    struct test_server *s = start_toxiproxy();
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    exercise(s, toxiproxy_answers);
    dies_with_its_test(start_toxiproxy);
    test_server_stop(back);
    test_leaks_end(&leaks);
}

Test(server_toxiproxy, toxics_do_what_they_say)
{
    struct test_server *back = start_nginx();
    if (!back)
        PERF_TEST_SKIP(test_server_why());
    struct test_server *s = test_server_toxiproxy(back->port);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    int status;
    int64_t ms;
    char *reply;

    cr_assert(test_toxic_add(s, "t", "latency", true, "\"latency\": 300"), "%s", test_server_why());
    free(through(s, &status, &ms));
    cr_assert(status == 200 && ms >= 300, "%d after %d ms", status, (int)ms);
    cr_assert(test_toxic_remove(s, "t"), "%s", test_server_why());
    free(through(s, &status, &ms));
    cr_assert(status == 200 && ms < 300, "%d after %d ms", status, (int)ms);

    cr_assert(test_toxic_add(s, "t", "limit_data", true, "\"bytes\": 20"));
    reply = through(s, &status, &ms);
    cr_assert(reply && strlen(reply) == 20, "%s", reply ? reply : "nothing");
    free(reply);
    cr_assert(test_toxic_remove(s, "t"));

    cr_assert(test_toxic_add(s, "t", "reset_peer", true, "\"timeout\": 0"));
    free(through(s, &status, &ms));
    cr_assert_eq(status, 0);
    cr_assert(test_toxic_remove(s, "t"));

    /* On the request's way: on the reply's, it ends when the server closes. */
    cr_assert(test_toxic_add(s, "t", "timeout", false, "\"timeout\": 100"));
    free(through(s, &status, &ms));
    cr_assert(status == 0 && ms >= 100, "%d after %d ms", status, (int)ms);
    cr_assert(test_toxic_remove(s, "t"));

    cr_assert(test_toxic_add(s, "t", "slow_close", true, "\"delay\": 200"));
    free(through(s, &status, &ms));
    cr_assert(status == 200 && ms >= 200, "%d after %d ms", status, (int)ms);
    cr_assert(test_toxic_remove(s, "t"));

    cr_assert(test_toxic_add(s, "t", "bandwidth", true, "\"rate\": 1"));
    free(through(s, &status, &ms)); /* about 180 bytes at 1 KB/s */
    cr_assert(status == 200 && ms >= 100, "%d after %d ms", status, (int)ms);
    cr_assert(test_toxic_remove(s, "t"));

    cr_assert(test_toxic_enable(s, false));
    cr_assert_not(test_port_accepts(s->ports[1]));
    cr_assert(test_toxic_enable(s, true));
    cr_assert(toxiproxy_answers(s));
    cr_assert_not(test_toxic_add(s, "t", "poison", true, NULL));
    cr_assert_not_null(strstr(test_server_why(), "poison"));
    test_server_stop(s);
    test_server_stop(back);
}
