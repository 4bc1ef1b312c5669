/* SPDX-License-Identifier: MIT */
/*
 * system*.c: layouts of procfs and cgroups as machines have them, put into
 * directories; what is absent or damaged; and this very process.
 */
#include <errno.h>
#include <fcntl.h>
#include <libperf/system.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "seams.h"
#include "test.h"

struct machine {
    struct test_host th;
    char *file; /* in the directory that is removed afterwards */
    char root[512], proc[600], cgroup[600];
    perf_system *system;
    perf_system_stats stats;
};

static void put(struct machine *m, const char *path, const char *text)
{
    char full[2048];
    int len = snprintf(full, sizeof full, "%s/%s", m->root, path);
    cr_assert(len > 0 && len < (int)sizeof full);
    for (char *p = full + strlen(m->root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        cr_assert(!mkdir(full, 0700) || errno == EEXIST, "%s", full);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    cr_assert(f, "%s", full);
    fputs(text, f);
    fclose(f);
}

static void machine_init(struct machine *m)
{
    memset(m, 0, sizeof *m);
    test_host_init(&m->th);
    m->file = test_temp_file("x");
    snprintf(m->root, sizeof m->root, "%.*s", (int)(strlen(m->file) - 2), m->file);
    snprintf(m->proc, sizeof m->proc, "%s/proc", m->root);
    snprintf(m->cgroup, sizeof m->cgroup, "%s/cgroup", m->root);
    m->stats = (perf_system_stats)PERF_SYSTEM_STATS_INIT;
    put(m, "proc/self/stat",
        "4242 (a (b) c) S 1 4242 4242 0 -1 4194560 1500 0 12 0 250 50 0 0 20 0 7 0 30000 "
        "104857600 2560 18446744073709551615 1 1 0 0 0 0 0 4096 16387 0 0 0 17 1 0 0 0 0 0 0 0 0 "
        "0 0 0 0 0\n");
    put(m, "proc/self/status",
        "Name:\ta\nState:\tS (sleeping)\nVmPeak:\t  110000 kB\nVmSize:\t  102400 kB\nVmHWM:\t   "
        "12288 kB\nVmRSS:\t   10240 kB\nThreads:\t7\nCpus_allowed:\tff\n"
        "Cpus_allowed_list:\t0-3,8,10-11\nvoluntary_ctxt_switches:\t900\n"
        "nonvoluntary_ctxt_switches:\t33\n");
    char statm[64];
    snprintf(statm, sizeof statm, "%ld %ld 1 2 0 3 0\n", 104857600 / sysconf(_SC_PAGESIZE),
             10485760 / sysconf(_SC_PAGESIZE));
    put(m, "proc/self/statm", statm);
    put(m, "proc/self/io",
        "rchar: 1000\nwchar: 2000\nsyscr: 30\nsyscw: 40\nread_bytes: 4096\nwrite_bytes: 8192\n"
        "cancelled_write_bytes: 0\n");
    put(m, "proc/self/net/dev",
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs "
        "drop fifo colls carrier compressed\n"
        "    lo: 999 9 9 9 0 0 0 0 999 9 9 9 0 0 0 0\n"
        "  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n"
        "  eth1:500 5 0 0 0 0 0 0 600 6 0 0 0 0 0 0\n");
    put(m, "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max processes             63337                63337                processes \n"
        "Max open files            1024                 524288               files     \n");
    put(m, "proc/self/fd/0", "");
    put(m, "proc/self/fd/1", "");
    put(m, "proc/self/fd/17", "");
    put(m, "proc/loadavg", "0.52 1.25 10.00 1/234 4242\n");
    put(m, "proc/uptime", "1000.25 3000.50\n");
    put(m, "proc/meminfo", "MemTotal:       16384000 kB\nMemFree:         1000 kB\n");
}

static perf_system_stats *look(struct machine *m, int64_t lambda)
{
    perf_system_options o = PERF_SYSTEM_OPTIONS_INIT;
    o.proc = m->proc;
    o.cgroup = m->cgroup;
    o.lambda = lambda;
    o.host = &m->th.host;
    perf_system_close(m->system);
    cr_assert_eq(perf_system_open(&o, &m->system), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_system_read(m->system, PERF_SYSTEM_ALL, &m->stats), PERF_OK);
    return &m->stats;
}

static perf_system_stats *look_again(struct machine *m)
{
    cr_assert_eq(perf_system_read(m->system, PERF_SYSTEM_ALL, &m->stats), PERF_OK);
    return &m->stats;
}

static void machine_end(struct machine *m)
{
    perf_system_close(m->system);
    cr_assert_eq(m->th.live, 0);
    test_remove_dir_of(m->file);
}

static bool near(double a, double b)
{
    return a - b < 1e-6 && b - a < 1e-6;
}

/* ------------------------------------------------------------------ layouts */

Test(monitor_system, a_process_as_procfs_tells)
{
    struct machine m;
    machine_init(&m);
    perf_system_stats *s = look(&m, 0);
    cr_assert(s->rss == 10240 << 10 && s->peak_rss == 12288 << 10 &&
              s->virtual_size == 102400 << 10);
    cr_assert(s->threads == 7 && s->minor_faults == 1500 && s->major_faults == 12);
    cr_assert(s->voluntary_switches == 900 && s->involuntary_switches == 33);
    cr_assert(s->open_files == 3 && s->open_files_limit == 1024, "%lld", (long long)s->open_files);
    cr_assert(s->read_chars == 1000 && s->written_chars == 2000 && s->read_calls == 30 &&
              s->write_calls == 40 && s->read_bytes == 4096 && s->written_bytes == 8192);
    cr_assert(s->received_bytes == 1500 && s->received_packets == 15 && s->received_errors == 1 &&
              s->received_dropped == 2);
    cr_assert(s->sent_bytes == 2600 && s->sent_packets == 26 && s->sent_errors == 3 &&
              s->sent_dropped == 4);
    cr_assert(near(s->load_1, 0.52) && near(s->load_5, 1.25) && near(s->load_15, 10));
    cr_assert_eq(s->machine_uptime_ms, 1000250);
    cr_assert_eq(s->cpu_time_ns, 300 * (INT64_C(1000000000) / sysconf(_SC_CLK_TCK)));
    int64_t start_ms = 30000 * 1000 / sysconf(_SC_CLK_TCK);
    cr_assert_eq(s->uptime_ms, 1000250 - start_ms);
    cr_assert_eq(s->start_time_ms, m.th.realtime_ms - s->uptime_ms);
    cr_assert(near(s->cpu_limit, 7), "no cgroup: the processors it may run on");
    cr_assert(s->machine_memory == INT64_C(16384000) << 10 && s->memory_limit == s->machine_memory);
    cr_assert(near(s->memory_percent, 100.0 * 10240 / 16384000));
    cr_assert(s->cgroup_version == 0 && s->cgroup_memory == -1 && s->oom_kills == -1);
    cr_assert(near(s->cpu_pressure.some_avg10, -1) && s->io_pressure.full_total_us == -1);
    cr_assert(near(s->cpu_percent, -1), "no time has passed");
    machine_end(&m);
}

static void put_v2(struct machine *m)
{
    put(m, "proc/self/cgroup", "0::/kubepods/pod1/c1\n");
    put(m, "cgroup/cgroup.controllers", "cpu io memory\n");
    put(m, "cgroup/kubepods/memory.max", "max\n");
    put(m, "cgroup/kubepods/cpu.max", "max 100000\n");
    put(m, "cgroup/kubepods/pod1/memory.max", "268435456\n"); /* the least is in the middle */
    put(m, "cgroup/kubepods/pod1/memory.high", "max\n");
    put(m, "cgroup/kubepods/pod1/cpu.max", "150000 100000\n");
    put(m, "cgroup/kubepods/pod1/c1/memory.max", "536870912\n");
    put(m, "cgroup/kubepods/pod1/c1/memory.high", "201326592\n");
    put(m, "cgroup/kubepods/pod1/c1/memory.current", "134217728\n");
    put(m, "cgroup/kubepods/pod1/c1/memory.swap.current", "4096\n");
    put(m, "cgroup/kubepods/pod1/c1/memory.stat",
        "anon 1000\nfile 70000000\ninactive_anon 5\ninactive_file 67108864\nactive_file 7\n");
    put(m, "cgroup/kubepods/pod1/c1/memory.events",
        "low 0\nhigh 5\nmax 6\noom 2\noom_kill 1\noom_group_kill 0\n");
    put(m, "cgroup/kubepods/pod1/c1/cpu.max", "200000 100000\n");
    put(m, "cgroup/kubepods/pod1/c1/cpu.stat",
        "usage_usec 5000000\nuser_usec 4000000\nsystem_usec 1000000\nnr_periods 100\n"
        "nr_throttled 12\nthrottled_usec 345678\n");
    put(m, "cgroup/kubepods/pod1/c1/cpu.pressure",
        "some avg10=1.50 avg60=2.25 avg300=0.00 total=123456\n"
        "full avg10=0.10 avg60=0.20 avg300=0.00 total=99\n");
    put(m, "proc/pressure/io",
        "some avg10=12.00 avg60=3.00 avg300=0.00 total=7\nfull avg10=4.00 avg60=5.00 "
        "avg300=0.00 total=6\n");
}

Test(monitor_system, version_2_nested)
{
    struct machine m;
    machine_init(&m);
    put_v2(&m);
    perf_system_stats *s = look(&m, 0);
    cr_assert_eq(s->cgroup_version, 2);
    cr_assert(s->cgroup_memory_max == 268435456 && s->cgroup_memory_high == 201326592);
    cr_assert(s->memory_limit == 268435456 && s->cgroup_memory == 134217728);
    cr_assert(near(s->cgroup_memory_percent, 25), "without the cache: %f",
              s->cgroup_memory_percent);
    cr_assert(near(s->memory_percent, 100.0 * 10485760 / 268435456));
    cr_assert(s->cgroup_swap == 4096 && s->oom == 2 && s->oom_kills == 1);
    cr_assert(near(s->cpu_limit, 1.5));
    cr_assert(s->cgroup_cpu_time_ns == INT64_C(5000000000) && s->cpu_periods == 100 &&
              s->cpu_throttled == 12 && s->cpu_throttled_ns == 345678000);
    cr_assert(near(s->cpu_pressure.some_avg10, 1.5) && near(s->cpu_pressure.some_avg60, 2.25) &&
              s->cpu_pressure.some_total_us == 123456 && near(s->cpu_pressure.full_avg10, 0.1) &&
              s->cpu_pressure.full_total_us == 99);
    cr_assert(near(s->io_pressure.some_avg10, 12) && s->io_pressure.full_total_us == 6,
              "the cgroup has none: the machine's");
    cr_assert(near(s->memory_pressure.some_avg10, -1));
    machine_end(&m);
}

Test(monitor_system, percentages_are_of_the_quota_since_the_last_read)
{
    struct machine m;
    machine_init(&m);
    put_v2(&m);
    perf_system_stats *s = look(&m, 0);
    put(&m, "cgroup/kubepods/pod1/c1/cpu.stat", "usage_usec 8000000\n");
    put(&m, "proc/self/stat",
        "4242 (a) S 1 4242 4242 0 -1 4194560 1500 0 12 0 400 50 0 0 20 0 7 0 30000 1 1 1\n");
    test_host_advance(&m.th, 4000);
    s = look_again(&m); /* 4 s of 1.5 processors: 3 s by the cgroup, 150 ticks by the process */
    cr_assert(near(s->cgroup_cpu_percent, 50), "%f", s->cgroup_cpu_percent);
    cr_assert(near(s->cpu_percent, 150.0 / (double)sysconf(_SC_CLK_TCK) / 6 * 100));
    s = look_again(&m);
    cr_assert(near(s->cpu_percent, -1), "no time has passed");
    put(&m, "cgroup/kubepods/pod1/c1/cpu.stat", "usage_usec 7\n"); /* went back */
    test_host_advance(&m.th, 1000);
    s = look_again(&m);
    cr_assert(near(s->cgroup_cpu_percent, -1) && near(s->cpu_percent, 0));
    put(&m, "cgroup/kubepods/pod1/cpu.max", "max 100000\n"); /* limits may change */
    put(&m, "cgroup/kubepods/pod1/memory.max", "max\n");
    s = look_again(&m);
    cr_assert(near(s->cpu_limit, 2) && s->memory_limit == 536870912);
    put(&m, "cgroup/kubepods/pod1/c1/cpu.max", "max 100000\n");
    put(&m, "cgroup/kubepods/pod1/c1/memory.max", "max\n");
    s = look_again(&m);
    cr_assert(near(s->cpu_limit, 7) && s->cgroup_memory_max == 0 &&
              s->memory_limit == s->machine_memory);
    machine_end(&m);
}

Test(monitor_system, version_2_in_a_namespace)
{
    static const char *const paths[] = {"0::/\n", "0::/../../elsewhere\n", "0::/not/there\n"};
    for (int i = 0; i < 3; i++) {
        struct machine m;
        machine_init(&m);
        put(&m, "proc/self/cgroup", paths[i]);
        put(&m, "cgroup/memory.max", "1048576\n");
        put(&m, "cgroup/memory.current", "524288\n");
        put(&m, "cgroup/cpu.max", "50000 100000\n");
        put(&m, "elsewhere/memory.max", "1\n");
        perf_system_stats *s = look(&m, 0);
        cr_assert(s->cgroup_memory_max == 1048576 && s->cgroup_memory == 524288 &&
                      near(s->cgroup_memory_percent, 50) && near(s->cpu_limit, 0.5),
                  "%s", paths[i]);
        machine_end(&m);
    }
}

static void put_v1(struct machine *m, const char *path)
{
    static const struct {
        const char *controller, *name, *text;
    } files[] = {
        {"memory", "memory.limit_in_bytes", "104857600\n"},
        {"memory", "memory.usage_in_bytes", "52428800\n"},
        {"memory", "memory.stat",
         "cache 1\ninactive_file 1\ntotal_inactive_file 10485760\ntotal_swap 2048\n"},
        {"memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"},
        {"cpu,cpuacct", "cpu.cfs_quota_us", "25000\n"},
        {"cpu,cpuacct", "cpu.cfs_period_us", "50000\n"},
        {"cpu,cpuacct", "cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 777\n"},
        {"cpu,cpuacct", "cpuacct.usage", "123456789\n"},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char name[256];
        snprintf(name, sizeof name, "cgroup/%s%s/%s", files[i].controller, path, files[i].name);
        put(m, name, files[i].text);
    }
    put(m, "cgroup/memory/memory.limit_in_bytes", *path ? "9223372036854771712\n" : "104857600\n");
    put(m, "cgroup/cpu,cpuacct/cpu.cfs_quota_us", *path ? "-1\n" : "25000\n");
}

static void check_v1(const perf_system_stats *s)
{
    cr_assert_eq(s->cgroup_version, 1);
    cr_assert(s->cgroup_memory_max == 104857600 && s->memory_limit == 104857600 &&
              s->cgroup_memory == 52428800 && near(s->cgroup_memory_percent, 40));
    cr_assert(s->cgroup_memory_high == -1 && s->cgroup_swap == 2048 && s->oom == -1 &&
              s->oom_kills == 3);
    cr_assert(near(s->cpu_limit, 0.5) && s->cpu_throttled_ns == 777 && s->cpu_periods == 9 &&
              s->cgroup_cpu_time_ns == 123456789);
}

Test(monitor_system, version_1)
{
    struct machine m;
    machine_init(&m);
    put(&m, "proc/self/cgroup",
        "12:pids:/docker/abc\n5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n");
    put_v1(&m, "/docker/abc");
    check_v1(look(&m, 0));
    machine_end(&m);
    machine_init(&m);
    put(&m, "proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n");
    put_v1(&m, ""); /* the container's own is mounted */
    check_v1(look(&m, 0));
    machine_end(&m);
}

Test(monitor_system, hybrid)
{
    struct machine m;
    machine_init(&m);
    put(&m, "proc/self/cgroup", "4:memory:/a\n5:cpu,cpuacct:/a\n1:name=systemd:/x\n0::/sys/u\n");
    put_v1(&m, "/a");
    put(&m, "cgroup/unified/sys/u/cpu.pressure",
        "some avg10=3.00 avg60=0.00 avg300=0.00 total=1\n");
    perf_system_stats *s = look(&m, 0);
    check_v1(s);
    cr_assert(near(s->cpu_pressure.some_avg10, 3) && near(s->cpu_pressure.full_avg10, -1));
    machine_end(&m);
}

Test(monitor_system, a_hierarchy_without_memory)
{
    struct machine m;
    machine_init(&m);
    put(&m, "proc/self/cgroup", "1:name=systemd:/x\n0::/sys/u\n");
    put(&m, "cgroup/unified/sys/u/cgroup.procs", "1\n");
    perf_system_stats *s = look(&m, 0);
    cr_assert(s->cgroup_version == 0 && s->cgroup_memory_max == -1 && near(s->cpu_limit, 7));
    machine_end(&m);
}

Test(monitor_system, lambda_only_when_asked)
{
    struct machine m;
    machine_init(&m);
    setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128", 1);
    cr_assert_eq(look(&m, 0)->memory_limit, INT64_C(16384000) << 10);
    cr_assert_eq(look(&m, 1)->memory_limit, 128 << 20);
    cr_assert(near(look(&m, 1)->memory_percent, 100.0 * 10 / 128));
    setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "12x", 1);
    cr_assert_eq(look(&m, 1)->memory_limit, INT64_C(16384000) << 10);
    setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "9999999999999999", 1);
    cr_assert_eq(look(&m, 1)->memory_limit, INT64_C(16384000) << 10);
    unsetenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE");
    machine_end(&m);
}

