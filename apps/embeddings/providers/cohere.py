"""Cohere's embeddings API, version 2, by Cohere's own library. Its models tell documents from queries.

A text longer than the model reads is cut at its end, by the service.
"""

from collections.abc import Sequence

import cohere
import httpx
from cohere.core import ApiError, RequestOptions
from cohere.core.parse_error import ParsingError

from apps.embeddings.config import Config
from apps.embeddings.provider import Kind, Provider
from apps.embeddings.providers.network import Service
from apps.engine.vectors import Float32, to_float32
from apps.telemetry.observation import trace_headers

_INPUT_TYPES = {"document": "search_document", "query": "search_query"}


class Cohere(Provider):
    """Any embedding model of Cohere's, for example embed-v4.0 or embed-multilingual-v3.0."""

    name = "cohere"
    max_batch = 96

    def __init__(self, model: str, config: Config) -> None:
        super().__init__(model, config)
        self._service = Service(
            self.name, model, config.cohere_base_url, "VECTORDB_COHERE_BASE_URL", "CO_API_KEY", config.cohere_api_key
        )
        self._client = cohere.ClientV2(config.cohere_api_key or "none", base_url=config.cohere_base_url)

    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        """Vectors [n, dimension] of at most 96 texts."""
        options: RequestOptions = {"max_retries": 0, "additional_headers": trace_headers()}
        if timeout is not None:
            options["timeout"] = timeout
        try:
            answer = self._client.embed(
                model=self.model,
                texts=list(texts),
                input_type=_INPUT_TYPES[kind],
                embedding_types=["float"],
                request_options=options,
            )
            return to_float32(answer.embeddings.float_)
        except httpx.TimeoutException:
            raise self._service.timeout_error() from None
        except httpx.RequestError:
            raise self._service.connection_error() from None
        except ApiError as error:
            status = error.status_code or 0
            # A reply that is no JSON is an ApiError too.
            if status < 400:
                raise self._service.format_error() from None
            raise self._service.status_error(status, error.body, error.headers or {}) from None
        except (AttributeError, ParsingError, TypeError, ValueError):
            raise self._service.format_error() from None
