"""What was looked for once is looked for again without being worked out, for as long as nothing has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as but

from polyroute.core.backend import Facts, ModelState
from polyroute.core.call import Call, Worked
from polyroute.core.config import CacheConfig
from polyroute.core.request import CacheMode, CacheOptions, Request, Sampling
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.cache.terms import Moment

ASKED = Request("m", prompt="p", sampling=Sampling(temperature=0))


class Place:
    """A shelf, whose backend and whose invalidations are as they are set."""

    def __init__(self, **config: Any) -> None:
        self.facts = Facts(ModelState.WARM, "1")
        self.moment = Moment(1, 1, 1)
        self.shelf = Shelf("m", True, "f", CacheConfig(**config), lambda: self.facts)

    def sought(self, call: Call) -> Any:
        return self.shelf.sought(call, lambda _: self.moment)


def asks(worked: Worked, **others: Any) -> Call:
    return Call(worked.request, "r1", worked=worked, **others)


def test_equal_calls_look_for_one_thing_which_is_that_of_a_call_by_itself() -> None:
    place, worked = Place(), Worked(ASKED)
    first = place.sought(asks(worked))
    assert place.sought(asks(worked)) is first
    alone = place.sought(Call(ASKED, "r2"))
    assert alone is not first
    assert alone == first
    assert first.key.moment == place.moment
    assert first.key.canonical == place.shelf.key(Call(ASKED, "r2"), "1")


@pytest.mark.parametrize(
    "change",
    [
        lambda place: setattr(place, "facts", replace(place.facts, version="2")),
        lambda place: setattr(place, "moment", Moment(2, 1, 2)),
        lambda place: setattr(place, "shelf", replace(place.shelf, fingerprint="g", mark=object())),
    ],
)
def test_it_is_worked_out_anew_where_the_model_the_invalidations_or_the_shelf_have_changed(change: Any) -> None:
    place, worked = Place(), Worked(ASKED)
    before = place.sought(asks(worked))
    change(place)
    after = place.sought(asks(worked))
    assert after.key != before.key
    assert after == place.sought(Call(ASKED, "r2"))


def test_tenants_and_other_requests_have_keys_of_their_own() -> None:
    place, worked = Place(), Worked(ASKED)
    keys = {place.sought(asks(worked, tenant=tenant)).key.digest for tenant in ("", "one", "two", "")}
    assert len(keys) == 3
    other = but(asks(worked), request=but(ASKED, prompt="q"))
    assert place.sought(other).key.canonical == place.shelf.key(other, "1")


def test_every_shelf_has_a_mark_of_its_own() -> None:
    one, two = Place(), Place(mode="off")
    worked = Worked(ASKED)
    two.facts, two.moment = one.facts, one.moment
    assert one.sought(asks(worked)).key is not None
    assert two.sought(asks(worked)).key is None
    assert one.shelf == replace(one.shelf, mark=object())


def test_who_may_use_nothing_needs_no_moment_and_no_key() -> None:
    place = Place()
    call = asks(Worked(but(ASKED, cache=CacheOptions(CacheMode.BYPASS))))
    for _ in range(2):
        sought = place.shelf.sought(call, lambda model: pytest.fail(f"asked for the moment of {model}"))
        assert sought.key is None
        assert (sought.use.read, sought.use.write) == (False, False)
