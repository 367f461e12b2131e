"""Search by meaning, by words, by both; with filters, and newer first."""

from vectordb_client import Client, F

SAYINGS = [
    ("An apple a day keeps the doctor away", 1866),
    ("Prevention is better than cure", 1500),
    ("Eat to live, do not live to eat", 1739),
    ("Error E4711: the doctor is not available", 2024),
]

client = Client()
sayings = client.libraries.create("sayings", if_exists="get")
sayings.upsert(
    texts=[text for text, _ in SAYINGS],
    metadatas=[{"year": year} for _, year in SAYINGS],
    ids=[f"saying-{number}" for number in range(len(SAYINGS))],
)

for mode in ("vector", "lexical", "hybrid"):
    print(mode, [hit.text for hit in sayings.query("E4711 healthy food", k=2, mode=mode)])

before_1800 = (F("year") < 1800) & ~(F("year") == 1500)
print("before 1800:", [hit.text for hit in sayings.query("healthy food", filter=before_1800)])

newer = {"field": "year", "decay": {"origin": 2024, "half_life": 100}, "weight": 0.2}
print("newer first:", [hit.text for hit in sayings.query("doctor", k=2, boost=[newer])])
