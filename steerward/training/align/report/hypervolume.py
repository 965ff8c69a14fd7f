"""Which points a front is made of, and how much of the space it dominates. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, ...]


def non_dominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the places of points that no other point beats, in order; of equal ones the first.

    A point beats another if it is nowhere lower and somewhere higher.
    """
    kept: list[int] = []
    for i, point in enumerate(points):
        is_beaten = any(
            _covers(other, point) and (tuple(other) != tuple(point) or j < i)
            for j, other in enumerate(points)
            if j != i
        )
        if not is_beaten:
            kept.append(i)
    return kept


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Return the volume that points dominate above a reference, higher being better.

    Each point adds what those before it do not cover, as in WFG of While et al. (IEEE Transactions
    on Evolutionary Computation 16(1), 2012, section III). With one objective it is a length, with
    two an area.

    Args:
        points: With the same number of coordinates as the reference; those that are not above it
            everywhere add nothing.
        reference: Where the volume begins.

    Raises:
        ValueError: If a point has another number of coordinates.
    """
    if any(len(point) != len(reference) for point in points):
        raise ValueError(f"all points need {len(reference)} coordinates, as the reference has")
    above = [
        tuple(float(value) - float(low) for value, low in zip(point, reference, strict=True))
        for point in points
    ]
    return _volume([point for point in above if min(point) > 0.0])


def _volume(points: list[Point]) -> float:
    """Return the volume between points and zero."""
    kept = [points[i] for i in non_dominated(points)]
    if not kept:
        return 0.0
    if len(kept[0]) == 2:
        return _area(kept)
    # Largest in one coordinate first: what the later ones have in common with it shrinks soon.
    kept.sort(reverse=True)
    total = 0.0
    for i, point in enumerate(kept):
        shared = [tuple(map(min, point, other)) for other in kept[i + 1 :]]
        total += _box(point) - _volume(shared)
    return total


def _area(points: Sequence[Point]) -> float:
    area, floor = 0.0, 0.0
    for first, second in sorted(points, reverse=True):
        if second > floor:
            area += first * (second - floor)
            floor = second
    return area


def _box(point: Point) -> float:
    volume = 1.0
    for side in point:
        volume *= side
    return volume


def _covers(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))
