"""The backend of a model that this server runs itself: a Service over a worker process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from polyroute.backends.local.answers import Answers
from polyroute.backends.local.claims import Footprint
from polyroute.backends.local.cores import Cores
from polyroute.backends.local.deadline import in_time
from polyroute.backends.local.engine_spans import EngineSpans
from polyroute.backends.local.messages import (
    Cancel,
    Count,
    Input,
    Load,
    Pause,
    Resume,
    Submit,
    ToolSpec,
    encode_frame,
)
from polyroute.backends.local.supervisor import Supervisor
from polyroute.core.backend import BackendStatus, Facts, ReplicaStatus, TokenCount
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig, ModelConfig
from polyroute.core.errors import Draining, InvalidArgument, Unsupported
from polyroute.core.event import Event, Finished, Route, Started, Usage
from polyroute.core.request import Request


class LocalBackend:
    """Runs one model in one worker process; see `polyroute.core.backend.Backend`.

    It is loaded by `load`, and by nothing else; `WarmPool` decides when. `replica` is its name. `cache_dir` is where
    prepared weights are kept. `cores` are those that it shares with other workers; without, it has all to itself.
    `device` stands in for the configuration's, and `kv_cache_most` bounds the memory for keys and values, in bytes,
    where that one does not size it. `on_restart` and `on_change` are as of `Supervisor`.
    """

    def __init__(
        self,
        config: LocalConfig,
        *,
        cache_dir: Path,
        replica: str = "",
        device: str = "",
        kv_cache_most: int | None = None,
        cores: Cores | None = None,
        on_restart: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._replica = replica or f"{config.id}#0"
        self._answers = Answers(config.id, self._busy)
        self._supervisor = Supervisor(
            Load(
                model=config.id,
                source=config.effective_source,
                revision=config.revision,
                device=device or config.device,
                dtype=config.dtype,
                trust_remote_code=config.trust_remote_code,
                cache_dir=str(cache_dir),
                quantization=config.quantization,
                max_sequences=config.max_sequences,
                max_batch_tokens=config.max_batch_tokens,
                kv_cache_bytes=None if config.kv_cache_memory is None else int(config.kv_cache_memory),
                kv_cache_most=kv_cache_most,
                cuda_graphs=config.cuda_graphs,
            ),
            cores=cores or Cores(),
            receive=self._answers.receive,
            abandon=self._answers.abandon,
            on_restart=on_restart,
            on_change=on_change,
        )
        self._stopped = False

    def __repr__(self) -> str:
        return f"<LocalBackend {self._replica} {self.facts().state.name}>"

    async def start(self) -> None:
        """Nothing to begin: `load` loads the model."""

    async def load(self) -> None:
        """Returns once the model is warm; raises `ModelFailed`, or `Draining` after `stop`."""
        self._refuse_if_stopped()
        self._supervisor.begin()
        await self._supervisor.settled()

    async def stop(self) -> None:
        """Ends answers and worker at once."""
        self._stopped = True
        self._answers.abandon(self._stopping)
        await self._supervisor.end()

    def adopt(self, config: ModelConfig) -> None:
        """Takes on the version; everything else is its pool's."""
        if isinstance(config, LocalConfig):
            self._config = config

    async def stream(self, call: Call) -> AsyncIterator[Event]:
        """Answers a call; closing the stream takes the sequence out of the worker within one of its steps."""
        source = _input(call.request)
        self._refuse_if_stopped()
        worker, _ = self._supervisor.require()
        id = self._answers.new_id()
        frame = _encode(Submit(id, source, call.request.sampling, call.request.stop, call.request.response_format))
        inbox = self._answers.open(id, lambda full: worker.send(Pause(id) if full else Resume(id)))
        worker.send_frame(frame)
        kept = None if call.trace.span is None else EngineSpans(call.trace.span)
        try:
            started = False
            while True:
                await in_time(call, inbox.wait(), "while the model was answering")
                if inbox.error is not None:
                    raise inbox.error
                finish, token = inbox.finish, inbox.take()
                if kept is not None:
                    kept.saw(inbox.begun)
                if not started and (token.text or token.logprobs or finish is not None):
                    started = True
                    yield Started(self._route())
                if token.text or token.logprobs:
                    yield token
                if finish is not None:
                    yield Finished(
                        finish.reason,
                        Usage(finish.prompt_tokens, finish.completion_tokens, finish.cached_prompt_tokens),
                        matched_stop=finish.matched_stop,
                        seed=finish.seed,
                    )
                    return
        finally:
            if self._answers.close(id):
                worker.send(Cancel(id))
            if kept is not None:
                kept.end(inbox.completion_tokens, inbox.error)

    async def count_tokens(self, call: Call) -> TokenCount:
        """Counts with the model's own tokenizer and chat template; raises what `stream` raises."""
        source = _input(call.request)
        self._refuse_if_stopped()
        worker, ready = self._supervisor.require()
        id = self._answers.new_id()
        frame = _encode(Count(id, source))
        count = self._answers.open_count(id)
        worker.send_frame(frame)
        return TokenCount(await in_time(call, count, "while the model was answering"), ready.context_length)

    def facts(self) -> Facts:
        """How it is now."""
        ready = self._supervisor.ready
        return Facts(
            state=self._supervisor.state,
            version=self._version(),
            greedy_default=ready.greedy_default if ready else False,
            max_sequences=ready.max_sequences if ready else 0,
            ready_since=self._supervisor.ready_since if ready else 0.0,
        )

    def status(self) -> BackendStatus:
        """How it is now."""
        facts, ready, detail = self.facts(), self._supervisor.ready, self._supervisor.detail
        replica = ReplicaStatus(
            self._replica,
            facts.state,
            detail,
            self._answers.held,
            facts.version,
            engine=self._supervisor.engine,
        )
        return BackendStatus(
            state=facts.state,
            detail=detail,
            version=facts.version,
            context_length=ready.context_length if ready else 0,
            chat=ready.chat if ready else True,
            greedy_default=facts.greedy_default,
            ready_since=facts.ready_since,
            max_sequences=facts.max_sequences,
            defaults=ready.defaults if ready else None,
            replicas=(replica,),
        )

    @property
    def progressed_at(self) -> float:
        """When its load last got on, on the clock of `time.monotonic`."""
        return self._supervisor.progressed_at

    @property
    def footprint(self) -> Footprint | None:
        """The memory that it takes, as its worker has measured; None until it is warm."""
        ready = self._supervisor.ready
        if ready is None:
            return None
        return Footprint(ready.device, ready.memory_bytes, ready.kv_cache_bytes, ready.device_bytes)

    def _version(self) -> str:
        return self._config.version or self._supervisor.version

    def _route(self) -> Route:
        return Route(model=self._config.id, version=self._version(), replica=self._replica)

    def _busy(self, busy: bool) -> None:
        seat, ready = self._supervisor.seat, self._supervisor.ready
        if not busy:
            seat.release("answers")
        elif ready is not None and ready.device == "cpu":
            seat.claim("answers")

    def _refuse_if_stopped(self) -> None:
        if self._stopped:
            raise self._stopping()

    def _stopping(self) -> Draining:
        return Draining(f"`{self._config.id}` is being stopped")


def _input(request: Request) -> Input:
    """What the worker is to read; raises `Unsupported` for what no local model can do."""
    if request.extra:
        raise Unsupported(f"extra.{min(request.extra)}", "local models do not take it; only OpenAI-compatible peers do")
    if request.tool_choice not in ("", "auto", "none"):
        raise Unsupported("tool_choice", f"local models know auto and none, not `{request.tool_choice}`")
    tools = () if request.tool_choice == "none" else request.tools
    if tools and request.messages is None:
        raise Unsupported("tools", "they are part of a conversation; send messages instead of a prompt")
    return Input(
        prompt=request.prompt,
        messages=request.messages,
        tools=tuple(ToolSpec(t.name, t.description, dict(t.parameters)) for t in tools),
    )


def _encode(message: Submit | Count) -> bytes:
    try:
        return encode_frame(message)
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidArgument("tools", f"cannot be passed on: {error}") from error