/* --------------------------------------------------------- what is not there */

Test(monitor_system, nothing_is_there)
{
    struct machine m;
    machine_init(&m);
    snprintf(m.proc, sizeof m.proc, "%s/no", m.root);
    snprintf(m.cgroup, sizeof m.cgroup, "%s/no", m.root);
    perf_system_stats *s = look(&m, 0);
    cr_assert(s->rss == -1 && s->threads == -1 && s->open_files == -1 && s->cpu_time_ns == -1 &&
              s->received_bytes == -1 && s->machine_memory == -1 && s->memory_limit == -1 &&
              s->machine_uptime_ms == -1 && s->cgroup_version == 0);
    cr_assert(near(s->cpu_limit, -1) && near(s->memory_percent, -1) && near(s->load_15, -1));
    machine_end(&m);
}

Test(monitor_system, damaged_files_leave_their_fields_unknown)
{
    struct machine m;
    machine_init(&m);
    put_v2(&m);
    put(&m, "proc/self/stat", "no parenthesis");
    put(&m, "proc/self/io", "rchar: 99999999999999999999999\nwchar: -5\nsyscr: 8\nsyscw");
    put(&m, "proc/self/net/dev", "a\nb\neth0: 1 2 3\n");
    put(&m, "proc/self/limits", "Max open files");
    put(&m, "proc/loadavg", "x 1.5");
    put(&m, "proc/uptime", "99999999999999.0");
    put(&m, "cgroup/kubepods/pod1/cpu.max", "150000");
    put(&m, "cgroup/kubepods/pod1/c1/cpu.max", "1 0\n");
    put(&m, "cgroup/kubepods/pod1/memory.max", "\xff\xfe\n");
    put(&m, "cgroup/kubepods/pod1/c1/cpu.pressure", "some avg10= total=\nfull avg10=1e9");
    perf_system_stats *s = look(&m, 0);
    cr_assert(s->threads == -1 && s->cpu_time_ns == -1 && s->start_time_ms == -1);
    cr_assert(s->read_chars == -1 && s->written_chars == -1 && s->read_calls == 8 &&
              s->write_calls == -1);
    cr_assert(s->received_bytes == -1 && s->open_files_limit == -1 && near(s->load_1, -1) &&
              s->machine_uptime_ms == -1);
    cr_assert(near(s->cpu_limit, 7) && s->cgroup_memory_max == 536870912);
    cr_assert(near(s->cpu_pressure.some_avg10, -1) && s->cpu_pressure.some_total_us == -1);
    cr_assert(s->rss == 10240 << 10, "the rest is right");
    machine_end(&m);
}

