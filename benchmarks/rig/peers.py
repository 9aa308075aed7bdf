"""How each peer is run over the one upstream; `python -m benchmarks.rig.install_peers` installs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.rig.processes import free_port
from benchmarks.rig.programs import CannotRun
from benchmarks.rig.workload import CHAT, MODEL

FOLDER: Final = Path.home() / ".cache/polyroute/benchmarks/peers"
"""Where they are installed, each in a folder of its name."""

_MOST_AT_ONCE: Final = 8192


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that serves OpenAI's API on a port, under `path`, where `model` is what requests should name."""

    command: Sequence[str]
    known_port: int = 0
    environ: Mapping[str, str] = field(default_factory=dict)
    path: str = CHAT
    model: str = MODEL
    port_file: Path | None = None

    @property
    def port(self) -> int:
        """Where it listens; `OSError` before it has said so."""
        if self.port_file is None:
            return self.known_port
        return int(self.port_file.read_text() or 0)


@dataclass(frozen=True, slots=True)
class Place:
    """What a peer is started with: where peers are installed, a folder for its files, and the upstream's port.

    `cache` is the kind of LiteLLM's cache, `local` (memory) or `disk`.
    """

    installed: Path
    folder: Path
    upstream: int
    cache: str = ""

    @property
    def url(self) -> str:
        """The upstream's."""
        return f"http://127.0.0.1:{self.upstream}"

    def program(self, peer: str, name: str) -> str:
        """A program of a peer's environment; raises `CannotRun` where it is not installed."""
        path = self.installed / peer / "bin" / name
        if not path.exists():
            raise CannotRun(f"{peer} is not installed: there is no {path} (python -m benchmarks.rig.install_peers)")
        return str(path)


def launch(peer: str, place: Place) -> Launch:
    """How the peer is started; raises `CannotRun`."""
    return _LAUNCHES[peer](place)


def _litellm(place: Place) -> Launch:
    port, path = free_port(), place.folder / "litellm.yaml"
    peer = {"model": f"openai/{MODEL}", "api_base": f"{place.url}/v1", "api_key": "none"}
    cache: dict[str, Any] = {"type": place.cache, "supported_call_types": ["acompletion", "completion"]}
    if place.cache == "disk":
        cache["disk_cache_dir"] = str(place.folder / "answers")
    settings: dict[str, Any] = {"telemetry": False}
    if place.cache:
        settings |= {"cache": True, "cache_params": cache}
    models = [{"model_name": MODEL, "litellm_params": peer}]
    path.write_text(json.dumps({"model_list": models, "litellm_settings": settings}))
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    environ["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # ours asks for no key here, either
    command = [place.program("litellm", "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    return Launch(command, port, environ)


def _worker_router(peer: str, *options: str, launch: tuple[str, ...] = ("launch",)) -> Callable[[Place], Launch]:
    """The routers over workers, which have one command line in common."""

    def launched(place: Place) -> Launch:
        port = free_port()
        command = [place.program(peer, peer), *launch, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--worker-urls", place.url, "--policy", "round_robin", "--prometheus-port", str(free_port())]
        return Launch([*command, *options], port)

    return launched


def _tensorzero(place: Place) -> Launch:
    path, port_file = place.folder / "tensorzero.toml", place.folder / "port"
    path.write_text(
        f"""
        [gateway]
        observability.enabled = false
        [models.{MODEL}]
        routing = ["upstream"]
        [models.{MODEL}.providers.upstream]
        type = "openai"
        model_name = "{MODEL}"
        api_base = "{place.url}/v1"
        api_key_location = "none"
        """
    )
    script = str(Path(__file__).with_name("tensorzero_gateway.py"))
    return Launch(
        [place.program("tensorzero", "python"), script, str(path), str(port_file)],
        environ={"RUST_LOG": "warn"},
        path=f"/openai{CHAT}",
        model=f"tensorzero::model_name::{MODEL}",
        port_file=port_file,
    )


_LAUNCHES: Final[Mapping[str, Callable[[Place], Launch]]] = {
    "litellm": _litellm,
    "sglang-router": _worker_router("sglang-router", "--log-level", "warn"),
    "smg": _worker_router(
        *("smg", "--log-level", "warn", "--max-concurrent-requests", str(_MOST_AT_ONCE)),
        *("--queue-size", str(_MOST_AT_ONCE), "--rate-limit-tokens-per-second", "1000000"),
    ),
    "tensorzero": _tensorzero,
    "vllm-router": _worker_router("vllm-router", "--log-level", "warning", launch=()),
}
