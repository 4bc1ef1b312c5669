/* SPDX-License-Identifier: MIT */
/*
 * alert_day.c - prints what the rules of alert.h notice of ten kinds of a day, after how
 * long, and how often they are wrong: tests/support/alert_day.h, over several
 * seeds. The time to detect is the longest of all seeds.
 *
 *     alert-day [seeds]                    default 10
 */
#include <libperf/alert.h>
#include <stdio.h>
#include <stdlib.h>

#include "../support/alert_day.h"

int main(int argc, char **argv)
{
    int seeds = argc > 1 ? atoi(argv[1]) : 10;
    printf("%d days of each kind. Seconds to detect (worst of them, and in how many days), alarms "
           "that were wrong, notices a day\n\n%-11s",
           seeds, "day");
    for (int r = 0; r < DAY_RULES; r++)
        printf(" | %-25s", alert_day_rules[r]);
    printf("\n");
    for (int kind = 0; kind < DAY_KINDS; kind++) {
        int64_t worst[DAY_RULES] = {0}, days[DAY_RULES] = {0}, wrong[DAY_RULES] = {0},
                notices[DAY_RULES] = {0};
        for (int seed = 1; seed <= seeds; seed++) {
            struct alert_day d;
            if (alert_day_run(&d, (enum alert_day_kind)kind, (uint64_t)seed * 7919)) {
                fprintf(stderr, "%s\n", perf_last_error());
                return 1;
            }
            for (int r = 0; r < DAY_RULES; r++) {
                days[r] += d.detected_s[r] >= 0;
                if (d.detected_s[r] > worst[r])
                    worst[r] = d.detected_s[r];
                wrong[r] += d.false_alarms[r];
                notices[r] += d.notices[r];
            }
        }
        printf("%-11s", alert_day_names[kind]);
        for (int r = 0; r < DAY_RULES; r++) {
            if (days[r])
                printf(" | %6lld s %2lld/%d", (long long)worst[r], (long long)days[r], seeds);
            else
                printf(" | %6s   %5s", "-", "");
            printf(" %3lld %5.1f", (long long)wrong[r], (double)notices[r] / seeds);
        }
        printf("\n");
    }
    return 0;
}
