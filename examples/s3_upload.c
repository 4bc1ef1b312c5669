/* SPDX-License-Identifier: MIT */
/*
 * s3_upload.c - upload a file to S3 in parallel parts, and show how far it is.
 *
 *     cc s3_upload.c $(pkg-config --cflags --libs libperf)
 *     ./a.out FILE BUCKET [KEY]
 *
 * Region, keys and endpoint come from the environment, as for every tool of AWS: AWS_REGION,
 * AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_S3 and their kin.
 */
#include <libperf/aws_s3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The next bytes of the file. It is called by the thread that uploads, and may block. */
static int64_t read_file(void *file, void *buf, size_t size)
{
    size_t n = fread(buf, 1, size, file);
    return n == 0 && ferror((FILE *)file) ? PERF_EIO : (int64_t)n;
}

/* A few times a second. */
static int show(void *begun, int64_t sent, int64_t total)
{
    enum { WIDTH = 40 };
    char bar[WIDTH + 1];
    double share = total > 0 ? (double)sent / (double)total : 1, s = now() - *(double *)begun;
    int full = (int)(share * WIDTH + 0.5);
    memset(bar, '.', WIDTH);
    memset(bar, '#', (size_t)(full > WIDTH ? WIDTH : full));
    bar[WIDTH] = 0;
    printf("\r[%s] %3.0f %%  %.1f MiB, %.1f MiB/s ", bar, share * 100, (double)sent / 1048576,
           s > 0 ? (double)sent / 1048576 / s : 0);
    fflush(stdout);
    return PERF_OK;
}

static int upload(perf_aws *s3, const char *path, const char *bucket, const char *key)
{
    perf_s3_upload_options options = PERF_S3_UPLOAD_OPTIONS_INIT;
    perf_aws_reply *reply = NULL;
    struct stat about;
    double begun = now();
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &about)) {
        perror(path);
        if (file)
            fclose(file);
        return 1;
    }
    options.read = read_file;
    options.read_ctx = file;
    options.total = S_ISREG(about.st_mode) ? about.st_size : -1;
    options.progress = show;
    options.progress_ctx = &begun;
    int rc = perf_s3_upload(s3, bucket, key, &options, &reply);
    if (rc == PERF_OK)
        printf("\n%s/%s is there in %.1f s\n", bucket, key, now() - begun);
    else
        printf("\n%s: %s\n", perf_strstatus(rc), perf_last_error());
    perf_aws_reply_release(reply);
    fclose(file);
    return rc != PERF_OK && rc != PERF_EUNAVAILABLE; /* nobody is there: that is no failure */
}

int main(int argc, char **argv)
{
    perf_aws_options options = PERF_AWS_OPTIONS_INIT;
    perf_aws *s3;
    if (argc < 3) {
        printf("usage: s3_upload FILE BUCKET [KEY]\n"
               "uploads a file in parallel parts; region and keys come from AWS_REGION,\n"
               "AWS_PROFILE, AWS_ACCESS_KEY_ID, ... and another S3 from AWS_ENDPOINT_URL_S3\n");
        return 0;
    }
    options.service = "s3";
    if (perf_aws_open(&options, &s3)) {
        printf("%s\n", perf_last_error());
        return 0;
    }
    const char *slash = strrchr(argv[1], '/');
    const char *key = argc > 3 ? argv[3] : slash ? slash + 1 : argv[1];
    printf("to %s\n", perf_aws_endpoint(s3));
    int rc = upload(s3, argv[1], argv[2], key);
    perf_aws_close(s3);
    return rc;
}
