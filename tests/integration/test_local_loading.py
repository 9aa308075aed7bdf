"""Models that cannot be loaded: one line that says why, and a router that goes on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from polyroute.backends.local.backend import LocalBackend
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig
from polyroute.core.errors import ModelFailed
from polyroute.core.request import Request
from tests.integration.worker_processes import workers

WAIT_S = 90.0


async def failure(source: str, cache_dir: Path, **options: object) -> str:
    config = LocalConfig.model_validate({"id": "broken", "type": "local", "source": source} | options)
    backend = LocalBackend(config, cache_dir=cache_dir)
    try:
        with pytest.raises(ModelFailed) as caught:
            await asyncio.wait_for(backend.load(), WAIT_S)
        assert backend.status().state is ModelState.FAILED
        assert backend.status().detail in caught.value.message
        with pytest.raises(ModelFailed) as again:  # a call is told the same
            await anext(backend.stream(Call(Request(prompt="a"), "r")))
        assert again.value.message == caught.value.message
        assert "\n" not in caught.value.message
        return caught.value.message
    finally:
        await backend.stop()


def changed(folder: Path, into: Path) -> Path:
    shutil.copytree(folder, into)
    return into


async def test_damaged_weights(tiny_llama: Path, tmp_path: Path) -> None:
    folder = changed(tiny_llama, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert "weights are damaged" in await failure(str(folder), tmp_path)


async def test_missing_weights(tiny_llama: Path, tmp_path: Path) -> None:
    folder = changed(tiny_llama, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    message = await failure(str(folder), tmp_path)
    assert str(folder) in message
    assert "model.safetensors" in message


async def test_weights_that_lack_a_tensor(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = changed(tiny_llama, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lack 1 tensors, model.layers.1.mlp.up_proj.weight" in await failure(str(folder), tmp_path)


async def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    assert "no config.json" in await failure(str(tmp_path), tmp_path)


async def test_a_model_of_no_known_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-kind"}))
    assert "no-such-kind" in await failure(str(tmp_path), tmp_path)


async def test_paths_that_are_not_there(tmp_path: Path) -> None:
    assert "there is no folder" in await failure(str(tmp_path / "nowhere"), tmp_path)
    assert "there is no file" in await failure(str(tmp_path / "nowhere.gguf"), tmp_path)


async def test_a_device_that_is_not_there(tiny_llama: Path, tmp_path: Path) -> None:
    assert "no device `cuda:99`" in await failure(str(tiny_llama), tmp_path, device="cuda:99")


async def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        message = await failure("meta-llama/Llama-3.1-8B-Instruct", tmp_path)
    assert "`meta-llama/Llama-3.1-8B-Instruct`" in message
    for remedy in ("cannot be reached", "HF_TOKEN", "local path", "--demo"):
        assert remedy in message


async def test_other_numbers_are_another_version(tiny_llama: Path, tmp_path: Path) -> None:
    asked: dict[str, dict[str, str]] = {
        "auto": {},
        "float32": {"dtype": "float32"},
        "bfloat16": {"dtype": "bfloat16"},
        "int8": {"quantization": "int8"},
    }
    versions = {}
    for name, options in asked.items():
        config = LocalConfig.model_validate(
            {"id": "tiny", "type": "local", "source": str(tiny_llama), "device": "cpu", **options}
        )
        backend = LocalBackend(config, cache_dir=tmp_path)
        try:
            await asyncio.wait_for(backend.load(), WAIT_S)
            versions[name] = backend.status().version
            assert ("int8" in backend.status().detail) == (name == "int8")
        finally:
            await backend.stop()
    assert versions["auto"] == versions["float32"]  # the checkpoint's own
    assert versions["bfloat16"] == f"{versions['auto']}-bfloat16"
    assert versions["int8"] == f"{versions['auto']}-int8"


async def test_a_worker_ends_with_its_router(tiny_llama: Path, tmp_path: Path) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from polyroute.backends.local.backend import LocalBackend
from polyroute.core.config import LocalConfig
async def main():
    config = LocalConfig(id="tiny", type="local", source={str(tiny_llama)!r})
    backend = LocalBackend(config, cache_dir=Path({str(tmp_path)!r}))
    await backend.load()
    print(backend.status().detail, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    router = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_S
    )
    last = router.stdout.strip().splitlines()[-1]
    pid = int(last.split(",")[0].removeprefix("pid "))
    async with asyncio.timeout(WAIT_S):
        while running(pid):  # noqa: ASYNC110 - nobody tells when a process of another one ends
            await asyncio.sleep(0.05)
    assert router.returncode == -signal.SIGKILL


def running(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for (state Z) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_worker_that_dies_while_it_loads(tiny_llama: Path, tmp_path: Path) -> None:
    config = LocalConfig.model_validate({"id": "tiny", "type": "local", "source": str(tiny_llama)})
    backend = LocalBackend(config, cache_dir=tmp_path)
    try:
        loading = asyncio.create_task(backend.load())
        async with asyncio.timeout(WAIT_S):
            while not (children := workers()):  # noqa: ASYNC110 - what is watched is another process
                await asyncio.sleep(0.01)
        for child in children:
            os.kill(child, signal.SIGKILL)
        with pytest.raises(ModelFailed, match=r"ended while it loaded \(SIGKILL"):
            await asyncio.wait_for(loading, WAIT_S)
        assert backend.status().state is ModelState.FAILED
    finally:
        await backend.stop()
