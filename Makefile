# SPDX-License-Identifier: MIT
#
# libperf - one makefile, not recursive. `make help` lists the targets.
#
# Everything is built below build/<variant>/, the libraries land in lib/.
# Variants: release (default), asan (address + undefined), tsan (thread), clang.

# ------------------------------------------------------------------- settings

prefix      ?= /usr/local
exec_prefix ?= $(prefix)
bindir      ?= $(exec_prefix)/bin
libdir      ?= $(exec_prefix)/lib
includedir  ?= $(prefix)/include
datarootdir ?= $(prefix)/share
mandir      ?= $(datarootdir)/man
DESTDIR     ?=

VARIANT ?= release
BUILD   := build
OUT     := $(BUILD)/$(VARIANT)

VERSION := $(shell awk '/define PERF_VERSION_(MAJOR|MINOR|PATCH)/ {v = v s $$3; s = "."} END {print v}' \
             include/libperf/version.h)
MAJOR   := $(firstword $(subst ., ,$(VERSION)))

CC       ?= cc
CXX      ?= c++
AR       ?= ar
INSTALL  ?= install
OPT      ?= -O2 -g -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror
CPPFLAGS += -Iinclude -D_GNU_SOURCE
CFLAGS_   = -std=gnu11 $(OPT) $(WARNINGS) -fPIC -fvisibility=hidden -fno-plt
# nodelete: a thread that used the library runs its clean-up at its own end, which may come
# after a dlclose (Node.js unloads add-ons before its pool's threads end).
LDFLAGS_ := -Wl,-z,relro -Wl,-z,now -Wl,-z,nodelete -Wl,--as-needed
LIBS     := -pthread -lm

# Backends: WITH_X=0 leaves its sources out, and the library neither links nor mentions it.
# Three lines each: on or off, sources, pkg-config modules. AWS needs HTTP.
BACKENDS := SQLITE HTTP AWS REDIS ZSTD
WITH_SQLITE ?= 1
SQLITE_SOURCES := src/store/sqlite% src/task/queue_sqlite%
SQLITE_PKG     := sqlite3
WITH_HTTP ?= 1
HTTP_SOURCES := src/net/http%
HTTP_PKG     := libcurl
WITH_AWS ?= $(WITH_HTTP)
AWS_SOURCES := src/net/aws% src/store/dynamodb% src/task/queue_dynamodb%
AWS_PKG     := libcrypto libcjson expat zlib
WITH_REDIS ?= 1
REDIS_SOURCES := src/net/redis% src/store/redis% src/task/queue_redis%
REDIS_PKG     := hiredis libssl libcrypto
WITH_ZSTD ?= 1
ZSTD_SOURCES :=
ZSTD_PKG     := libzstd

backend_on  = $(filter 1,$(WITH_$(1)))
CPPFLAGS   += $(foreach b,$(BACKENDS),-DPERF_WITH_$(b)=$(if $(call backend_on,$(b)),1,0))
PKGS        = $(foreach b,$(BACKENDS),$(if $(call backend_on,$(b)),$($(b)_PKG)))
# Asked when a recipe runs, so that a bare machine can still `make deps`.
PKG_CFLAGS  = $(if $(strip $(PKGS)),$$(pkg-config --cflags $(PKGS)))
PKG_LIBS    = $(if $(strip $(PKGS)),$$(pkg-config --libs $(PKGS)))

ifeq ($(VARIANT),asan)
OPT := -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
endif
ifeq ($(VARIANT),tsan)
# It does not know fences (-Wno-tsan): the reads that rely on them are marked PERF__RACY.
OPT := -O1 -g1 -fno-omit-frame-pointer -fsanitize=thread -Wno-tsan
CPPFLAGS += -DTEST_WITHOUT_CRITERION
endif
ifeq ($(VARIANT),clang)
CC := clang
CXX := clang++
endif
ifeq ($(VARIANT),bare)
WITH_SQLITE := 0
WITH_HTTP := 0
WITH_AWS := 0
WITH_REDIS := 0
WITH_ZSTD := 0
endif

# -------------------------------------------------------------------- sources

