"""Recall against queries a second, one picture per data set, in one figure."""

from collections import defaultdict
from pathlib import Path

from benchmarks.engine.runner import Line


def draw(lines: list[Line], path: Path) -> None:
    """Write the figure to `path`; its ending says which format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_data: defaultdict[str, defaultdict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        by_data[line.data][line.kind].append(line)
    columns = min(2, len(by_data))
    rows = -(-len(by_data) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(6.5 * columns, 4 * rows), squeeze=False, layout="constrained"
    )
    kinds = sorted({line.kind for line in lines})
    colours = dict(zip(kinds, pyplot.get_cmap("tab10").colors, strict=False))
    for axis, (data, members) in zip(axes.flat, by_data.items(), strict=False):
        for kind, points in members.items():
            points.sort(key=lambda line: line.recall)
            axis.plot(
                [line.recall for line in points],
                [1e6 / line.microseconds for line in points],
                marker="o",
                label=kind,
                color=colours[kind],
            )
        axis.set(title=data, xlabel="recall@10", ylabel="queries a second, one thread", yscale="log")
        axis.grid(visible=True, alpha=0.3)
        axis.legend(fontsize=8)
    for axis in list(axes.flat)[len(by_data) :]:
        axis.remove()
    figure.savefig(path)
