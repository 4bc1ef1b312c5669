// SPDX-License-Identifier: MIT

// The Go pool of bench-pool: puddle, which pgx uses. The protocol is that of pool_subject.h.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/puddle/v2"
)

func argument(i int) int {
	n, err := strconv.Atoi(os.Args[i])
	if err != nil {
		panic(err)
	}
	return n
}

func main() {
	threads, connections, ms, holdUs := argument(2), argument(3), argument(4), argument(5)
	pool, err := puddle.NewPool(&puddle.Config[*int]{
		Constructor: func(context.Context) (*int, error) { return new(int), nil },
		Destructor:  func(*int) {},
		MaxSize:     int32(connections),
	})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	var phase atomic.Int32
	var total atomic.Int64
	var group sync.WaitGroup
	waits := make([][]int64, threads)
	for t := 0; t < threads; t++ {
		group.Add(1)
		go func(t int) {
			defer group.Done()
			count := int64(0)
			for {
				p := phase.Load()
				if p == 2 {
					break
				}
				if holdUs > 0 {
					begun := time.Now()
					r, err := pool.Acquire(ctx)
					if err != nil {
						panic(err)
					}
					if p == 1 {
						waits[t] = append(waits[t], int64(time.Since(begun)))
					}
					time.Sleep(time.Duration(holdUs) * time.Microsecond)
					r.Release()
					continue
				}
				for i := 0; i < 64; i++ {
					r, err := pool.Acquire(ctx)
					if err != nil {
						panic(err)
					}
					r.Release()
				}
				if p == 1 {
					count += 64
				}
			}
			total.Add(count)
		}(t)
	}
	time.Sleep(time.Duration(ms) * time.Millisecond / 10)
	phase.Store(1)
	begun := time.Now()
	time.Sleep(time.Duration(ms) * time.Millisecond)
	phase.Store(2)
	took := time.Since(begun)
	group.Wait()
	if holdUs == 0 {
		fmt.Printf("{\"ns\": %.3f}\n", float64(took)/float64(total.Load()))
		return
	}
	var all []int64
	sum := int64(0)
	for _, w := range waits {
		for _, ns := range w {
			all = append(all, ns)
			sum += ns
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	n := len(all)
	fmt.Printf("{\"n\": %d, \"mean\": %d, \"p50\": %d, \"p99\": %d, \"p999\": %d, \"max\": %d}\n",
		n, sum/int64(n), all[n/2], all[n*99/100], all[n*999/1000], all[n-1])
}
