"""Who asks, and what they may: the identity of a request and its admission.

This layer lies below the libraries, so that every other one can log under the id of the request at hand.

requests        a request and its answer as every door has them, its id, who asks
authentication  from a key or a search token to who asks
authorization   what that may do to a library: one function decides
credentials, search_tokens  what these look like
transactions    writes, for which a key is read again
keys            made, changed, rotated, revoked
last_use        when keys were used last
users           people, who have sessions
forwarding      what a trusted reverse proxy says of it
logins          how many passwords may be tried
limits          how many requests are let in
shared_counters, redis_counters  what counts them, on one host or several
guard_rails     how full disk and memory may be for writes
audit           who changed what, written with the change
account_changes  of users and groups, by Django's signals
idempotency     requests that are carried out once
models          the tables of keys, of the audit trail and of such requests
"""
