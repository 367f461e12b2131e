"""What the server must reach, measured over HTTP on real data; `python -m benchmarks`, docs/benchmarks.md.

Every figure stands beside a reference that is measured in the same run.

ingest  query  request  filters  text  retrieval  catch_up  cold_start  opening  maintenance  memory  libraries
delete  churn
               the measurements: `run(testbed)` gives rows of a table
docstrings     questions over Python's docstrings, a command of its own
compare        this checkout beside another one
peers          the same work given to another vector database
filtered_peers filtered search beside other engines, a command of its own
access         what the check of a key costs, a command of its own
testbed        where measurements take place: scratch folders, servers, the folder that holds all rows
dataset        the real rows, and request bodies made from them
hard_data      any number of rows as hard as the real ones
filtered       the filters that are measured, and how their answers are judged
client         an HTTP client that costs next to nothing
timing         stopwatch and quantiles
report         rows, what is wanted of them, the table, the JSON file
bulk_create  bare_scan  empty_view   references that run in processes of their own
"""
