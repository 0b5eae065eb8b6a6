-- Prints wrk's totals as one line of JSON: its own text is rounded, and leaves
-- out what did not happen. It defines neither request nor response, so wrk
-- stays on its fast path.
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nLAB {"requests":%d,"microseconds":%d,"bytes":%d,' ..
    '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,' ..
    '"mean_us":%.3f,"p50_us":%.0f,"p99_us":%.0f}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout,
    latency.mean, latency:percentile(50), latency:percentile(99)))
end
