"""An agent's memory: facts that it keeps, finds again by what they mean, and forgets.

    python examples/agent_memory.py

The server is the one at VECTORDB_URL, with VECTORDB_API_KEY. No language model is needed: a script plays the agent. One
that speaks the Model Context Protocol has the same as tools, see docs/agents.md.
"""

from datetime import datetime, timedelta

from vectordb_client import Client, F, Library


class Memory:
    """Facts about people, in a library of their own."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def remember(self, fact: str, person: str, days: int | None = None) -> str:
        """Keep a fact, for some days or for good; return its id."""
        expires_at = None if days is None else datetime.now().astimezone() + timedelta(days=days)
        metadata = {"person": person, "kind": "lasting" if days is None else "passing"}
        return self._library.upsert(texts=[fact], metadatas=[metadata], expires_at=expires_at).ids[0]

    def recall(self, question: str, person: str | None = None, k: int = 2) -> list[str]:
        """The facts that answer a question best, of one person if there is one."""
        filter = None if person is None else F("person") == person
        return [hit.text for hit in self._library.query(question, k=k, mode="hybrid", filter=filter)]

    def forget(self, person: str) -> int:
        """Delete all facts about a person; return how many there were."""
        return self._library.delete(filter=F("person") == person)


def main() -> None:
    with Client() as client:
        memory = Memory(client.libraries.create("example-agent-memory", if_exists="get"))
        memory.remember("Anna drinks green tea, without sugar.", "Anna")
        memory.remember("Anna works on the harbour bridge.", "Anna")
        memory.remember("Ben is allergic to nuts.", "Ben")
        memory.remember("Ben is in Lisbon this week.", "Ben", days=7)

        print("What may I offer Anna to drink?", memory.recall("What may I offer to drink?", "Anna", k=1))
        print("Who must not eat walnuts?", memory.recall("allergic to nuts", k=1))
        print("Forgotten about Ben:", memory.forget("Ben"))
        print("Left of Ben:", memory.recall("nuts", "Ben"))
        client.libraries.delete("example-agent-memory")


if __name__ == "__main__":
    main()