Test(monitor_system, hostile_bytes_are_bounded)
{
    static const char *const files[] = {
        "proc/self/statm",   "proc/self/stat",    "proc/self/status",    "proc/self/io",
        "proc/self/net/dev", "proc/self/cgroup",  "proc/self/limits",    "proc/loadavg",
        "proc/uptime",       "proc/meminfo",      "proc/pressure/cpu",   "cgroup/x/memory.max",
        "cgroup/x/cpu.max",  "cgroup/x/cpu.stat", "cgroup/x/memory.stat"};
    struct machine m;
    machine_init(&m);
    uint64_t seed = 12345;
    char text[4096];
    for (int round = 0; round < 60; round++) {
        for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
            static const char bytes[] = "0123456789:.,-/ \t\n()=maxVmRSSsomefull";
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            size_t len = (seed >> 33) % (sizeof text - 1);
            for (size_t k = 0; k < len; k++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                text[k] = (seed >> 60) ? bytes[(seed >> 33) % (sizeof bytes - 1)]
                                       : (char)((seed >> 40) % 255 + 1);
            }
            text[len] = 0;
            put(&m, files[i], text);
        }
        perf_system_stats *s = look(&m, 0);
        cr_assert(s->rss >= -1 && s->received_bytes >= -1 && s->cpu_limit >= -1 &&
                  s->memory_limit >= -1 && s->cpu_periods >= -1);
    }
    char *large = malloc(200000);
    memset(large, '7', 199999);
    large[199999] = 0;
    put(&m, "proc/self/statm", large); /* larger than is read: unknown */
    put(&m, "proc/self/status", large);
    put(&m, "proc/self/cgroup", large);
    cr_assert_eq(look(&m, 0)->rss, -1);
    cr_assert_eq(m.stats.peak_rss, -1);
    free(large);
    machine_end(&m);
}

