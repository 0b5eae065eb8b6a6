package report

import (
	"fmt"
	"strconv"
)

// A figure that was not measured is 0 and prints as a dash.
const unmeasured = "-"

// number writes 98123 as "98,123".
func number(v float64) string {
	if v == 0 {
		return unmeasured
	}
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func perSecond(v float64) string {
	if v == 0 {
		return unmeasured
	}
	return number(v) + " req/s"
}

func ratio(v float64) string {
	if v == 0 {
		return unmeasured
	}
	return fmt.Sprintf("%.2fx", v)
}

// micros writes nanoseconds as microseconds.
func micros(ns float64) string {
	if ns == 0 {
		return unmeasured
	}
	return fmt.Sprintf("%.1f us", ns/1e3)
}

// millis writes nanoseconds as milliseconds.
func millis(ns float64) string {
	if ns == 0 {
		return unmeasured
	}
	return fmt.Sprintf("%.2f ms", ns/1e6)
}

func percent(share float64) string {
	if share == 0 {
		return unmeasured
	}
	return fmt.Sprintf("%.0f%%", 100*share)
}

// less writes a ratio of what should be high as the share that is lost.
func less(ratio float64) string {
	if ratio == 0 {
		return unmeasured
	}
	return fmt.Sprintf("%.0f%%", 100*(1-ratio))
}

// more writes a ratio of what should be low as the share that came on top.
func more(ratio float64) string {
	if ratio == 0 {
		return unmeasured
	}
	return fmt.Sprintf("%.0f%%", 100*(ratio-1))
}

// calls writes how often something is done for a request.
func calls(v float64) string { return fmt.Sprintf("%.2f", v) }

// megabytes writes bytes as millions of them.
func megabytes(v float64) string { return number(v / 1e6) }

func bytes(v float64) string {
	if v == 0 {
		return unmeasured
	}
	return number(v) + " bytes"
}
