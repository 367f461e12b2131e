"""Full text search: BM25 over immutable parts.

analyzer        what a word is, and how the text of a query is read
inverted_index  the index of one part: which rows hold a word, and the words of each row in order
bm25            the k best rows of several parts

As with the vectors, an index is derived from the rows and never changes after it was built: dead rows are masked out,
new rows make a part of their own, and parts are merged. Statistics are those of all live rows of a library, so a score
does not depend on how its rows lie in parts.
"""
