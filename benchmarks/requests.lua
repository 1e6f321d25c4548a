-- One kind of request, for wrk: `wrk -s requests.lua URL -- KIND USERS TOKEN PASSWORD NAME`.
-- Counts all responses, errors too, and prints the figures as JSON.

local kind, users, token, password, name
local number = 0

function init(arguments)
  kind, users, token, password, name = unpack(arguments)
  users = tonumber(users)
end

function request()
  number = number + 1
  local bearer = { ["Authorization"] = "Bearer " .. token }
  local path = "/api/v1/users/" .. math.random(2, users)
  if kind == "who am I" then
    return wrk.format("GET", "/api/v1/users/me", bearer)
  elseif kind == "list" then
    return wrk.format("GET", "/api/v1/users?limit=50", bearer)
  elseif kind == "read" then
    return wrk.format("GET", path, bearer)
  elseif kind == "write" then
    bearer["Content-Type"] = "application/json"
    local body = string.format('{"email": "%s-%d@example.com"}', name, number)
    return wrk.format("PATCH", path, bearer, body)
  end
  -- Everyone in the office has the same address.
  local address = kind == "office login" and 250 or number % 250
  local form = {
    ["Content-Type"] = "application/x-www-form-urlencoded",
    ["X-Forwarded-For"] = "203.0.113." .. address,
  }
  local user = 2 + number % 1000
  local body = string.format("username=user-%d&password=%s", user, password)
  return wrk.format("POST", "/api/v1/auth/login", form, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.3f, "median": %.1f, "p99": %.1f, "status": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout
  ))
end
