"""What a front process and its home say to each other, and how it is framed.

A frame is its length (4 bytes, big-endian) and one message in MessagePack, tagged with its type, as between a router
and a model's worker. Both directions go over one socket pair; end of file means that the other side is gone. An `id` is
the front's or the home's own number of what it asks, and comes back with the answer.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from polyroute.server.fronts.messages.asked import Failed, Withdraw
from polyroute.server.fronts.messages.exposing import (
    CacheTold,
    Collect,
    Collected,
    Counts,
    Exposed,
    Scrape,
    TellCache,
)
from polyroute.server.fronts.messages.life import (
    Alive,
    Applied,
    Apply,
    Begin,
    CannotServe,
    Drain,
    Listening,
    Opened,
    Operate,
    Operated,
    Stand,
)
from polyroute.server.fronts.messages.models import (
    Count,
    Counted,
    Embed,
    Embedded,
    More,
    Run,
    RunFinished,
    RunStarted,
    RunToken,
)
from polyroute.server.fronts.messages.permits import Ask, Busy, GiveBack, Judged, Lent, Recall, Recalled

LENGTH_BYTES = 4

ToFront: TypeAlias = (
    Begin
    | Failed
    | Lent
    | Recall
    | RunStarted
    | RunToken
    | RunFinished
    | Counted
    | Embedded
    | Operated
    | Opened
    | Stand
    | Apply
    | Collect
    | Exposed
    | TellCache
    | Drain
)
ToHome: TypeAlias = (
    Ask
    | Withdraw
    | GiveBack
    | Recalled
    | Judged
    | Run
    | More
    | Count
    | Embed
    | Operate
    | Busy
    | Opened
    | Listening
    | Alive
    | CannotServe
    | Applied
    | Collected
    | Counts
    | Scrape
    | CacheTold
    | Failed
)

_encoder = msgspec.msgpack.Encoder()
to_front_decoder = msgspec.msgpack.Decoder(ToFront)
to_home_decoder = msgspec.msgpack.Decoder(ToHome)


def encode_frame(message: ToFront | ToHome) -> bytes:
    """The message with its length before it."""
    frame = bytearray(LENGTH_BYTES)
    _encoder.encode_into(message, frame, LENGTH_BYTES)
    frame[:LENGTH_BYTES] = (len(frame) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big")
    return bytes(frame)
