# SPDX-License-Identifier: MIT
#
# make fuzz: every tests/fuzz/*_fuzz.c with clang's fuzzer and sanitizers, for
# FUZZ_SECONDS each. A finding stays in build/fuzz as crash-*, and fails the
# target; what was learnt stays in build/fuzz/corpus.

FUZZ_SECONDS ?= 60
FUZZERS      := $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/*_fuzz.c)))
FUZZ_OUT     := $(BUILD)/fuzz
FUZZ_FLAGS   := -std=gnu11 -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all

.PHONY: fuzz $(FUZZERS:%=fuzz-%)
fuzz: $(FUZZERS:%=fuzz-%) ## fuzz what reads hostile bytes (FUZZ_SECONDS=60 each)

$(FUZZ_OUT)/lib/%.o: %.c
	@mkdir -p $(@D)
	clang $(CPPFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link,address,undefined $(PKG_CFLAGS) \
	    -MMD -MP -c $< -o $@

$(FUZZERS:%=$(FUZZ_OUT)/%): $(FUZZ_OUT)/%: tests/fuzz/%.c $(SOURCES:%.c=$(FUZZ_OUT)/lib/%.o)
	clang $(CPPFLAGS) $(FUZZ_FLAGS) $(WARNINGS) -fsanitize=fuzzer,address,undefined $^ \
	    $(PKG_LIBS) $(LIBS) -o $@

$(FUZZERS:%=fuzz-%): fuzz-%: $(FUZZ_OUT)/%
	@mkdir -p $(FUZZ_OUT)/corpus/$*
	$< -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -rss_limit_mb=1024 \
	    -print_final_stats=1 -artifact_prefix=$(FUZZ_OUT)/crash- $(FUZZ_OUT)/corpus/$* \
	    >$(FUZZ_OUT)/$*.log 2>&1 || { tail -40 $(FUZZ_OUT)/$*.log; exit 1; }
	@echo "ok fuzz $*: $$(awk '/number_of_executed_units/ {print $$2}' $(FUZZ_OUT)/$*.log) inputs"

-include $(shell find $(FUZZ_OUT) -name '*.d' 2>/dev/null)
