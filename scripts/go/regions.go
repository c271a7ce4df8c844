// Go's flight recorder: for each "NUMBER DEPTH" on standard input it runs so many empty regions, so many calls deep, and prints the nanoseconds of one.
// A region takes a stack trace at its begin and at its end: it costs the more the deeper it is.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/trace"
	"time"
)

func regions(number int) {
	ctx := context.Background()
	for range number {
		trace.WithRegion(ctx, "bench", func() {})
	}
}

//go:noinline
func deep(depth int, number int) {
	if depth > 0 {
		deep(depth-1, number)
	} else {
		regions(number)
	}
}

func main() {
	recorder := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: time.Minute, MaxBytes: 10 << 20})
	if err := recorder.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var number, depth int
		if _, err := fmt.Sscan(lines.Text(), &number, &depth); err != nil || number < 1 || !recorder.Enabled() {
			os.Exit(1)
		}
		begin := time.Now() // CLOCK_MONOTONIC is in it
		deep(depth, number)
		fmt.Println(float64(time.Since(begin).Nanoseconds()) / float64(number))
	}
}