/* ------------------------------------------------------------- this process */

Test(monitor_system, this_process)
{
    perf_system *system = NULL;
    perf_system_stats a = PERF_SYSTEM_STATS_INIT, b = PERF_SYSTEM_STATS_INIT;
    cr_assert_eq(perf_system_open(NULL, &system), PERF_OK, "%s", perf_last_error());
    struct timespec start, now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    do { /* 30 ms of work */
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec < 30000000);
    cr_assert_eq(perf_system_read(system, PERF_SYSTEM_ALL, &a), PERF_OK);
    cr_assert(a.cpu_percent > 0 && a.cpu_percent <= 101, "%f", a.cpu_percent);
    cr_assert(a.cpu_time_ns >= 30000000 && a.cpu_limit > 0);
    cr_assert(a.rss > 100000 && a.peak_rss >= a.rss / 2 && a.virtual_size > a.rss &&
              a.memory_limit >= a.rss && a.memory_percent > 0);
    cr_assert(a.threads >= 1 && a.open_files > 3 && a.minor_faults > 10 && a.uptime_ms >= 0);
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    int64_t age = wall.tv_sec * 1000 - a.start_time_ms;
    cr_assert(age > -2000 && age < 3600000, "started %lld ms ago", (long long)age);
    int more[5];
    for (int i = 0; i < 5; i++)
        cr_assert_geq(more[i] = open("/dev/null", O_RDONLY), 0);
    cr_assert_eq(perf_system_read(system, PERF_SYSTEM_PROCESS, &b), PERF_OK);
    cr_assert_eq(b.open_files, a.open_files + 5);
    cr_assert(b.rss == -1 && b.cpu_percent < 0, "not asked for");
    for (int i = 0; i < 5; i++)
        close(more[i]);
    perf_system_close(system);
}

