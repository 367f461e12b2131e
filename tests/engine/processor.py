"""A program: what depends on the processor is right, as numba compiles it for the one that it is told of.

It compiles the products of codes, the test of bounds and exact scores, which is quicker than whole searches.
"""

import numpy as np
from numba import njit

from apps.engine.indexes.byte_codes import ByteCodes
from apps.engine.kernels import scores
from apps.engine.kernels.byte_products import GROUP, QUERIES, find_passing, multiply_four, row_product
from apps.engine.metrics import Metric, exact_scores


@njit
def single_products(plane, codes, products):
    for row in range(len(plane)):
        for query in range(len(codes)):
            products[row, query] = row_product(plane, row, codes, query)


@njit
def products_of_four(plane, codes, first, products):
    for row in range(0, len(plane), 2):
        multiply_four(plane, row, row + 1, codes, first, products, row, row + 1)


@njit
def passing(products, which, numbers, at, query, bounds):
    return find_passing(products, which, numbers, at, query, bounds)


def check_products(rng: np.random.Generator) -> None:
    dimension = 200
    plane = ByteCodes.build(rng.standard_normal((40, dimension)).astype(np.float32), Metric.DOT).planes[1]
    codes = rng.integers(-127, 128, (2 * QUERIES, 2 * plane.shape[1])).astype(np.int8)
    # The largest numbers of all, so that nothing may saturate.
    plane[0], codes[0], codes[1] = 255, 127, -127
    halves = plane.reshape(len(plane), -1, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    expected = halves.reshape(len(plane), -1).astype(np.int64) @ codes.T.astype(np.int64)
    products = np.empty((len(plane), len(codes)), np.int32)
    single_products(plane, codes, products)
    np.testing.assert_array_equal(products, expected)
    for first in range(0, len(codes), QUERIES):
        four = np.empty((len(plane), QUERIES), np.int32)
        products_of_four(plane, codes, first, four)
        np.testing.assert_array_equal(four, expected[:, first : first + QUERIES])


def check_bounds(rng: np.random.Generator) -> None:
    products = rng.integers(-(10**6), 10**6, (65, QUERIES)).astype(np.int32)
    numbers = rng.standard_normal((3, 64))
    for which in range(QUERIES):
        step, offset, along, reach = rng.standard_normal(4).tolist()
        scale, mean, error = numbers
        expected = scale * (step * products[:64, which] + offset) + (mean * along + error * reach)
        floor = float(np.median(expected)) + 1e-3
        for at in range(0, 64, GROUP):
            bounds = np.empty(GROUP)
            bits = int(passing(products, which, numbers, at, (step, offset, along, reach, floor), bounds))
            np.testing.assert_allclose(bounds, expected[at : at + GROUP], rtol=1e-9, atol=1e-6)
            assert [bits >> i & 1 for i in range(GROUP)] == (bounds >= floor).tolist()


def check_scores(rng: np.random.Generator) -> None:
    # Without `kernels.load`, `exact_scores` is numpy's.
    vectors = (rng.standard_normal((40, 300)) * 10.0 ** rng.uniform(-3, 3, (40, 300))).astype(np.float32)
    for metric in Metric:
        found = np.empty(len(vectors), np.float32)
        scores.scores(metric.number, vectors, vectors[3:4], np.empty(0, np.int64), found)
        assert found.tobytes() == exact_scores(metric, vectors, vectors[3]).tobytes()


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    check_products(generator)
    check_bounds(generator)
    check_scores(generator)
