"""Many queries at once by asyncio; the client keeps its connections."""

import asyncio
import time

from vectordb_client import AsyncClient

QUESTIONS = [f"what is the capital of country {number}?" for number in range(100)]


async def main() -> None:
    async with AsyncClient() as client:
        library = await client.libraries.create("capitals", if_exists="get")
        await library.upload(
            {"id": str(number), "text": f"The capital of country {number} is city {number}"} for number in range(100)
        )
        began = time.perf_counter()
        answers = await asyncio.gather(*(library.query(question, k=1, mode="hybrid") for question in QUESTIONS))
        taken = time.perf_counter() - began
        right = sum(hits[0].id == str(number) for number, hits in enumerate(answers))
        print(f"{len(answers)} queries in {taken:.2f} s, {right} right")


asyncio.run(main())
