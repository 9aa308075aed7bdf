"""Stop strings: nothing of one is ever shown, wherever the text is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from polyroute.backends.local.worker.stops import StopScan


def scan(stops: list[str], pieces: list[str]) -> tuple[list[str], str | None]:
    """The shown pieces and the stop string found."""
    scanner, shown = StopScan(stops), []
    for piece in pieces:
        shown.append(scanner.feed(piece))
        if scanner.found is not None:
            return shown, scanner.found
    shown.append(scanner.flush())
    return shown, None


def first_complete(stops: list[str], text: str) -> tuple[str, str | None]:
    """By brute force: the text before the stop string that is complete first, and that stop string."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def test_a_stop_string_across_pieces_is_found_and_not_shown() -> None:
    assert scan(["\nUser:"], ["Hello", "\n", "Us", "er", ": more"]) == (["Hello", "", "", "", ""], "\nUser:")


def test_what_only_looked_like_a_stop_string_is_shown_after_all() -> None:
    assert scan(["STOP"], ["a S", "TO", "L", "S"]) == (["a ", "", "STOL", "", "S"], None)


def test_no_stop_strings_hold_nothing_back() -> None:
    assert scan([], ["a", "b"]) == (["a", "b", ""], None)


def test_of_several_the_one_complete_first_wins_and_of_those_the_longest() -> None:
    assert scan(["abc", "b"], ["xabc"]) == (["xa"], "b")
    assert scan(["b", "ab"], ["xab"]) == (["x"], "ab")


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=4),
    st.lists(st.text("abc", max_size=3), max_size=12),
)
def test_any_cutting_of_the_text_gives_what_brute_force_gives(stops: list[str], pieces: list[str]) -> None:
    shown, found = scan(stops, pieces)
    assert ("".join(shown), found) == first_complete(stops, "".join(pieces))


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.text("abc", max_size=3), max_size=12),
)
def test_what_is_held_back_may_still_become_a_stop_string(stops: list[str], pieces: list[str]) -> None:
    scanner, shown, fed = StopScan(stops), "", ""
    for piece in pieces:
        shown, fed = shown + scanner.feed(piece), fed + piece
        if scanner.found is not None:
            return
        held = fed[len(shown) :]
        assert not held or any(stop.startswith(held) for stop in stops)
