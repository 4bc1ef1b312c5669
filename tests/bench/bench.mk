# SPDX-License-Identifier: MIT
#
# The benchmark's part of the one makefile; included by the top level.
#
#   make bench              everything: bench-cache and bench-hit-ratio
#   make bench-cache        speed, memory, single flight, SQLite tier, beside floor and peers
#   make bench-hit-ratio    hit ratios on the traces of $(TRACES), beside known policies
#   make bench-pool         borrowing and giving back, and waiting for it, beside floor and peers
#   make bench-aws          signing, and DynamoDB GetItem, beside bare hashes, a bare socket and SDKs
#   make bench-redis        half GETs, half SETs by 32 threads, beside redis-benchmark, hiredis and peers
#   make bench-task         empty tasks: one producer, two workers, beside other executors; durable tasks
#   make bench-task-redis   durable empty tasks in Redis, beside asynq, BullMQ and RQ
#   make bench-monitor      counting, recording and scraping metrics, beside prometheus-cpp; and what
#                           alerts notice of a day, after how long, and where they are wrong
#   make bench-programs     only builds
#
# PEERS=0 leaves the peers out; BENCH_CASES='get-1m mixed-90-10' picks cases for bench-cache;
# BENCH_ROUNDS=7 measured runs of each; CXX compiles the C++ peer.

PEERS ?= 1
TRACES ?= ../shared/traces
BENCH_CASES ?= cache
BENCH_ROUNDS ?= 7
BENCH_DIR := $(BUILD)/bench
BENCH_PYTHON ?= python3

BENCH_CC = $(CC) -std=gnu11 $(or $(OPT),-O2) $(WARNINGS) $(CFLAGS) -MMD -MP -pthread -Iinclude
# Our programs link the shared library, as hosts do, and find it where it was built.
BENCH_SHARED := $(or $(LINKS),lib/libperf.so)
BENCH_LIBPERF = -Llib -lperf -Wl,-rpath,'$(CURDIR)/lib'

BENCH_PROGRAMS := $(addprefix $(BENCH_DIR)/,gen-stream subject-floor subject-libperf case-churn \
	case-single-flight case-sqlite hit-ratio)
