"""Put a folder of text files into a library, and ask it something. Run it again: only what changed is sent.

python examples/ingest_folder.py FOLDER "a question"
"""

import sys

from vectordb_client import Client

if len(sys.argv) != 3:
    sys.exit(__doc__)
folder, question = sys.argv[1:]

client = Client()  # VECTORDB_URL, VECTORDB_API_KEY
files = client.libraries.create("files", if_exists="get")

report = files.documents.upload_folder(folder, metadata=lambda path: {"suffix": path.suffix})
for diff in report.diffs:
    print(f"{diff.id}: {diff.created} chunks new, {diff.unchanged} as before, {diff.deleted} gone")
for name, error in report.errors.items():
    print(f"{name}: {error}")

for hit in files.query(question, k=3, mode="hybrid", include=["text", "document"]):
    print(f"{hit.document.id}: {hit.text}")
