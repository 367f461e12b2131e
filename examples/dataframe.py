"""A DataFrame in, answers out as DataFrames. Needs pandas."""

import pandas as pd
from vectordb_client import Client, F

films = pd.DataFrame(
    {
        "id": ["alien", "jaws", "up", "wall-e"],
        "text": [
            "A crew is hunted by a creature on their ship in space",
            "A shark hunts swimmers, and three men hunt the shark",
            "An old man flies to South America in a house under balloons",
            "A small robot cleans the earth, and follows another one into space",
        ],
        "year": [1979, 1975, 2009, 2008],
        "animated": [False, False, True, True],
    }
)

client = Client()
library = client.libraries.create("films", if_exists="get")
# Columns that are no fields of a chunk become its metadata.
report = library.upload(films)
print(f"{report.created} created, {report.updated} updated")

found = library.query("adventures in space", k=3, filter=F("year") > 1975).to_pandas()
print(found[["id", "score", "text"]])
print(library.facets("animated").to_pandas())
