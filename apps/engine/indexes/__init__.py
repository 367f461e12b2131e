"""Index types behind one interface.

registry       index types by name, and which one `auto` takes
base           the interface of every type
brute_force    an exact scan
kd_tree        a tree for few dimensions
lsh            hashing by random hyperplanes
quantized      a scan of small codes, by faiss
hnsw           a graph of neighbours, by faiss
matrix         the rows that an index is built over, and their exact search
byte_codes     an 8-bit copy of the rows
normalize      rows and queries in the form that faiss takes
duplicates     rows that codes cannot tell apart
calibration    how many candidates an index needs on its own rows
rerank         exact scores of candidates, as far as needed
faiss_library  faiss, with one thread and safe after a fork
"""
