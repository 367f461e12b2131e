"""Who asks, and what they may: the identity of a request and its admission.

This layer lies below the libraries, so that every other one can log under the id of the request at hand.

requests         a request and its answer as every door has them, its id, who asks
authentication   from a key or a search token to who asks
authorization    what that may do to a library: one function decides
credentials  search_tokens  what these look like
keys             made, changed, rotated, revoked; last_use says when they were used
users            people, who have sessions
forwarding       what a trusted reverse proxy says of it
limits           how many requests are let in, by shared_counters or redis_counters
guard_rails      how full disk and memory may be for writes
models           the tables of keys and of the audit trail
"""