LEFT_OUT := src/perfctl/% $(foreach b,$(BACKENDS),$(if $(call backend_on,$(b)),,$($(b)_SOURCES)))
SOURCES  := $(filter-out $(LEFT_OUT),$(sort $(wildcard src/*/*.c)))
OBJECTS  := $(SOURCES:%.c=$(OUT)/%.o)
HEADERS  := $(sort $(wildcard include/libperf/*.h include/libperf/*.hpp include/libperf/*/*.h))
MAN      := $(sort $(wildcard man/*.[1-9]))

ifeq ($(VARIANT),release)
LIBDIR := lib
else
LIBDIR := $(OUT)/lib
endif
STATIC := $(LIBDIR)/libperf.a
SHARED := $(LIBDIR)/libperf.so.$(VERSION)
LINKS  := $(LIBDIR)/libperf.so.$(MAJOR) $(LIBDIR)/libperf.so
PC     := $(OUT)/libperf.pc

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all demo test check bench install uninstall abi man dist deps clean format help

all: $(STATIC) $(SHARED) $(LINKS) $(PC) ## build the static and the shared library

$(OUT)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS_) $(CFLAGS) $(PKG_CFLAGS) -MMD -MP -c $< -o $@

$(STATIC): $(OBJECTS)
	@mkdir -p $(@D)
	rm -f $@
	$(AR) rcs $@ $^

$(SHARED): $(OBJECTS) lib/libperf.map
	@mkdir -p $(@D)
	$(CC) $(OPT) -shared -Wl,-soname,libperf.so.$(MAJOR) -Wl,--version-script=lib/libperf.map \
	    $(if $(filter asan tsan,$(VARIANT)),,-Wl,-z,defs) $(LDFLAGS_) $(LDFLAGS) \
	    $(OBJECTS) $(PKG_LIBS) $(LIBS) -o $@

$(LINKS): $(SHARED)
	ln -sf $(<F) $@

# Made every time: it depends on prefix and its kin, which may come from the command line.
.PHONY: $(PC)
$(PC): pkgconfig/libperf.pc.in
	@mkdir -p $(@D)
	sed -e 's|@prefix@|$(prefix)|' -e 's|@exec_prefix@|$(exec_prefix)|' -e 's|@libdir@|$(libdir)|' \
	    -e 's|@includedir@|$(includedir)|' -e 's|@version@|$(VERSION)|' \
	    -e 's|@requires@|$(strip $(PKGS))|' \
	    -e "s|@libs_private@|$(if $(strip $(PKGS)),$$(pkg-config --libs $(PKGS)))|" $< > $@

# ---------------------------------------------------------------------- tests

# One runner a folder. Unit tests see the internals, so all link the static library; Criterion
# has its own main. Under ThreadSanitizer tests/support/shim.c takes Criterion's place.
RUNNERS      := $(foreach d,unit fault stress crash live,$(if $(wildcard tests/$(d)/*_test.c),$(d)))
TEST_SUPPORT := $(filter-out tests/support/shim.c,$(sort $(wildcard tests/support/*.c tests/support/servers/*.c)))
TEST_CFLAGS  := -Itests/support -Wno-conversion -Wno-shadow -Wno-unused-result \
                $(if $(filter tsan,$(VARIANT)),-Wno-format-zero-length -Wno-clobbered)
TEST_LIBS    := $(if $(filter tsan,$(VARIANT)),,-lcriterion)

# Tests of a backend that is left out are left out, too.
tests_left_out = $(if $(call backend_on,SQLITE),,%sqlite_test.c) \
                 $(if $(call backend_on,HTTP),,%http_test.c %aws_test.c tests/unit/net_% tests/live/%) \
                 $(if $(call backend_on,AWS),,%aws_test.c tests/unit/net_aws_% tests/live/aws_% tests/live/net_aws_% %dynamodb_test.c %outage_redis_test.c) \
                 $(if $(call backend_on,REDIS),,%redis_test.c tests/unit/net_redis_% tests/live/redis_%)
# Live tests wait for servers most of the time: each is run by one sanitizer, where its code is
# about strangers' bytes by ASan, where it is about threads by TSan. The other rooms' tests and the
# faults are run by both. What tests the servers that tests start is no sanitizer's business.
ifeq ($(VARIANT),asan)
tests_left_out += $(addprefix tests/live/,server_test.c cache_% redis_cluster% redis_sentinel% task_%)
endif
ifeq ($(VARIANT),tsan)
tests_left_out += $(addprefix tests/live/,server_test.c store_dynamodb% net_aws% \
	$(addprefix aws_,bedrock% cloudwatch% dynamodb% s3% sqs% tables% trouble%))
endif
tests_of = $(filter-out $(tests_left_out),$(sort $(wildcard tests/$(1)/*_test.c))) \
           $(TEST_SUPPORT) $(if $(filter tsan,$(VARIANT)),tests/support/shim.c)

$(OUT)/tests/%.o: tests/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS_) $(TEST_CFLAGS) $(CFLAGS) $(PKG_CFLAGS) -MMD -MP -c $< -o $@

define runner
$(OUT)/test-$(1): $(patsubst %.c,$(OUT)/%.o,$(call tests_of,$(1))) $(STATIC)
	$$(CC) $$(OPT) $$(LDFLAGS) $$^ $$(PKG_LIBS) $$(TEST_LIBS) $$(LIBS) -o $$@
endef
$(foreach d,$(RUNNERS),$(eval $(call runner,$(d))))
RUNNER_BINARIES := $(RUNNERS:%=$(OUT)/test-%)

# Examples: each is a program that a user could have written, run without arguments. One that needs
# a library of its own is built where that is.
NEEDS_LIBPQ := examples/postgres_pool.c
ABSENT      := $(if $(shell pkg-config --exists libpq 2>/dev/null && echo there),,$(NEEDS_LIBPQ))
EXAMPLES := $(patsubst examples/%.c,$(OUT)/examples/%,$(filter-out $(ABSENT),$(sort $(wildcard examples/*.c)))) \
            $(patsubst examples/%.cpp,$(OUT)/examples/%,$(sort $(wildcard examples/cpp/*.cpp))) \
            $(patsubst tests/%.cpp,$(OUT)/%,$(sort $(wildcard tests/cpp/*.cpp)))
$(NEEDS_LIBPQ:%.c=$(OUT)/%): EXAMPLE_PKG = $$(pkg-config --cflags --libs libpq)
$(OUT)/examples/%: examples/%.c $(STATIC) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(OPT) $(WARNINGS) -Iinclude $< $(STATIC) $(EXAMPLE_PKG) $(PKG_LIBS) $(LIBS) -o $@
$(OUT)/examples/%: examples/%.cpp $(STATIC) $(HEADERS)
	@mkdir -p $(@D)
	$(CXX) -std=c++17 $(OPT) $(WARNINGS) -Iinclude $< $(STATIC) $(PKG_LIBS) $(LIBS) -o $@
$(OUT)/cpp/coroutine_test: TEST_STD := c++20
$(OUT)/cpp/%: tests/cpp/%.cpp $(STATIC) $(HEADERS)
	@mkdir -p $(@D)
	$(CXX) -std=$(or $(TEST_STD),c++17) $(OPT) $(WARNINGS) -Iinclude $< $(STATIC) $(PKG_LIBS) $(LIBS) -o $@

SCRIPTS := $(sort $(wildcard tests/examples/*.sh))

test: ## install what tests need, run all tests and examples
	@tests/support/deps.sh test
	@+$(MAKE) --no-print-directory run-tests

.PHONY: run-tests build-tests
build-tests: all $(RUNNER_BINARIES) $(EXAMPLES) $(OUT)/demo
run-tests: build-tests
	@OUT=$(OUT) tests/support/run.sh $(RUNNER_BINARIES) $(EXAMPLES) $(SCRIPTS)

# ----------------------------------------------------------------------- demo

DEMO_OBJECTS := $(patsubst %.c,$(OUT)/%.o,$(sort $(wildcard examples/demo/*.c)))
$(OUT)/demo: $(DEMO_OBJECTS) $(STATIC)
	$(CC) $(OPT) $^ $(PKG_LIBS) -lsqlite3 $(LIBS) -o $@

demo: ## install what the demo needs and run it (TRACE=file for your own requests)
	@tests/support/deps.sh build
	@+$(MAKE) --no-print-directory run-demo
.PHONY: run-demo
run-demo: $(OUT)/demo
	@TRACE="$(TRACE)" $(OUT)/demo

# --------------------------------------------------------------------- checks

CHECKS := layers format man symbols headers bare clang tidy consumer abi asan tsan valgrind
check: ## all checks below, one line of result each
	@tests/support/deps.sh check
	@+for c in $(CHECKS); do $(MAKE) --no-print-directory check-$$c || { \
	    echo "failed: check-$$c" | tee -a "$${FAILURES:-/dev/null}"; exit 1; }; done
.PHONY: $(CHECKS:%=check-%)

check-layers: ## rooms include only from floors below
	@tests/lint/layers.sh
check-man: ## man pages lint clean; their examples compile
	@tests/lint/man.sh $(MAN)
check-symbols: all ## map, headers, library, list, man pages and tests agree
	@tests/lint/symbols.sh $(SHARED)
check-headers: ## each public header stands alone, in C11 and C++17, without padding
	@tests/lint/headers.sh $(HEADERS)
check-format: ## sources are formatted
	@tests/lint/format.sh --check
format:
	@tests/lint/format.sh
check-clang: ## clang reads everything without a warning
	@printf '%s\n' $(SOURCES) | xargs -P 2 -n 16 clang -fsyntax-only $(CPPFLAGS) -std=gnu11 -O2 $(WARNINGS) $(PKG_CFLAGS)
	@echo "ok clang: no warnings"
check-bare: ## the library builds without any backend and mentions none
	@+$(MAKE) --no-print-directory -s VARIANT=bare all
	@! ldd $(BUILD)/bare/lib/libperf.so.$(VERSION) | grep -qE 'sqlite|curl|crypto|ssl|cjson|expat|libz|hiredis|zstd'
	@echo "ok bare: builds and links without backends"
check-tidy: ## clang-tidy, warnings are errors
	@tests/lint/tidy.sh $(CPPFLAGS) -- $(SOURCES)
check-consumer: all ## installed, found by pkg-config, linked shared and static, run
	@MAKE="$(MAKE)" tests/lint/consumer.sh
check-abi: all ## the shared library still keeps the recorded ABI
	@tests/abi/check.sh $(SHARED)
check-asan: ## all tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@+$(MAKE) --no-print-directory -s VARIANT=asan build-runners
	@tests/support/sanitized.sh asan $(RUNNERS:%=$(BUILD)/asan/test-%)
check-tsan: ## the tests under ThreadSanitizer, by the shim
	@+$(MAKE) --no-print-directory -s VARIANT=tsan build-runners
	@tests/support/sanitized.sh tsan $(filter-out %/test-crash,$(RUNNERS:%=$(BUILD)/tsan/test-%))
check-valgrind: build-tests ## uninitialised memory, which the sanitizers do not see
	@tests/support/sanitized.sh valgrind $(EXAMPLES)
.PHONY: build-runners
build-runners: $(RUNNER_BINARIES)

abi: all ## record the ABI of this tree as the baseline
	abidw --no-comp-dir-path --headers-dir include/libperf $(SHARED) --out-file lib/libperf.abi

# -------------------------------------------------------------------- install

install: all ## install headers, libraries, pkg-config file and man pages
	cd include && find libperf -name '*.h' -o -name '*.hpp' | while read -r h; do \
	    $(INSTALL) -D -m 644 "$$h" "$(DESTDIR)$(includedir)/$$h"; done
	$(INSTALL) -d "$(DESTDIR)$(libdir)/pkgconfig"
	$(INSTALL) -m 644 $(STATIC) "$(DESTDIR)$(libdir)/libperf.a"
	$(INSTALL) -m 755 $(SHARED) "$(DESTDIR)$(libdir)/libperf.so.$(VERSION)"
	ln -sf libperf.so.$(VERSION) "$(DESTDIR)$(libdir)/libperf.so.$(MAJOR)"
	ln -sf libperf.so.$(VERSION) "$(DESTDIR)$(libdir)/libperf.so"
	$(INSTALL) -m 644 $(PC) "$(DESTDIR)$(libdir)/pkgconfig/libperf.pc"
	for m in $(MAN); do s=$${m##*.}; \
	    $(INSTALL) -D -m 644 "$$m" "$(DESTDIR)$(mandir)/man$$s/$${m#man/}"; done
	man/links.sh | while read -r link page; do \
	    ln -sf "$$page" "$(DESTDIR)$(mandir)/man3/$$link"; done

uninstall: ## remove what install put there
	rm -rf "$(DESTDIR)$(includedir)/libperf"
	rm -f "$(DESTDIR)$(libdir)/libperf.a" "$(DESTDIR)$(libdir)"/libperf.so* \
	    "$(DESTDIR)$(libdir)/pkgconfig/libperf.pc"
	for m in $(MAN); do rm -f "$(DESTDIR)$(mandir)/man$${m##*.}/$${m#man/}"; done
	man/links.sh | while read -r link page; do rm -f "$(DESTDIR)$(mandir)/man3/$$link"; done

man: check-man ## lint the man pages

dist: ## a tarball of the committed tree
	@mkdir -p $(BUILD)
	git archive --prefix=libperf-$(VERSION)/ -o $(BUILD)/libperf-$(VERSION).tar.gz HEAD
	@echo $(BUILD)/libperf-$(VERSION).tar.gz

deps: ## install everything that demo, test and check need
	@tests/support/deps.sh check

clean: ## remove all that was built
	rm -rf $(BUILD) lib/libperf.a lib/libperf.so*

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "%-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

-include tests/bench/bench.mk
-include tests/fuzz/fuzz.mk
-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
