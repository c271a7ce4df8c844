// Go's flight recorder: for each number on standard input it runs so many empty regions, and prints the nanoseconds of one.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/trace"
	"strconv"
	"time"
)

func main() {
	recorder := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: time.Minute, MaxBytes: 10 << 20})
	if err := recorder.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx := context.Background()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		number, err := strconv.Atoi(lines.Text())
		if err != nil || number < 1 || !recorder.Enabled() {
			os.Exit(1)
		}
		begin := time.Now() // CLOCK_MONOTONIC is in it
		for range number {
			trace.WithRegion(ctx, "bench", func() {})
		}
		fmt.Println(float64(time.Since(begin).Nanoseconds()) / float64(number))
	}
}
