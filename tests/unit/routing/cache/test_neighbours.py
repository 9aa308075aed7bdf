"""The nearest known request is found exactly, in its partition alone, whatever came and left before."""

from __future__ import annotations

import math
from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from polyroute.routing.cache.neighbours import Known, Neighbours


def vector(*parts: float) -> bytes:
    length = math.hypot(*parts)
    return array("f", [part / length for part in parts]).tobytes()


def known(name: str) -> Known:
    return Known(name, name.encode())


def test_the_nearest_of_the_partition_is_found() -> None:
    near = Neighbours(10)
    near.add(b"p", vector(1, 0), known("east"))
    near.add(b"p", vector(0, 1), known("north"))
    near.add(b"other", vector(1, 1), known("between"))
    found = near.nearest(b"p", vector(3, 4))
    assert found is not None
    assert found.known == known("north")
    assert math.isclose(found.similarity, 0.8, rel_tol=1e-6)
    assert near.nearest(b"none", vector(1, 0)) is None


def test_the_least_recently_used_leaves_whatever_its_partition() -> None:
    near = Neighbours(2)
    near.add(b"p", vector(1, 0), known("east"))
    near.add(b"q", vector(1, 0), known("other"))
    assert near.nearest(b"p", vector(1, 0))
    near.add(b"p", vector(0, 1), known("north"))
    assert near.nearest(b"q", vector(1, 0)) is None
    assert len(near) == 2
    near.resize(1)
    found = near.nearest(b"p", vector(1, 0))
    assert found is not None
    assert found.known == known("north")


def test_the_same_key_again_takes_no_more_room() -> None:
    near = Neighbours(9)
    for _ in range(5):
        near.add(b"p", vector(1, 0), known("east"))
    near.add(b"p", vector(0, 1), known("east"))
    found = near.nearest(b"p", vector(0, 1))
    assert found is not None
    assert found.similarity == 1
    assert (len(near), near.bytes) == (1, 2 * 4 + 2 * len("east"))


def test_their_bytes_are_bounded_however_few_they_are() -> None:
    """The key of a request holds the whole conversation, of which only the last turn is short."""
    near = Neighbours(100, most_bytes=10_000)
    for i in range(10):
        near.add(b"p", vector(1, i), Known(str(i), b"%d" % i * 4000))
        assert near.bytes <= 10_000
    assert len(near) == 2
    near.add(b"p", vector(1, 0), Known("too long", b"k" * 10_000))
    assert (len(near), near.bytes) == (0, 0)


def test_rows_are_given_back() -> None:
    near = Neighbours(100)
    for i in range(64):
        near.add(b"p", vector(1, i), known(str(i)))
    for i in range(63):
        near.remove(b"p", str(i).encode())
    assert near.bytes <= 8 * 2 * 4 + 4
    found = near.nearest(b"p", vector(1, 63))
    assert found is not None
    assert found.known == known("63")


def test_vectors_of_another_length_replace_those_before() -> None:
    near = Neighbours(9)
    near.add(b"p", vector(1, 0), known("flat"))
    assert near.nearest(b"p", vector(1, 0, 0)) is None
    near.add(b"p", vector(1, 0, 0), known("deep"))
    assert len(near) == 1
    assert near.nearest(b"p", vector(1, 0)) is None


steps = st.tuples(st.sampled_from(["add", "remove", "nearest"]), st.integers(0, 1), st.integers(0, 7))


@settings(max_examples=200)
@given(st.lists(steps, max_size=60), st.integers(1, 6))
def test_it_is_as_a_list_of_all_would_be(course: list[tuple[str, int, int]], most: int) -> None:
    near, held = Neighbours(most), list[tuple[int, int]]()
    angles = [0.02 * 2**i for i in range(8)]  # no two are equally far from a third
    points = [vector(math.cos(angle), math.sin(angle)) for angle in angles]
    for what, partition, i in course:
        p, entry = bytes([partition]), (partition, i)
        if what == "nearest":
            found = near.nearest(p, points[i])
            inside = [j for q, j in held if q == partition]
            assert (found is None) == (not inside)
            if found is not None:
                best = max(inside, key=lambda j: math.cos(angles[i] - angles[j]))
                assert found.known == known(str(best))
                held.append(held.pop(held.index((partition, best))))
            continue
        if entry in held:
            held.remove(entry)
        if what == "add":
            near.add(p, points[i], known(str(i)))
            held = [*held, entry][-most:]
        else:
            near.remove(p, str(i).encode())
        assert len(near) == len(held)
