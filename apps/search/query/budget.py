"""What one request may cost, over all its queries: points, each about a microsecond of a worker, rows that are compared
with a query's vector, and time.

Limits of single fields do not bound their product. The prices are what each thing took at most on 117,659 rows of 384
dimensions; docs/api.md lists them. What they do not know, such as how many rows have a word, is bounded by the time:
the processor's for the request, which is the same however busy the server is, and that until the client's answer.
"""

from collections.abc import Iterable
from copy import copy
from time import monotonic, thread_time
from typing import Self

from django.conf import settings

from apps.engine.metadata.facets import ValuePage
from apps.engine.metadata.filters import Contains, ContainsFolded, Filter, OneOf, conditions
from apps.engine.text.analyzer import TextQuery
from apps.libraries.errors import Invalid, TooSlow

PER_FETCHED_HIT = 5
PER_FUSED_HIT = 15
PER_GROUPED_HIT = 2
PER_BOOSTED_HIT = 1
PER_RESULT = 10
PER_TEXT_BYTE = 1
PER_VALUE = 2
PER_CONDITION = 10
PER_CONDITION_AND_1000_ROWS = 2
PER_SUBSTRING_AND_1000_ROWS = 50
PER_FOLDED_SUBSTRING_AND_1000_ROWS = 1000
PER_READ_TEXT = 3
PER_1000_CHARACTERS_AND_CONDITION = 5
PER_PHRASE_WORD_AND_1000_ROWS = 15
PER_FIELD_AND_1000_ROWS = 20
PER_READ_ROW = 5
CHARACTERS_PER_POINT = 8
PER_ORDER_AND_1000_ROWS = 50
PRODUCTS_PER_POINT = 2500
# Of VECTORDB_REQUEST_TIMEOUT: what a stage takes that began before comes on top, and a worker must not be lost to it.
_SHARE_OF_TIMEOUT = 0.75


class RequestBudget:
    """The points, rows and time that are left for a request, which runs in the thread that made this."""

    def __init__(self) -> None:
        limits = settings.LIMITS
        self._limit: int = limits.request_cost
        self._left = self._limit
        self._rows = self._most_rows = limits.scanned_rows
        self._milliseconds = limits.request_ms
        self._latest_thread_time = thread_time() + limits.request_ms / 1000
        self._deadline = monotonic() + _SHARE_OF_TIMEOUT * settings.REQUEST_TIMEOUT

    def apart(self) -> Self:
        """The points and rows of a new request, and the time that is left for this one."""
        budget = copy(self)
        budget._left, budget._rows = self._limit, self._most_rows
        return budget

    def spend(self, points: int) -> None:
        """Take `points`; raise Invalid if fewer are left."""
        self._left -= points
        if self._left < 0:
            raise Invalid(
                f"The request would cost more than {self._limit} points (limit VECTORDB_MAX_REQUEST_COST; docs/api.md "
                "has the prices): send fewer queries at once, or ask for fewer hits, values and conditions."
            )

    def scan(self, rows: int) -> None:
        """Take `rows` that are compared; raise Invalid if fewer are left."""
        self._rows -= rows
        if self._rows < 0:
            raise Invalid(
                f"The request would compare more than {self._most_rows} rows with its queries (limit "
                "VECTORDB_MAX_SCANNED_ROWS): send fewer queries at once, or use an index instead of exact search."
            )

    def check_time(self) -> None:
        """Raise Invalid if the request has taken too much of the processor's time, TooSlow if it runs for too long."""
        if thread_time() > self._latest_thread_time:
            raise Invalid(
                f"The request took more than {self._milliseconds} ms of the processor (limit VECTORDB_MAX_REQUEST_MS) "
                "and was given up; nothing was written. Ask for less at once."
            )
        if monotonic() > self._deadline:
            seconds = _SHARE_OF_TIMEOUT * settings.REQUEST_TIMEOUT
            raise TooSlow(
                f"The request took longer than {seconds:g} s, three quarters of VECTORDB_REQUEST_TIMEOUT: send fewer "
                "queries at once, or try again when the server has less to do."
            )


def price_of_filters(filters: Iterable[Filter], rows: int) -> int:
    """The points that it costs to evaluate `filters` over `rows`."""
    points = 0
    for filter in filters:
        for condition in conditions(filter):
            points += PER_CONDITION + PER_CONDITION_AND_1000_ROWS * rows // 1000
            if isinstance(condition, OneOf):
                points += PER_VALUE * len(condition.keys)
            elif isinstance(condition, Contains) and condition.is_substring:
                points += PER_SUBSTRING_AND_1000_ROWS * rows // 1000
            elif isinstance(condition, ContainsFolded):
                points += PER_FOLDED_SUBSTRING_AND_1000_ROWS * rows // 1000
    return points


def price_of_values(page: ValuePage, rows: int) -> int:
    """The points that it costs to find a page of the values of a field of `rows`, besides counting them."""
    points = PER_VALUE * page.offset
    return points + PER_SUBSTRING_AND_1000_ROWS * rows // 1000 if page.search else points


def price_of_fields(fields: int, rows: int) -> int:
    """The points that it costs to summarize `fields` of `rows`."""
    return PER_CONDITION * fields + PER_FIELD_AND_1000_ROWS * fields * rows // 1000


def price_of_reading(rows: int, characters: int) -> int:
    """The points that it costs to make all columns of `rows` whose metadata have this many `characters`."""
    return PER_READ_ROW * rows + characters // CHARACTERS_PER_POINT


def price_of_order(fields: int, rows: int) -> int:
    """The points that it costs to find the first of `rows` in the order of `fields`."""
    return PER_ORDER_AND_1000_ROWS * fields * rows // 1000


def price_of_words(words: TextQuery | None, rows: int) -> int:
    """The points that the phrases of a text cost; other words have no price, since most are rare."""
    if words is None:
        return 0
    return sum(map(len, words.phrases)) * PER_PHRASE_WORD_AND_1000_ROWS * rows // 1000


def price_of_mmr(candidates: int, results: int, dimension: int) -> int:
    """The points that it costs to choose `results` of `candidates`, each by its likeness to those before."""
    return candidates * results * dimension // PRODUCTS_PER_POINT
