// SPDX-License-Identifier: MIT

// The peer go-sdk: GetItem through the AWS SDK for Go v2. Same protocol as aws_subject.h; "threads"
// is 64 goroutines.
//
// The SDK's HTTP client keeps 10 idle connections to a host unless told otherwise, and would open
// new ones all the time; it is told to keep as many as are in flight.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const inFlight = 64

func cpuMicroseconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec)*1e6 + float64(u.Utime.Usec+u.Stime.Usec)
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: peer-aws-go URL")
		os.Exit(2)
	}
	var letters strings.Builder
	for i := 0; i < 1000; i++ {
		letters.WriteByte(byte('a' + i%26))
	}
	value := letters.String()
	client := dynamodb.New(dynamodb.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(os.Args[1]),
		Credentials:  credentials.NewStaticCredentialsProvider("bench", "bench", ""),
		HTTPClient: awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConnsPerHost = inFlight
		}),
	})
	var left atomic.Int64
	var wrong atomic.Uint32
	work := func() {
		for left.Add(-1) >= 0 {
			out, err := client.GetItem(context.Background(), &dynamodb.GetItemInput{
				TableName: aws.String("bench"),
				Key:       map[string]types.AttributeValue{"k": &types.AttributeValueMemberS{Value: "a"}},
			})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				wrong.Add(1)
				continue
			}
			if v, ok := out.Item["v"].(*types.AttributeValueMemberS); !ok || v.Value != value {
				wrong.Add(1)
			}
		}
	}
	fmt.Println(`{"ready":true}`)
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var mode string
		var calls int64
		if n, _ := fmt.Sscanf(input.Text(), "run %s %d", &mode, &calls); n != 2 {
			return
		}
		left.Store(calls)
		wrong.Store(0)
		cpu, start := cpuMicroseconds(), time.Now()
		switch mode {
		case "one":
			work()
		case "threads":
			var all sync.WaitGroup
			for i := 0; i < inFlight; i++ {
				all.Add(1)
				go func() {
					defer all.Done()
					work()
				}()
			}
			all.Wait()
		default:
			return
		}
		seconds := time.Since(start).Seconds()
		fmt.Printf("{\"calls\": %d, \"cpu_us\": %.3f, \"per_s\": %.1f, \"wrong\": %d}\n", calls,
			(cpuMicroseconds()-cpu)/float64(calls), float64(calls)/seconds, wrong.Load())
	}
}
