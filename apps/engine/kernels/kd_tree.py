"""Search in a k-d tree, depth first, the better child first; `kd_tree.py` says what its arrays hold.

The *cost* of a point x for a query q is |x - q|**2 or, under dot, -x.q. That of a node is the least that a point of its
box can have, and no row below it has less. Nodes and rows whose cost is beyond `limit` are left out: that is the most a
row may cost whose exact score reaches the worst of the k best so far. `_limit` shows that this loses no answer, though
all of it is rounded: costs to float64, scores to float32, and under cosine the points too.

Most of the time goes into the costs of a leaf's rows, of which the few within the limit are scored exactly.
"""

import numpy as np
from numba import types

from apps.engine.kernels import jit
from apps.engine.kernels.heap import heap_push, heap_sort
from apps.engine.kernels.scores import COSINE, DOT, EUCLIDEAN, SPACE, norm, score

# The arrays of a `Tree`.
_TREE = jit.read_only(types.float32, 3), jit.INTS_32, jit.read_only(types.float32, 3)
_ROUNDING = 2.0**-53
# The float32 point of a unit vector and the float64 one of the query are off by less than this together: half an ulp
# in each element of the one makes 2**-24, and float64 very little.
_OFF = 2.0**-23


@jit.inline
def _slack(metric, boxes, point):
    """More than what the float64 sums in two costs, or in a cost and an exact score, can err by: a part of them or,
    under dot, of sum |q_j| max |x_j|, where terms may cancel."""
    slack = (4 * len(point) + 64) * _ROUNDING
    if metric != DOT:
        return slack
    reach = 0.0
    for j in range(len(point)):
        reach += abs(point[j]) * max(abs(boxes[1, 0, j]), abs(boxes[1, 1, j]))
    return slack * reach


@jit.inline
def _limit(metric, worst, slack):
    """The most that a row may cost, as computed here, whose exact score is `worst` or better.

    An exact score is a float64 value rounded to float32, so one that is `worst` or better comes from a value above the
    float32 next below `worst`, and `below` is no more than that. From there on, in each metric:
    - euclidean: |x - q| is less than -below, and costs and value err by less than the slack;
    - dot: x.q is more than below less the slack;
    - cosine: |u - v|**2 = 2 - 2 u.v for unit vectors u and v, which the points are but for `_OFF`.
    """
    below = np.float64(worst) - abs(np.float64(worst)) * 2.0**-23 - 2.0**-149
    if metric == EUCLIDEAN:
        return below * below * (1.0 + slack)
    if metric == DOT:
        return slack - below
    distance = np.sqrt(max(2.0 - 2.0 * below + 2.0 * slack, 0.0)) + _OFF
    return distance * distance * (1.0 + slack)


@jit.inline
def _box_cost(metric, boxes, node, point):
    """The cost of a node, by the box of its rows."""
    cost = 0.0
    for j in range(len(point)):
        low, high = np.float64(boxes[node, 0, j]), np.float64(boxes[node, 1, j])
        if metric == DOT:
            cost -= point[j] * (high if point[j] > 0.0 else low)
        else:
            distance = max(low - point[j], point[j] - high, 0.0)
            cost += distance * distance
    return cost


@jit.inline
def _fill_costs(metric, points, leaf, point, costs):
    """Costs of all `points` [leaves, d, width] of a leaf; the inner loops run over rows, which makes them vectors."""
    for i in range(points.shape[2]):
        costs[i] = 0.0
    for j in range(points.shape[1]):
        value = point[j]
        if metric == DOT:
            for i in range(points.shape[2]):
                costs[i] -= value * np.float64(points[leaf, j, i])
        else:
            for i in range(points.shape[2]):
                difference = np.float64(points[leaf, j, i]) - value
                costs[i] += difference * difference


@jit.kernel(types.void(jit.INT, jit.VECTORS, *_TREE, jit.VECTORS, jit.FLAGS, *jit.ANSWERS, jit.COUNTS))
def search(metric, vectors, points, order, boxes, queries, allowed, positions, scores, compared):
    """Find the k nearest of `vectors` to each of `queries` [m, d] among those `allowed` [n], or all where it is empty.

    Fills `positions` and `scores` [m, k] and `compared` [m].
    """
    n, d = vectors.shape
    leaves, _, width = points.shape
    levels = 0
    while 1 << levels < leaves:
        levels += 1
    by_position, lanes = np.empty(0, np.int64), np.empty(SPACE)
    query, point, costs = np.empty(d), np.empty(d), np.empty(width)
    # Nodes to visit yet, at most one a level, and what they cost.
    waiting_nodes, waiting_costs = np.empty(levels + 1, np.int64), np.empty(levels + 1)
    for m in range(len(queries)):
        for j in range(d):
            query[j] = queries[m, j]
        query_norm = norm(queries, m, query, lanes)
        for j in range(d):
            point[j] = query[j] / query_norm if metric == COSINE else query[j]
        slack = _slack(metric, boxes, point)
        best_scores, best_positions = scores[m], positions[m]
        limit, found, seen = np.inf, 0, 0
        waiting_nodes[0], waiting_costs[0], waiting = 1, -np.inf, 1
        while waiting:
            waiting -= 1
            node, cost = waiting_nodes[waiting], waiting_costs[waiting]
            while node < leaves and cost <= limit:
                left, right = _box_cost(metric, boxes, 2 * node, point), _box_cost(metric, boxes, 2 * node + 1, point)
                node = 2 * node + (right < left)
                cost = min(left, right)
                waiting_nodes[waiting], waiting_costs[waiting] = node ^ 1, max(left, right)
                waiting += 1
            if cost > limit:
                continue
            leaf = node - leaves
            start, end = leaf * n >> levels, (leaf + 1) * n >> levels
            _fill_costs(metric, points, leaf, point, costs)
            for i in range(end - start):
                position = np.int64(order[start + i])
                if len(allowed) and not allowed[position]:
                    continue
                seen += 1
                if costs[i] <= limit:
                    value = score(metric, vectors, position, query, query_norm, lanes)
                    found = heap_push(best_scores, best_positions, by_position, found, value, position)
                    if found == len(best_scores):
                        limit = _limit(metric, best_scores[0], slack)
        compared[m] = seen
        heap_sort(best_scores, best_positions, by_position, found)