BENCH_POLICIES := $(wildcard tests/bench/policies/*.c)

.PHONY: bench bench-cache bench-hit-ratio bench-programs bench-peers

bench: bench-programs bench-peers
	$(BENCH_PYTHON) tests/bench/driver.py --dir $(BENCH_DIR) --rounds $(BENCH_ROUNDS) \
		--peers $(PEERS) --traces $(TRACES) $(BENCH_CASES) hit-ratio
	+$(MAKE) --no-print-directory bench-pool bench-aws bench-redis bench-task bench-task-redis \
		bench-monitor

bench-cache: bench-programs bench-peers
	$(BENCH_PYTHON) tests/bench/driver.py --dir $(BENCH_DIR) --rounds $(BENCH_ROUNDS) \
		--peers $(PEERS) $(BENCH_CASES)

bench-hit-ratio: $(BENCH_DIR)/hit-ratio $(if $(BENCH_POLICIES),$(BENCH_DIR)/policy-table)
	$(BENCH_PYTHON) tests/bench/driver.py --dir $(BENCH_DIR) --traces $(TRACES) hit-ratio

bench-programs: $(BENCH_PROGRAMS) $(if $(BENCH_POLICIES),$(BENCH_DIR)/policy-table)

# Never fails: a peer that cannot be built is named, and shown as "not measured".
bench-peers: | $(BENCH_DIR)
ifneq ($(PEERS),0)
	@CXX='$(CXX)' tests/bench/peers/build.sh $(BENCH_DIR)
endif

$(BENCH_DIR):
	@mkdir -p $@

$(BENCH_DIR)/gen-stream: tests/bench/gen_stream.c | $(BENCH_DIR)
	$(BENCH_CC) -o $@ $< -lm

$(BENCH_DIR)/subject-floor: tests/bench/subject_floor.c | $(BENCH_DIR)
	$(BENCH_CC) -o $@ $<

$(BENCH_DIR)/subject-libperf: tests/bench/subject_libperf.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -o $@ $< $(BENCH_LIBPERF)

$(BENCH_DIR)/case-churn: tests/bench/case_churn.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -o $@ $< $(BENCH_LIBPERF) -lm

$(BENCH_DIR)/case-single-flight: tests/bench/case_single_flight.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -o $@ $< $(BENCH_LIBPERF)

$(BENCH_DIR)/case-sqlite: tests/bench/case_sqlite.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -o $@ $< $(BENCH_LIBPERF) -lsqlite3

# The queues are measured below the workers, inside the library.
$(BENCH_DIR)/case-queue: tests/bench/case_queue.c lib/libperf.a | $(BENCH_DIR)
	$(BENCH_CC) -D_GNU_SOURCE -o $@ $< lib/libperf.a $(PKG_LIBS) -lm

$(BENCH_DIR)/hit-ratio: tests/bench/hit_ratio.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -o $@ $< $(BENCH_LIBPERF)

# The reference policies also run our policy's own code, which the shared library hides.
$(BENCH_DIR)/policy-table: $(BENCH_POLICIES) lib/libperf.a | $(BENCH_DIR)
	$(BENCH_CC) -Isrc -o $@ $(BENCH_POLICIES) lib/libperf.a $(LDLIBS) -lm

# The pool's subjects are a process for each run: a pool keeps threads, and is opened for its size.
$(BENCH_DIR)/pool-%: tests/bench/pool_%.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -o $@ $< $(BENCH_LIBPERF)

.PHONY: bench-pool
bench-pool: $(BENCH_DIR)/pool-libperf $(BENCH_DIR)/pool-floor
ifneq ($(PEERS),0)
	@tests/bench/peers/build.sh $(BENCH_DIR) pool
endif
	$(BENCH_PYTHON) tests/bench/pool_driver.py --dir $(BENCH_DIR) --rounds $(BENCH_ROUNDS) \
		--peers $(PEERS)

# Signing is measured where the AWS client calls it, inside the library.
$(BENCH_DIR)/case-sign: tests/bench/case_sign.c lib/libperf.a | $(BENCH_DIR)
	$(BENCH_CC) -D_GNU_SOURCE -o $@ $< lib/libperf.a $(PKG_LIBS) -lm

$(BENCH_DIR)/aws-floor: tests/bench/aws_floor.c | $(BENCH_DIR)
	$(BENCH_CC) -D_GNU_SOURCE -o $@ $<

$(BENCH_DIR)/aws-libperf: tests/bench/aws_libperf.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -D_GNU_SOURCE -o $@ $< $(BENCH_LIBPERF) -lcjson

# What cannot be installed or built is named here, and "not measured" in the tables.
BENCH_AWS_ROUNDS ?= 5
.PHONY: bench-aws
bench-aws: $(addprefix $(BENCH_DIR)/,case-sign aws-floor aws-libperf) ## signing and DynamoDB's GetItem, beside floors and SDKs
	@$(BENCH_DIR)/case-sign | tee -a $(BENCH_DIR)/results.jsonl
	@tests/support/servers/dynamodb.sh || true
ifneq ($(PEERS),0)
	@tests/support/servers/moto.sh || echo 'bench: NOT MEASURED: boto3: see above' >&2
	@tests/bench/peers/build.sh $(BENCH_DIR) aws
endif
	$(BENCH_PYTHON) tests/bench/aws_driver.py --dir $(BENCH_DIR) --rounds $(BENCH_AWS_ROUNDS) \
		--peers $(PEERS)

# A Redis server of its own for each round; redis-benchmark is the ceiling.
BENCH_REDIS_ROUNDS ?= 5
$(BENCH_DIR)/redis-libperf $(BENCH_DIR)/redis-callbacks: $(BENCH_DIR)/redis-%: tests/bench/redis_%.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -D_GNU_SOURCE -o $@ $< $(BENCH_LIBPERF)

$(BENCH_DIR)/redis-hiredis: tests/bench/redis_hiredis.c | $(BENCH_DIR)
	$(BENCH_CC) -D_GNU_SOURCE -o $@ $< -lhiredis

.PHONY: bench-redis
bench-redis: $(addprefix $(BENCH_DIR)/redis-,libperf callbacks hiredis) ## threads on one Redis connection, beside redis-benchmark, hiredis and peers
ifneq ($(PEERS),0)
	@tests/bench/peers/build.sh $(BENCH_DIR) redis
endif
	$(BENCH_PYTHON) tests/bench/redis_driver.py --dir $(BENCH_DIR) --rounds $(BENCH_REDIS_ROUNDS) \
		--peers $(PEERS)

$(BENCH_DIR)/task-libperf $(BENCH_DIR)/task-durable: $(BENCH_DIR)/task-%: tests/bench/task_%.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -o $@ $< $(BENCH_LIBPERF)

.PHONY: bench-task
bench-task: $(BENCH_DIR)/task-libperf $(BENCH_DIR)/task-durable ## empty tasks beside other executors; durable tasks
ifneq ($(PEERS),0)
	@CXX='$(CXX)' tests/bench/peers/build.sh $(BENCH_DIR) task
endif
	$(BENCH_PYTHON) tests/bench/task_driver.py --dir $(BENCH_DIR) --rounds $(BENCH_ROUNDS) \
		--peers $(PEERS)

# The durable queue below perf_tasks: the static library has it.
$(BENCH_DIR)/tasks-redis-libperf: tests/bench/tasks_redis_libperf.c lib/libperf.a | $(BENCH_DIR)
	$(BENCH_CC) -D_GNU_SOURCE -o $@ $< lib/libperf.a $(PKG_LIBS) -lm

.PHONY: bench-task-redis
bench-task-redis: $(BENCH_DIR)/tasks-redis-libperf $(BENCH_DIR)/task-durable ## durable tasks in Redis, beside asynq, BullMQ and RQ
ifneq ($(PEERS),0)
	@tests/bench/peers/build.sh $(BENCH_DIR) task-redis
endif
	$(BENCH_PYTHON) tests/bench/task_redis_driver.py --dir $(BENCH_DIR) \
		--rounds $(BENCH_REDIS_ROUNDS) --peers $(PEERS)

-include $(wildcard $(BENCH_DIR)/*.d)

# No clock is measured: what is printed is the same on every machine.
$(BENCH_DIR)/alert-day: tests/bench/alert_day.c tests/support/alert_day.h | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -o $@ $< $(BENCH_LIBPERF) -lm

$(BENCH_DIR)/monitor-libperf: tests/bench/monitor_libperf.c | $(BENCH_SHARED) $(BENCH_DIR)
	$(BENCH_CC) -D_GNU_SOURCE -o $@ $< $(BENCH_LIBPERF)

.PHONY: bench-monitor
bench-monitor: $(BENCH_DIR)/monitor-libperf $(BENCH_DIR)/alert-day ## metrics beside prometheus-cpp; what alerts notice
ifneq ($(PEERS),0)
	@CXX='$(CXX)' tests/bench/peers/build.sh $(BENCH_DIR) monitor
endif
	$(BENCH_PYTHON) tests/bench/monitor_driver.py --dir $(BENCH_DIR) --rounds $(BENCH_ROUNDS) \
		--peers $(PEERS)
	@$(BENCH_DIR)/alert-day
