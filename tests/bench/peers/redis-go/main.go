// SPDX-License-Identifier: MIT
//
// The peer of bench-redis in Go: rueidis, which pipelines by itself, called by goroutines that wait.
//
//	peer-redis-go PORT GOROUTINES MILLISECONDS
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/rueidis"
)

const (
	keys    = 10000
	buckets = 40000 // of 100 ns
)

func splitmix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	return x ^ (x >> 31)
}

func key(i uint32) string { return fmt.Sprintf("key:%012d", i) }

func value(i uint32) string {
	b := make([]byte, 64)
	for k := range b {
		b[k] = 'v'
	}
	binary.LittleEndian.PutUint32(b, i)
	return string(b)
}

func cpu() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Sec+u.Stime.Sec)*1e6 + float64(u.Utime.Usec+u.Stime.Usec)
}

func main() {
	count, _ := strconv.Atoi(os.Args[2])
	ms, _ := strconv.Atoi(os.Args[3])
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"127.0.0.1:" + os.Args[1]}, DisableCache: true,
		PipelineMultiplex: -1, // one connection, as ours
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx := context.Background()
	names, values := make([]string, keys), make([]string, keys)
	for i := range names {
		names[i], values[i] = key(uint32(i)), value(uint32(i))
		if err := client.Do(ctx, client.B().Set().Key(names[i]).Value(values[i]).Build()).Error(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	var phase atomic.Int32
	var group sync.WaitGroup
	counts, wrong := make([]int64, count), make([]int64, count)
	hist := make([][]uint32, count)
	for t := 0; t < count; t++ {
		hist[t] = make([]uint32, buckets)
		group.Add(1)
		go func(t int) {
			defer group.Done()
			random, last := uint64(t)+1, time.Now()
			for {
				p := phase.Load()
				if p == 2 {
					return
				}
				random = splitmix64(random)
				i := uint32(random>>33) % keys
				if random&1 == 1 {
					if client.Do(ctx, client.B().Set().Key(key(i)).Value(values[i]).Build()).Error() != nil {
						wrong[t]++
					}
				} else if got, err := client.Do(ctx, client.B().Get().Key(key(i)).Build()).ToString(); err != nil || got != values[i] {
					wrong[t]++
				}
				now := time.Now()
				b := now.Sub(last).Nanoseconds() / 100
				last = now
				if p == 1 {
					counts[t]++
					if b >= buckets {
						b = buckets - 1
					}
					hist[t][b]++
				}
			}
		}(t)
	}
	time.Sleep(time.Duration(ms) * time.Millisecond / 10)
	phase.Store(1)
	begun, used := time.Now(), cpu()
	time.Sleep(time.Duration(ms) * time.Millisecond)
	phase.Store(2)
	took := time.Since(begun).Seconds()
	used = cpu() - used
	group.Wait()
	var total, bad, seen int64
	for t := range counts {
		total += counts[t]
		bad += wrong[t]
	}
	p50, p99 := 0.0, 0.0
	for b := 0; b < buckets; b++ {
		for t := range hist {
			seen += int64(hist[t][b])
		}
		if p50 == 0 && seen*2 >= total {
			p50 = float64(b+1) / 10
		}
		if p99 == 0 && seen*100 >= total*99 {
			p99 = float64(b+1) / 10
		}
	}
	fmt.Printf("{\"ops_s\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_us\": %.2f, \"wrong\": %d}\n",
		float64(total)/took, p50, p99, used/float64(total), bad)
}
