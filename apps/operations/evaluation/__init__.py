"""Search quality by judged queries: which chunks, or documents, should be found, and how well they are.

judgements  the file of queries and what is relevant to each
measures    nDCG, recall, precision, MAP and MRR, computed by trec_eval
runs        the rankings of each mode and set of options, and their measures
report      the table, the comparison with an earlier report, and what has to hold
"""
