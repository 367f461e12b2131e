"""Vectors read by the kernel: as Python's own parsers and numpy would have it, or not at all."""

import base64
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.engine.kernels import json_vectors
from tests.engine.data import bounded

KEY = np.frombuffer(b"embedding", np.uint8)


def read(text: str) -> list[tuple[str, np.ndarray]]:
    """The vectors that were read, each with its text."""
    raw = np.frombuffer(text.encode(), np.uint8)
    out, found = np.empty(len(raw) + 1, np.float32), np.empty((20, 3), np.int64)
    arrays = []
    start = 0
    for first, behind, count in found[: json_vectors.read_vectors(raw, KEY, out, found)]:
        arrays.append((raw[first:behind].tobytes().decode(), out[start : start + count]))
        start += count
    return arrays


def expected(array: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.array(json.loads(array, parse_int=float), np.float64).astype(np.float32)


def assert_read_rightly(array: str) -> bool:
    """Whether the array was read; if so, bit by bit as numpy has it."""
    found = read(f'{{"embedding": {array}}}')
    for text, values in found:
        assert text == array
        assert np.array_equal(values.view(np.uint32), expected(array).view(np.uint32)), array
    return bool(found)


digits = st.text("0123456789", min_size=1, max_size=24)
decimals = st.builds(
    lambda sign, whole, part, power: f"{sign}{int(whole)}{part}{power}",
    st.sampled_from(["", "-"]),
    digits,
    st.one_of(st.just(""), digits.map(lambda text: f".{text}")),
    st.one_of(st.just(""), st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), digits)),
)


@bounded(600)
@given(decimals)
@example("0.1")
@example("-0")
@example("0e99")
@example("18446744073709551615")
@example("99999999999999999999")
@example("1e39")
@example("1.401298464324817e-45")
@example("7.006492321624085e-46")
@example("1.00000005960464477539062")
@example("1.00000005960464477539063")
@example("16777217")
def test_a_number_is_what_numpy_makes_of_it(number: str) -> None:
    assert_read_rightly(f"[{number}]")


@bounded(300)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_float32_values_come_back_as_they_were(values: list[float]) -> None:
    assert_read_rightly(json.dumps(values))


@bounded(300)
@given(st.integers(0, 2**32 - 1), st.integers(-40, 3), st.booleans())
def test_numbers_next_to_the_middle_of_two_float32_values(seed: int, exponent: int, shortest: bool) -> None:
    rng = np.random.default_rng(seed)
    lower = np.float32(rng.uniform(1, 10) * 10.0 ** max(exponent, -30))
    middle = (float(lower) + float(np.nextafter(lower, np.float32(np.inf)))) / 2
    near = [middle, np.nextafter(middle, 0), np.nextafter(middle, np.inf)]
    for value in near:
        assert_read_rightly(f"[{float(value)!r}]" if shortest else f"[{value:.18e}]")


def test_usual_embeddings_are_read() -> None:
    values = np.random.default_rng(0).standard_normal(2000) * 10.0 ** np.arange(-8, 2).repeat(200)
    for text in (json.dumps(values.tolist()), json.dumps([float(f"{value:.8g}") for value in values])):
        assert assert_read_rightly(text)


@pytest.mark.parametrize("array", ["[1,2.5]", "[ 1 , 2.5 ]", "[\n1,\t2.5\r]", "[-0.0]", "[1E2,1e+2,1e-2]"])
def test_spaces_and_exponents(array: str) -> None:
    assert assert_read_rightly(array)


@pytest.mark.parametrize(
    "array",
    (
        '[] [1,] [,1] [01] [-] [+1] [.5] [1.] [1e] [NaN] [null] [[1]] [true] ["1"] [1 [1, [1.5e [0x1] [1_0] [1e99] '
        "[123456789012345678901] [1__2]"
    )
    .replace("__", "\t")
    .split(" "),
)
def test_what_is_no_array_of_plain_numbers_is_not_read(array: str) -> None:
    assert read(f'{{"embedding":{array}') == []


@bounded(300)
@given(st.binary(min_size=1, max_size=40))
def test_base64_is_read_where_it_is_of_whole_values(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    found = read(f'{{"embedding" : "{text}"}}')
    assert [array for array, _ in found] == ([] if len(data) % 4 else [f'"{text}"'])
    assert b"".join(values.tobytes() for _, values in found) == (b"" if len(data) % 4 else data)


@bounded(600)
@given(st.text('Aa+/=_\\ "', max_size=12))
@example("AAAAAA==")
@example("AAAAA===")
@example("AAAAAA=A")
@example("AAAA=AAA")
@example("AAAAAAAAAAA=AAAA")
def test_a_string_is_read_only_where_python_reads_it(text: str) -> None:
    for body in (f'{{"embedding":"{text}"}}', f'"embedding":"{text}'):
        for quoted, values in read(body):
            assert values.tobytes() == base64.b64decode(quoted[1:-1], validate=True)


def test_the_key_is_found_wherever_it_is_a_key() -> None:
    text = json.dumps(
        {
            "text": 'not here: "embedding": [1]',
            "quote\\": ['"embedding":[2]', "embedding", [3]],
            "chunks": [
                {"embedding": [4, 5]},
                {"embedding": None},
                {"embedding_": [6]},
                {"metadata": {"embedding": [7]}},
                {"embedding": "AACAPwAAAEA="},
                {"embeddings": "AACAPwAAAEA="},
                {"embedding": "AAAA"},
            ],
        }
    )
    found = [(array, values.tolist()) for array, values in read(text)]
    assert found == [("[4, 5]", [4, 5]), ("[7]", [7]), ('"AACAPwAAAEA="', [1, 2])]


def test_there_is_room_for_so_many() -> None:
    raw = np.frombuffer(b'[{"embedding":[1,2]},{"embedding":[3,4]},{"embedding":"AACAPw=="}]', np.uint8)
    found = np.empty((3, 3), np.int64)
    assert json_vectors.read_vectors(raw, KEY, np.empty(5, np.float32), found) == 3
    assert json_vectors.read_vectors(raw, KEY, np.empty(5, np.float32), found[:2]) == 2
    assert json_vectors.read_vectors(raw, KEY, np.empty(3, np.float32), found) == 2
