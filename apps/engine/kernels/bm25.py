"""Adding up of BM25; `apps.engine.text.bm25` says what that is, and has the same in numpy."""

import numpy as np
from numba import types

from apps.engine.kernels import jit

_ROWS, _SPANS = jit.INTS_32, jit.read_only(jit.INT, 2)
_WEIGHTS = jit.REALS, jit.INTS_32, jit.REAL, jit.REAL, jit.REAL


@jit.inline
def _norm(length, average, k1, b):
    """What BM25 adds to the frequency below the line, for a row of that many words."""
    return (np.float64(length) * b / average + (1.0 - b)) * k1


@jit.kernel(types.void(_ROWS, _SPANS, jit.FLAGS, jit.COUNTS))
def count_alive(rows, spans, alive, counts):
    """Write to `counts` [words] the number of live rows of each word; `spans` [words, 2] says where these lie
    in `rows`."""
    for word in range(len(spans)):
        living = 0
        for place in range(spans[word, 0], spans[word, 1]):
            living += alive[rows[place]]
        counts[word] = living


@jit.kernel(
    *(
        types.int64(_ROWS, jit.read_only(frequency, 1), _SPANS, *_WEIGHTS, jit.FLAGS, types.float64[::1], jit.COUNTS)
        for frequency in (types.uint8, types.uint16, types.uint32)
    )
)
def add_scores(rows, frequencies, spans, idf, lengths, average, k1, b, allowed, scores, found):
    """Add the scores of the rows of all words to `scores` [n], which are zeros, and write to `found` which rows have
    one, in any order; return their number.

    `spans` [words, 2] says where the rows of each word lie in `rows` and their frequencies in `frequencies`, `idf`
    [words] what the word weighs, none where it does not count. `lengths` [n] are numbers of words, `average` that of
    all rows. `allowed` [n] leaves out rows; empty, it leaves out none. `found` has one place more than there can be.
    """
    total = 0
    for word in range(len(spans)):
        total += spans[word, 1] - spans[word, 0]
    norms = np.empty(len(lengths) if total > len(lengths) else 0)
    for row in range(len(norms)):
        norms[row] = _norm(lengths[row], average, k1, b)
    held = 0
    for word in range(len(spans)):
        weight = idf[word]
        if weight == 0.0:
            continue
        for place in range(spans[word, 0], spans[word, 1]):
            row = rows[place]
            if len(allowed) and not allowed[row]:
                continue
            often = np.float64(frequencies[place])
            norm = norms[row] if len(norms) else _norm(lengths[row], average, k1, b)
            before = scores[row]
            found[held] = row
            held += before == 0.0
            scores[row] = before + often * (k1 + 1.0) * weight / (norm + often)
    return held
