"""Index types behind one interface.

registry       index types by name, and which one `auto` takes
base           the interface of every type
brute_force    an exact scan
bare           rows without vectors
kd_tree        a tree for few dimensions
lsh            hashing by random hyperplanes
quantized      a scan of small codes, by faiss
ivf            lists of rows that lie together
hnsw           a graph of neighbours, by faiss
matrix         the rows that an index is built over, and their exact search
byte_codes     an 8-bit copy of the rows
normalize      rows and queries in the form that faiss takes
duplicates     rows that codes cannot tell apart
clustering     the centres of such lists
product_codes  small codes of rows, by faiss
calibration    how many candidates an index needs on its own rows
recall         how much a search finds, by the effort that it makes
rerank         exact scores of candidates, as far as needed
faiss_library  faiss, with one thread and safe after a fork
"""
