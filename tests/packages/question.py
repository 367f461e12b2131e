"""What a server that was just installed is asked."""

import httpx

from vectordb import __version__


def is_ready(url: str) -> bool:
    """Whether a server answers there, and can serve."""
    try:
        return httpx.get(f"{url}/ready", timeout=5, trust_env=False, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def ask(url: str, key: str) -> None:
    """Ask for an answer from the sample, a file of the admin, and the schema. Raise what goes wrong."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        query = {"text": "what if the power goes out?", "mode": "hybrid", "k": 1}
        answer = client.post("/api/v1/libraries/handbook-sample/query", json=query).raise_for_status().json()
        assert answer["results"][0]["document_id"] == "durability"
        # Without collectstatic.
        client.get("/static/admin/css/base.css").raise_for_status()
        assert client.get("/api/schema").raise_for_status().json()["info"]["version"] == __version__
