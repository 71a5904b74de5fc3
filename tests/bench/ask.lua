-- What wrk asks and tells: `wrk ... -s ask.lua URL -- FILE`; FILE has a whole request, or the body of a POST to the URL.
-- The last line is JSON: requests, microseconds they took, latencies in microseconds, and what went wrong.
-- No `response` here: wrk would build a table for each answer and be slower than what it measures.

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local asked = file:read("*a")
  file:close()
  if asked:sub(1, 5) == "POST " then
    wrk.format = function() return asked end
    return
  end
  wrk.method = "POST"
  wrk.body = asked
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer none"
  wrk.headers["anthropic-version"] = "2023-06-01"
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "took": %d, "p50": %d, "p99": %d, "most": %d, '
      .. '"wrong": {"status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect, errors.read, errors.write, errors.timeout
  ))
end
