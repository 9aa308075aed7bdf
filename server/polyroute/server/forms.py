"""What a stored answer keeps of the ways in which it was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from polyroute.core.event import Whole

MOST_FORMS: Final = 2
"""Most ways to write one answer that are kept: it is given under few names, by few faces, and for few reasons."""


def form_of(whole: Whole, name: tuple[str, ...], make: Callable[[], tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """The form of that name: the one that is kept, else one that is made and kept, where there is a place for it."""
    forms = whole.forms
    if forms is None:
        return make()
    form = forms.get(name)
    if form is None:
        if len(forms) >= MOST_FORMS:
            forms.clear()
        form = forms[name] = make()
    return form
