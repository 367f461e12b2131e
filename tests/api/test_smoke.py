def test_a_chunk_is_found_by_its_vector(client, library):
    chunks = [{"id": "a", "text": "A", "embedding": [1, 0, 0]}, {"id": "b", "text": "B", "embedding": [0, 1, 0]}]
    assert client.post(f"/libraries/{library}/chunks", json={"chunks": chunks}).json() == {
        "ids": ["a", "b"],
        "created": 2,
        "updated": 0,
    }
    answer = client.post(f"/libraries/{library}/query", json={"vector": [0.1, 1, 0], "k": 1}).json()
    assert [result["id"] for result in answer["results"]] == ["b"]
    assert answer["meta"]["exact"] is True
