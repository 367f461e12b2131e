-- A script for wrk: POSTs the bodies of a file, one a line, in turn; without a file, sends GET. Prints JSON at the end.

local requests, turn = {}, 0

function init(args)
   wrk.headers["Content-Type"] = "application/json"
   if args[1] then
      for body in io.lines(args[1]) do
         requests[#requests + 1] = wrk.format("POST", nil, nil, body)
      end
   else
      requests[1] = wrk.format("GET")
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format('\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
