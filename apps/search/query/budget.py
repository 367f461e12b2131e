"""What one request may cost, over all its queries: points, each about a microsecond of a worker, and time.

Limits of single fields do not bound their product. The prices are what each thing took at most on 117,659 rows of 384
dimensions; docs/api.md lists them. What they do not know, such as how many rows have a word, is bounded by the time.
"""

from collections.abc import Iterable
from time import monotonic

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
PER_ORDER_AND_1000_ROWS = 50
PRODUCTS_PER_POINT = 2500
# Of VECTORDB_REQUEST_TIMEOUT: what a stage takes that began before comes on top, and a worker must not be lost to it.
_SHARE_OF_TIMEOUT = 0.75


class RequestBudget:
    """The points and the time that are left for a request."""

    def __init__(self) -> None:
        self._limit: int = settings.LIMITS.request_cost
        self._left = self._limit
        self._deadline = monotonic() + _SHARE_OF_TIMEOUT * settings.REQUEST_TIMEOUT

    def spend(self, points: int) -> None:
        """Take `points`; raise Invalid if fewer are left."""
        self._left -= points
        if self._left < 0:
            raise Invalid(
                f"The request would cost more than {self._limit} points (limit VECTORDB_MAX_REQUEST_COST; docs/api.md "
                "has the prices): send fewer queries at once, or ask for fewer hits, values and conditions."
            )

    def check_time(self) -> None:
        """Raise TooSlow if the time is up."""
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
