"""What the router and a worker process say to each other, and how it is framed.

A frame is its length (4 bytes, big-endian) and one message in MessagePack, tagged with its type. Both directions go
over one socket pair; end of file means that the other side is gone.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from polyroute.core.backend import EngineStatus
from polyroute.core.event import FinishReason, TokenLogprob
from polyroute.core.request import Message, ResponseFormat, Sampling

LENGTH_BYTES = 4


class Load(msgspec.Struct, frozen=True, tag="load"):
    """The first message to a worker: which model to load, and how; fields as in `core.config.LocalConfig`, and with how
    many threads. `kv_cache_most` bounds what the worker chooses where `kv_cache_bytes` is None."""

    model: str
    source: str
    revision: str | None
    device: str
    dtype: str
    trust_remote_code: bool
    cache_dir: str
    quantization: str | None = None
    max_sequences: int | None = None
    max_batch_tokens: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_most: int | None = None
    threads: int = 1
    cuda_graphs: bool = True


class LoadEmbedder(msgspec.Struct, frozen=True, tag="load_embedder"):
    """The first message to the worker of an embedding model: a folder, a hub ID, or `minilm` for the packaged one."""

    source: str


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Turn a text into a vector; answered by `Embedded`."""

    id: int
    text: str


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool for the chat template; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]


class Input(msgspec.Struct, frozen=True):
    """What a model is given: exactly one of `prompt` and `messages`."""

    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    tools: tuple[ToolSpec, ...] = ()


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Generate one answer, known from now on by `id`."""

    id: int
    input: Input
    sampling: Sampling
    stop: tuple[str, ...]
    response_format: ResponseFormat | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody reads answer `id` any more. Answered by `Dropped`, unless the answer has ended meanwhile."""

    id: int


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """The reader of answer `id` is behind: leave it out of steps. Nothing where it has ended."""

    id: int


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    """The reader of answer `id` has caught up. Nothing where it is not paused."""

    id: int


class Threads(msgspec.Struct, frozen=True, tag="threads"):
    """From now on, step with this many threads."""

    number: int


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Count the tokens of an input; answered by `Counted` or `Rejected`."""

    id: int
    input: Input


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End the process."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far a load is: `done` of `total` in the unit of the stage; `total` is 0 when not known."""

    stage: str
    done: int = 0
    total: int = 0


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The model has answered a real forward pass. `context_length` is in tokens, 0 when the model has no limit.

    The rest says what the engine has chosen: `weights` in words, `path` as in `Engine.path`, with the reason where it
    is the slow one, `graphs`, `why_eager`, `kernels` and `why_plain` as those of `Engine`, and in `kv_cache_tokens` how
    long a sequence may get that has the KV memory for itself. `memory_bytes` is what the process holds of its device
    without any keys and values, 0 when not known; `kv_cache_bytes` what these may add, and `device_bytes` the memory
    that the device has, 0 for the machine's own. `defaults` is what the model does where a request leaves it open.
    """

    version: str
    context_length: int
    chat: bool
    greedy_default: bool
    device: str
    dtype: str
    max_sequences: int = 0
    weights: str = ""
    path: str = ""
    why_apart: str = ""
    kv_cache_tokens: int = 0
    memory_bytes: int = 0
    kv_cache_bytes: int = 0
    device_bytes: int = 0
    graphs: bool = False
    why_eager: str = ""
    defaults: Sampling = Sampling()
    kernels: bool = False
    why_plain: str = ""


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """The model cannot be loaded: why, and what to do, in one line. The process ends after it."""

    message: str


class EmbedderReady(msgspec.Struct, frozen=True, tag="embedder_ready"):
    """An embedding model has made a vector, of so many dimensions."""

    dimensions: int


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    """The vector of a text, as 32-bit floats; or why there is none, in words that do not quote it."""

    id: int
    vector: bytes = b""
    why_not: str = ""


class Finish(msgspec.Struct, frozen=True):
    """How an answer ended. `seed` is the one that it was sampled with, None when it was greedy and none was given;
    `cached_prompt_tokens`, those of the prompt that were not computed again."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    matched_stop: str | None = None
    seed: int | None = None
    cached_prompt_tokens: int = 0


class Begun(msgspec.Struct, frozen=True):
    """How an answer began: its prompt's tokens, those of them that were not computed again, how long it waited for its
    turn, and how long the prompt was read until there was a first token, both in seconds."""

    prompt_tokens: int
    cached_prompt_tokens: int
    waited_s: float
    read_s: float


class Output(msgspec.Struct, frozen=True):
    """What one step added to one answer, which has `completion_tokens` now. `begun` comes with the first one."""

    id: int
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    completion_tokens: int = 0
    begun: Begun | None = None


class Step(msgspec.Struct, frozen=True, tag="step"):
    """What one step of the engine added to all answers."""

    outputs: tuple[Output, ...]


class Report(msgspec.Struct, frozen=True, tag="report"):
    """How the engine is; comes every half second while it has anything new to tell, beside whatever else is sent."""

    engine: EngineStatus


class Eager(msgspec.Struct, frozen=True, tag="eager"):
    """The engine no longer records and plays its steps, for the reason `why`; answers go on, more slowly."""

    why: str


class Rejected(msgspec.Struct, frozen=True, tag="rejected"):
    """Answer or count `id` has ended with an error; `field` is a path in the request, where one is at fault.

    `quoted` is the part of the message that may hold a part of the request.
    """

    id: int
    kind: Literal["too_long", "invalid", "unsupported", "out_of_memory", "failed"]
    field: str
    message: str
    quoted: str = ""


class Dropped(msgspec.Struct, frozen=True, tag="dropped"):
    """Answer `id` was cancelled after `completion_tokens`; nothing more comes of it, and its memory is free."""

    id: int
    completion_tokens: int


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """Tokens of an input."""

    id: int
    tokens: int


ToWorker: TypeAlias = Load | LoadEmbedder | Submit | Cancel | Pause | Resume | Threads | Count | Embed | Stop
FromWorker: TypeAlias = (
    Progress | Ready | EmbedderReady | LoadFailed | Step | Report | Eager | Rejected | Dropped | Counted | Embedded
)

_encoder = msgspec.msgpack.Encoder()
to_worker_decoder = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder = msgspec.msgpack.Decoder(FromWorker)


def encode_frame(message: ToWorker | FromWorker) -> bytes:
    """The message with its length before it."""
    frame = bytearray(LENGTH_BYTES)
    _encoder.encode_into(message, frame, LENGTH_BYTES)
    frame[:LENGTH_BYTES] = (len(frame) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big")
    return bytes(frame)
