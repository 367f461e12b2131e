"""The engines by their names on the command line."""

from benchmarks.filtered_peers.embedded import Faiss, LanceDB, MilvusLite, Qdrant, Zvec
from benchmarks.filtered_peers.engine import Engine
from benchmarks.filtered_peers.servers import Chroma, Ours, OursInProcess, Pgvector

HERE: dict[str, type[Engine]] = {
    "ours": Ours,
    "ours-in-process": OursInProcess,
    "chroma": Chroma,
    "pgvector": Pgvector,
    "faiss": Faiss,
}
# In the environment of --peers-python.
ELSEWHERE: dict[str, type[Engine]] = {"qdrant": Qdrant, "zvec": Zvec, "milvus": MilvusLite, "lancedb": LanceDB}
ENGINES = HERE | ELSEWHERE
