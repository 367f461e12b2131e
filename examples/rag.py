"""Answer a question from what a library has, by any server that speaks OpenAI's API (Ollama, vLLM, llama.cpp, OpenAI).

OPENAI_BASE_URL=http://localhost:11434/v1 MODEL=llama3.2 python examples/rag.py "what happens when the power fails?"
"""

import os
import sys

import httpx2
from vectordb_client import Client

LIBRARY = os.environ.get("LIBRARY", "handbook-sample")
if len(sys.argv) != 2:
    sys.exit(__doc__)
question = sys.argv[1]

client = Client()
hits = client.library(LIBRARY).query(question, k=4, mode="hybrid", include=["text", "document"])
passages = "\n\n".join(f"[{number}] {hit.text}" for number, hit in enumerate(hits, 1))

answer = httpx2.post(
    f"{os.environ.get('OPENAI_BASE_URL', 'http://localhost:11434/v1')}/chat/completions",
    headers={"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"},
    json={
        "model": os.environ.get("MODEL", "llama3.2"),
        "messages": [
            {"role": "system", "content": "Answer from these passages alone, and name them by their numbers."},
            {"role": "user", "content": f"{passages}\n\nQuestion: {question}"},
        ],
    },
    timeout=120,
)
print(answer.raise_for_status().json()["choices"][0]["message"]["content"])
for number, hit in enumerate(hits, 1):
    print(f"[{number}] {hit.document.title if hit.document else hit.id}")
