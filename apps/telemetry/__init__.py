"""What the server tells about itself: log lines, metrics, trace ids.

This layer lies below all others but the engine, so that each can count and log where things happen. `metrics` is the
table of all metrics; `apps/operations/edge` writes the line of a request, and `apps/operations/metrics` what Prometheus
reads.
"""
