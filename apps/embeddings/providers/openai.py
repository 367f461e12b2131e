"""OpenAI's embeddings API by OpenAI's own library: also Ollama, vLLM, TEI and other servers that speak it.

Vectors are requested in base64, a third of the size of numbers; a server that sends numbers all the same is understood.
"""

import base64
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
import openai
import orjson

from apps.embeddings.config import Config
from apps.embeddings.provider import Kind, Provider
from apps.embeddings.providers.network import Service
from apps.engine.vectors import DTYPE, Float32, to_float32
from apps.telemetry.observation import trace_headers


class OpenAI(Provider):
    """Any model of the server at the setting's address."""

    name = "openai"
    # OpenAI takes 300,000 tokens in a request; a character is rarely more than one.
    max_batch_characters = 250_000

    def __init__(self, model: str, config: Config) -> None:
        super().__init__(model, config)
        self.max_batch = config.openai_max_batch
        self.dimension = config.openai_dimensions or None
        self._extra_body = {"dimensions": config.openai_dimensions} if config.openai_dimensions else None
        self._service = Service(
            self.name,
            model,
            config.openai_base_url,
            "VECTORDB_OPENAI_BASE_URL",
            "OPENAI_API_KEY",
            config.openai_api_key,
        )
        # The library insists on a key, which a server at home does not need.
        self._client = openai.OpenAI(
            api_key=config.openai_api_key or "none", base_url=config.openai_base_url, max_retries=0
        )

    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        """Vectors [n, dimension] of n texts, as the server sends them."""
        try:
            answer = self._client.embeddings.with_raw_response.create(
                input=list(texts),
                model=self.model,
                encoding_format="base64",
                extra_body=self._extra_body,
                extra_headers=trace_headers(),
                timeout=timeout,
            )
        except openai.APITimeoutError:
            raise self._service.timeout_error() from None
        except openai.APIConnectionError:
            raise self._service.connection_error() from None
        except openai.APIStatusError as error:
            raise self._service.status_error(error.status_code, error.body, error.response.headers) from None
        try:
            return decode_vectors(answer.content)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise self._service.format_error() from None


def decode_vectors(body: bytes) -> Float32:
    """The vectors [n, dimension] in the body of a reply, by their `index`.

    Raises AttributeError, LookupError, TypeError or ValueError for anything else.
    """
    items = orjson.loads(body)["data"]
    if [item.get("index", i) for i, item in enumerate(items)] != list(range(len(items))):
        items = sorted(items, key=itemgetter("index"))
        if [item["index"] for item in items] != list(range(len(items))):
            raise ValueError("the vectors are not numbered from 0")
    return np.array([_decode_vector(item["embedding"]) for item in items], np.float32)


def _decode_vector(embedding: str | list[float]) -> Float32:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), DTYPE)
    return to_float32(embedding)
