// SPDX-License-Identifier: MIT

// asynq for bench-task-redis: N empty tasks submitted one after the other by eight goroutines,
// worked off by two workers of the same process at the same time.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
)

const producers = 8

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	port, workers, tasks := os.Args[1], os.Args[2], os.Args[3]
	concurrency, err := strconv.Atoi(workers)
	check(err)
	count, err := strconv.Atoi(tasks)
	check(err)
	at := asynq.RedisClientOpt{Addr: "127.0.0.1:" + port, PoolSize: producers + concurrency + 4}
	client := asynq.NewClient(at)
	var done atomic.Int64
	ended := make(chan struct{})
	server := asynq.NewServer(at, asynq.Config{Concurrency: concurrency, LogLevel: asynq.FatalLevel})
	mux := asynq.NewServeMux()
	mux.HandleFunc("empty", func(context.Context, *asynq.Task) error {
		if done.Add(1) == int64(count) {
			close(ended)
		}
		return nil
	})
	check(server.Start(mux))
	begin := time.Now()
	var wait sync.WaitGroup
	for p := 0; p < producers; p++ {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			for i := n; i < count; i += producers {
				_, err := client.Enqueue(asynq.NewTask("empty", nil))
				check(err)
			}
		}(p)
	}
	wait.Wait()
	submitted := time.Since(begin)
	<-ended
	total := time.Since(begin)
	fmt.Printf("{\"per_s\": %.0f, \"submit_per_s\": %.0f}\n", float64(count)/total.Seconds(),
		float64(count)/submitted.Seconds())
}
