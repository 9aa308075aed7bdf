"""What a call asks the cache."""

from __future__ import annotations

import msgspec

from polyroute.core.call import Call
from polyroute.routing.cache.eligibility import Use
from polyroute.routing.cache.terms import AnswerKey


class Question(msgspec.Struct, frozen=True, gc=False):
    """A call that may use the cache, and what its answer is found under while the model is of that version."""

    call: Call
    use: Use
    version: str
    key: AnswerKey
