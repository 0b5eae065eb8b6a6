package h1

// DateBytes is the length of an IMF-fixdate: "Sun, 06 Nov 1994 08:49:37 GMT".
const DateBytes = 29

const (
	dayNames   = "SunMonTueWedThuFriSat"
	monthNames = "JanFebMarAprMayJunJulAugSepOctNovDec"

	daySeconds  = 24 * 60 * 60
	yearSeconds = eraDays * daySeconds / 400
	eraDays     = 146097 // 400 years
	unixEpoch   = 719468 // days from 0000-03-01 to 1970-01-01
	dateUnixMax = 253402300799
)

// AppendDate appends unix, in seconds, as IMF-fixdate (RFC 9110 section 5.6.7). Times outside the years 1970 to 9999
// are moved to the nearest end.
func AppendDate(dst []byte, unix int64) []byte {
	unix = max(0, min(unix, dateUnixMax))
	days, secs := int(unix/daySeconds), int(unix%daySeconds)
	year, month, day := civil(days)
	weekday := (days + 4) % 7 // 1970-01-01 was a Thursday

	dst = append(dst, dayNames[3*weekday:3*weekday+3]...)
	dst = append(dst, ',', ' ')
	dst = append2(dst, day)
	dst = append(dst, ' ')
	dst = append(dst, monthNames[3*month-3:3*month]...)
	dst = append(dst, ' ')
	dst = append2(append2(dst, year/100), year%100)
	dst = append(dst, ' ')
	dst = append(append2(dst, secs/3600), ':')
	dst = append(append2(dst, secs/60%60), ':')
	dst = append2(dst, secs%60)
	return append(dst, " GMT"...)
}

func append2(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// civil turns days since 1970-01-01 into a date of the proleptic Gregorian calendar. Years start in March inside it,
// so that the leap day comes last.
func civil(days int) (year, month, day int) {
	days += unixEpoch
	era := days / eraDays
	dayOfEra := days % eraDays
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	m := (5*dayOfYear + 2) / 153
	day = dayOfYear - (153*m+2)/5 + 1
	month = m + 3
	if month > 12 {
		month -= 12
	}
	year = yearOfEra + era*400
	if month <= 2 {
		year++
	}
	return year, month, day
}

// daysOf is the inverse of civil.
func daysOf(year, month, day int) int {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	yearOfEra := year % 400
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return era*eraDays + yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear - unixEpoch
}

// DateCache is a Date field line that is rendered once a second. The zero value is ready.
type DateCache struct {
	unix int64
	line []byte
}

// Field is the whole line, "Date: ... CRLF". It is valid until the next call.
func (c *DateCache) Field(unix int64) []byte {
	if c.line == nil || c.unix != unix {
		c.line = append(c.line[:0], "Date: "...)
		c.line = AppendDate(c.line, unix)
		c.line = append(c.line, "\r\n"...)
		c.unix = unix
	}
	return c.line
}

// ParseDate reads an HTTP-date in any of its three formats (RFC 9110 section 5.6.7) and returns Unix seconds. now, in
// Unix seconds, places the two-digit year of the RFC 850 format: at most fifty years ahead. Reading costs about as
// much as comparing with a remembered value would, so there is no cache.
func ParseDate(b []byte, now int64) (unix int64, ok bool) {
	switch {
	case len(b) == DateBytes:
		return parseFixdate(b)
	case len(b) == len("Sun Nov  6 08:49:37 1994") && b[3] == ' ':
		return parseAsctime(b)
	}
	return parseRFC850(b, now)
}

// parseFixdate reads "Sun, 06 Nov 1994 08:49:37 GMT".
func parseFixdate(b []byte) (unix int64, ok bool) {
	if nameIndex(dayNames, b[:3]) < 0 || string(b[3:5]) != ", " || b[7] != ' ' || b[11] != ' ' || b[16] != ' ' {
		return 0, false
	}
	return unixOf(number(b[12:16]), nameIndex(monthNames, b[8:11])+1, number(b[5:7]), b[17:25], b[25:])
}

// parseAsctime reads "Sun Nov  6 08:49:37 1994".
func parseAsctime(b []byte) (unix int64, ok bool) {
	if nameIndex(dayNames, b[:3]) < 0 || b[7] != ' ' || b[10] != ' ' || b[19] != ' ' {
		return 0, false
	}
	day := b[8:10]
	if day[0] == ' ' {
		day = day[1:]
	}
	return unixOf(number(b[20:]), nameIndex(monthNames, b[4:7])+1, number(day), b[11:19], []byte(" GMT"))
}

// parseRFC850 reads "Sunday, 06-Nov-94 08:49:37 GMT".
func parseRFC850(b []byte, now int64) (unix int64, ok bool) {
	const rest = ", 06-Nov-94 08:49:37 GMT"
	at := len(b) - len(rest)
	if at < len("Sunday") || !isWeekday(b[:at]) {
		return 0, false
	}
	b = b[at:]
	if string(b[:2]) != ", " || b[4] != '-' || b[8] != '-' || b[11] != ' ' {
		return 0, false
	}
	short := number(b[9:11])
	if short < 0 {
		return 0, false
	}
	thisYear, _, _ := civil(int(max(0, now) / daySeconds))
	month, day := nameIndex(monthNames, b[5:8])+1, number(b[2:4])
	for century := thisYear/100 + 1; century >= thisYear/100-1; century-- {
		unix, ok = unixOf(century*100+short, month, day, b[12:20], b[20:])
		if ok && unix <= now+50*yearSeconds {
			return unix, true
		}
	}
	return 0, false
}

func isWeekday(b []byte) bool {
	switch string(b) {
	case "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday":
		return true
	}
	return false
}

// nameIndex finds a three-letter name in names, which are case-sensitive (RFC 9110 section 5.6.7), or is -1.
func nameIndex(names string, b []byte) int {
	for i := 0; i < len(names); i += 3 {
		if names[i] == b[0] && names[i+1] == b[1] && names[i+2] == b[2] {
			return i / 3
		}
	}
	return -1
}

// number reads digits, or is -1.
func number(b []byte) int {
	n := 0
	for _, c := range b {
		if !isDigit(c) {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// unixOf puts the parts together. clock is "08:49:37"; a leap second counts as the next second.
func unixOf(year, month, day int, clock, zone []byte) (unix int64, ok bool) {
	if clock[2] != ':' || clock[5] != ':' || string(zone) != " GMT" || year < 1 || month < 1 {
		return 0, false
	}
	h, m, s := number(clock[:2]), number(clock[3:5]), number(clock[6:])
	if h < 0 || m < 0 || s < 0 || h > 23 || m > 59 || s > 60 || day < 1 || day > monthDays(year, month) {
		return 0, false
	}
	return int64(daysOf(year, month, day))*daySeconds + int64(h*3600+m*60+s), true
}

func monthDays(year, month int) int {
	if month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0) {
		return 29
	}
	return int("\x1f\x1c\x1f\x1e\x1f\x1e\x1f\x1f\x1e\x1f\x1e\x1f"[month-1])
}
