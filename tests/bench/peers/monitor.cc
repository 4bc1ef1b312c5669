/* SPDX-License-Identifier: MIT */
/* monitor.cc - bench-monitor: prometheus-cpp, with the bounds that libperf has by default. */
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <string>

#include "../monitor_subject.h"

static prometheus::Registry registry;
static prometheus::Counter *counter;
static prometheus::Histogram *histogram;
static const prometheus::Histogram::BucketBoundaries bounds{
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1,    0.25,    0.5,    1,     2.5,    5,     10,   30,    60};

static void subject_open(const char *kind)
{
    auto &counters = prometheus::BuildCounter().Name("requests_total").Register(registry);
    auto &gauges = prometheus::BuildGauge().Name("depth").Register(registry);
    auto &histograms = prometheus::BuildHistogram().Name("took_seconds").Register(registry);
    uint64_t lcg = 1;
    int count = strcmp(kind, "scrape") ? 1 : 10000;
    for (int i = 0; i < count; i++) {
        const prometheus::Labels labels{{"method", "GET"}, {"path", "/p/" + std::to_string(i)}};
        if (i < 8000)
            (counter = &counters.Add(labels))->Increment(i);
        else if (i < 9000)
            gauges.Add(labels).Set(i + 0.5);
        if (count == 1 || i >= 9000) {
            histogram = &histograms.Add(labels, bounds);
            subject_record(&lcg, 200);
        }
    }
}

static void subject_count(uint64_t times)
{
    for (uint64_t i = 0; i < times; i++)
        counter->Increment();
}

static void subject_record(uint64_t *lcg, uint64_t times)
{
    for (uint64_t i = 0; i < times; i++)
        histogram->Observe((double)monitor_value(lcg) * 1e-9);
}

static size_t subject_scrape(void)
{
    return prometheus::TextSerializer().Serialize(registry.Collect()).size();
}
