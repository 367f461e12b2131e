"""Relevance from 0 to 1, as LangChain's thresholds take it, of the server's scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def relevance(metric: str, mode: str, hybrid: Mapping[str, Any]) -> Callable[[float], float]:
    """The function of a search by `mode` in a library of `metric`; `hybrid` are the options of fusion.

    Under `cosine` it is the score, and 0 for what points away; under `dot` too, so it suits vectors of length 1. Under
    `euclidean` it is 1 / (1 + distance). Fused ranks are divided by the best there can be, and BM25, which has no
    limit, is s / (s + 1).
    """
    if mode == "lexical":
        return lambda score: _limit(score / (score + 1))
    if mode == "hybrid":
        weights = float(hybrid.get("vector_weight", 1)) + float(hybrid.get("lexical_weight", 1))
        best = weights / (int(hybrid.get("rrf_k", 60)) + 1)
        return lambda score: _limit(score / best)
    if metric == "euclidean":
        return lambda score: 1 / (1 - score)
    return _limit


def _limit(score: float) -> float:
    return min(max(score, 0.0), 1.0)