static void *read_often(void *arg)
{
    perf_system_stats s = PERF_SYSTEM_STATS_INIT;
    for (int i = 0; i < 200; i++)
        cr_assert_eq(perf_system_read(arg, i % 2 ? PERF_SYSTEM_ALL : PERF_SYSTEM_BASIC, &s),
                     PERF_OK);
    return NULL;
}

Test(monitor_system, many_threads)
{
    perf_system *system = NULL;
    pthread_t threads[4];
    cr_assert_eq(perf_system_open(NULL, &system), PERF_OK);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, read_often, system), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    perf_system_close(system);
}

Test(monitor_system, refuses)
{
    struct test_host th;
    perf_system *system = NULL;
    perf_system_options o = PERF_SYSTEM_OPTIONS_INIT;
    perf_system_stats s = PERF_SYSTEM_STATS_INIT;
    int64_t value;
    cr_assert_eq(perf_system_open(NULL, NULL), PERF_EINVAL);
    o.lambda = 2;
    cr_assert_eq(perf_system_open(&o, &system), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "lambda"));
    o.lambda = 0;
    o.proc = "";
    cr_assert_eq(perf_system_open(&o, &system), PERF_EINVAL);
    o.proc = NULL;
    o.host = test_host_init(&th);
    th.fail_at = 1;
    cr_assert_eq(perf_system_open(&o, &system), PERF_ENOMEM);
    cr_assert(!system && !th.live);
    cr_assert_eq(perf_system_open(&o, &system), PERF_OK);
    cr_assert_eq(perf_system_read(NULL, PERF_SYSTEM_ALL, &s), PERF_EINVAL);
    cr_assert_eq(perf_system_read(system, 0, &s), PERF_EINVAL);
    cr_assert_eq(perf_system_read(system, 128, &s), PERF_EINVAL);
    cr_assert_eq(perf_system_read(system, PERF_SYSTEM_ALL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_constant("PERF_SYSTEM_PRESSURE", &value), PERF_OK);
    cr_assert_eq(value, PERF_SYSTEM_PRESSURE);
    pid_t child = fork();
    if (!child) {
        bool right = perf_system_read(system, PERF_SYSTEM_ALL, &s) == PERF_EFORKED;
        perf_system_close(system);
        _exit(right ? 0 : 1);
    }
    int status = 1;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    perf_system_close(system);
    perf_system_close(NULL);
}
