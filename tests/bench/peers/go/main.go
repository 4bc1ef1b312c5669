// SPDX-License-Identifier: MIT

// The peers otter v2 and theine: the same protocol, keys, values and loops as subject.h.
// Keys are [16]byte and values [64]byte, held inline: the cheapest these modules offer, as the
// garbage collector has no pointers to follow in them.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/Yiling-J/theine-go"
	"github.com/maypok86/otter/v2"
)

const (
	batch  = 64
	setBit = 0x80000000
)

type key [16]byte
type value [64]byte

type subject interface {
	get(k key) (value, bool)
	set(k key, v value)
	settle() // finishes the housekeeping that the module left for later
}

type otterCache struct{ c *otter.Cache[key, value] }

func (o otterCache) get(k key) (value, bool) { return o.c.GetIfPresent(k) }
func (o otterCache) set(k key, v value)      { o.c.Set(k, v) }
func (o otterCache) settle()                 { o.c.CleanUp() }

type theineCache struct{ c *theine.Cache[key, value] }

func (t theineCache) get(k key) (value, bool) { return t.c.Get(k) }
func (t theineCache) set(k key, v value)      { t.c.Set(k, v, 1) }
func (t theineCache) settle()                 { t.c.Wait() }

func splitmix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	return x ^ (x >> 31)
}

func makeKey(i uint32) (k key) {
	binary.LittleEndian.PutUint64(k[0:], splitmix64(uint64(i)))
	binary.LittleEndian.PutUint64(k[8:], splitmix64(uint64(i)+0x100000000))
	return k
}

func makeValue(k *key) (v value) {
	copy(v[0:8], k[0:8])
	second := binary.LittleEndian.Uint64(k[8:])
	for i := 1; i < 8; i++ {
		binary.LittleEndian.PutUint64(v[8*i:], second+uint64(i))
	}
	return v
}

type bench struct {
	kind     string
	stream   []uint32
	keys     int
	ops      int
	capacity int
}

type count struct{ gets, hits, wrong, checksum uint64 }

func (c *count) add(k *key, found bool, out *value) {
	c.gets++
	if found {
		first, last := binary.LittleEndian.Uint64(out[0:]), binary.LittleEndian.Uint64(out[56:])
		c.hits++
		if first != binary.LittleEndian.Uint64(k[0:]) || last != binary.LittleEndian.Uint64(k[8:])+7 {
			c.wrong++
		}
		c.checksum += first + last
	}
}

// The loops are generic so that the subject's own code can be called without an interface.
func copyOut[S subject](cache S, k *key, out *value) bool {
	v, found := cache.get(*k)
	if found {
		*out = v
	}
	return found
}

func work[S subject](b *bench, cache S, at int) (c count) {
	next := func() uint32 {
		access := b.stream[at]
		if at++; at == len(b.stream) {
			at = 0
		}
		return access
	}
	switch b.kind {
	case "batch":
		keys, outs, found := new([batch]key), new([batch]value), new([batch]bool)
		for n := 0; n < b.ops; n += batch {
			for i := range keys {
				keys[i] = makeKey(next())
			}
			for i := range keys {
				found[i] = copyOut(cache, &keys[i], &outs[i])
			}
			for i := range keys {
				c.add(&keys[i], found[i], &outs[i])
			}
		}
	case "mixed":
		out := new(value)
		for n := 0; n < b.ops; n++ {
			access := next()
			k := makeKey(access &^ setBit)
			if access&setBit != 0 {
				cache.set(k, makeValue(&k))
			} else {
				c.add(&k, copyOut(cache, &k, out), out)
			}
		}
	default:
		out := new(value)
		for n := 0; n < b.ops; n++ {
			k := makeKey(next())
			c.add(&k, copyOut(cache, &k, out), out)
		}
	}
	return c
}

func run[S subject](b *bench, cache S, run, threads int) string {
	var ready, done sync.WaitGroup
	begins, ends := make([]time.Time, threads), make([]time.Time, threads)
	counts := make([]count, threads)
	ready.Add(threads)
	for t := 0; t < threads; t++ {
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			first := (t*(len(b.stream)/threads) + run*b.ops) % len(b.stream)
			ready.Done()
			ready.Wait()
			begins[t] = time.Now()
			counts[t] = work(b, cache, first)
			ends[t] = time.Now()
		}()
	}
	done.Wait()
	begin, end, sum := begins[0], ends[0], count{}
	for t, c := range counts {
		if begins[t].Before(begin) {
			begin = begins[t]
		}
		if ends[t].After(end) {
			end = ends[t]
		}
		sum = count{sum.gets + c.gets, sum.hits + c.hits, sum.wrong + c.wrong, sum.checksum + c.checksum}
	}
	return fmt.Sprintf(`{"ns":%.3f,"gets":%d,"hits":%d,"wrong":%d,"checksum":"%016x"}`,
		float64(end.Sub(begin).Nanoseconds())/float64(b.ops), sum.gets, sum.hits, sum.wrong, sum.checksum)
}

func rssBytes() float64 {
	debug.FreeOSMemory()
	statm, err := os.ReadFile("/proc/self/statm")
	check(err)
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	check(err)
	return float64(pages * os.Getpagesize())
}

func serve[S subject](b *bench, open func() S) {
	before := rssBytes()
	cache := open()
	fill := func(i uint32) {
		k := makeKey(i)
		cache.set(k, makeValue(&k))
	}
	if b.kind == "mixed" {
		for _, access := range b.stream {
			fill(access &^ setBit)
		}
	} else {
		for i := 0; i < b.keys; i++ {
			fill(uint32(i))
		}
	}
	cache.settle()
	bytes := (rssBytes()-before)/float64(b.keys) - 80
	fmt.Println(`{"ready":true}`)
	in := bufio.NewScanner(os.Stdin)
	for n := 0; in.Scan(); n++ {
		var threads int
		if _, err := fmt.Sscanf(in.Text(), "run %d", &threads); err != nil {
			break
		}
		if b.kind == "overhead" {
			fmt.Printf("{\"bytes\":%.2f}\n", bytes)
		} else {
			fmt.Println(run(b, cache, n, threads))
		}
	}
	runtime.KeepAlive(cache)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer-go:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: peer-go SUBJECT KIND STREAM|- KEYS OPS CAPACITY")
		os.Exit(2)
	}
	number := func(i int) int {
		n, err := strconv.Atoi(os.Args[i])
		check(err)
		return n
	}
	b := &bench{kind: os.Args[2], keys: number(4), ops: number(5), capacity: number(6)}
	if os.Args[3] != "-" {
		data, err := os.ReadFile(os.Args[3])
		check(err)
		b.stream = unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(data))), len(data)/4)
	}
	switch os.Args[1] {
	case "otter":
		serve(b, func() otterCache {
			c, err := otter.New(&otter.Options[key, value]{MaximumSize: b.capacity})
			check(err)
			return otterCache{c}
		})
	case "theine":
		serve(b, func() theineCache {
			c, err := theine.NewBuilder[key, value](int64(b.capacity)).Build()
			check(err)
			return theineCache{c}
		})
	default:
		check(fmt.Errorf("no subject %s", os.Args[1]))
	}
}
