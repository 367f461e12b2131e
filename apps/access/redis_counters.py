"""The windows of `shared_counters`, in a Redis that several hosts share (REDIS_URL)."""

import logging
from functools import cached_property
from time import monotonic
from typing import Any, Protocol

from apps.access.shared_counters import SECONDS, Hit

logger = logging.getLogger(__name__)

# A request waits no longer for Redis, and after a failure none asks it for a while.
_SECONDS_TO_ANSWER = 0.25
_SECONDS_WITHOUT = 5.0

# One script is one step for Redis. It has the counts of each second, by Redis's own clock, so that hosts agree. Seconds
# that lie ahead are those before its clock was put back: they count until they are a minute old by either direction.
_SCRIPT = """
local limit, span, counted = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local now = tonumber(redis.call('TIME')[1])
local counts, seconds, used = redis.call('HGETALL', KEYS[1]), {}, 0
for i = 1, #counts, 2 do
    local second, count = tonumber(counts[i]), tonumber(counts[i + 1])
    if math.abs(now - second) > span then
        redis.call('HDEL', KEYS[1], counts[i])
    else
        used = used + count
        table.insert(seconds, {second, count})
    end
end
local allowed = 0
if used < limit then
    allowed = 1
end
if allowed == 1 and counted then
    used = used + 1
    redis.call('HINCRBY', KEYS[1], now, 1)
    redis.call('EXPIRE', KEYS[1], 2 * span)
    table.insert(seconds, {now, 1})
end
table.sort(seconds, function(one, other) return one[1] < other[1] end)
local left, wait = used, 0
for _, entry in ipairs(seconds) do
    if left < limit then break end
    left, wait = left - entry[2], math.max(1, entry[1] + span + 1 - now)
end
return {allowed, limit - used, wait}
"""


class Counters(Protocol):
    """What counts requests by name."""

    def hit(self, name: str, limit: int, *, is_counted: bool = True) -> Hit:
        """Count a request under `name`, unless `limit` of them were counted in the last minute. Unless it `is_counted`,
        only say whether it would be."""


class RedisCounters:
    """Counts in the Redis at `url`; in `fallback`, the host's own, while it does not answer."""

    def __init__(self, url: str, fallback: Counters) -> None:
        self._url, self._fallback = url, fallback
        self._absent_until = 0.0

    @cached_property
    def _script(self) -> Any:
        """Made by the first request: connections must not be shared by a fork."""
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = Redis.from_url(
            self._url,
            socket_timeout=_SECONDS_TO_ANSWER,
            socket_connect_timeout=_SECONDS_TO_ANSWER,
            retry=Retry(NoBackoff(), 0),
        )
        return client.register_script(_SCRIPT)

    def hit(self, name: str, limit: int, *, is_counted: bool = True) -> Hit:
        """As `SharedCounters.hit`."""
        from redis import RedisError

        if monotonic() < self._absent_until:
            return self._fallback.hit(name, limit, is_counted=is_counted)
        try:
            allowed, remaining, wait = self._script(keys=[f"vectordb:{name}"], args=[limit, SECONDS, int(is_counted)])
        except (RedisError, OSError) as error:
            if not self._absent_until:
                # The error's own text may have the address.
                logger.warning("Redis does not answer (%s): this host counts for itself", type(error).__name__)
            self._absent_until = monotonic() + _SECONDS_WITHOUT
            return self._fallback.hit(name, limit, is_counted=is_counted)
        if self._absent_until:
            logger.warning("Redis answers again: limits hold across hosts")
            self._absent_until = 0.0
        return Hit(bool(allowed), max(0, remaining), wait)
