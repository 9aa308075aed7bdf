"""What weights are expected to take, by the files that are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polyroute.backends.local.machine import ledger_name, machine_bytes, visible_gpus
from polyroute.backends.local.weights import PROCESS_BYTES, UNKNOWN_BYTES, expected
from polyroute.core.config import LocalConfig


def weights(source: Path | str, environ: dict[str, str] | None = None, **options: str) -> tuple[int, bool]:
    """What is expected of the weights alone, and whether that is sure."""
    config = LocalConfig.model_validate({"id": "m", "type": "local", "source": str(source), **options})
    needs = expected(config, environ or {"HF_HOME": "/nowhere"})
    return needs.bytes - PROCESS_BYTES, needs.sure


UNKNOWN = (UNKNOWN_BYTES, False)


def written(folder: Path, **files: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in files.items():
        (folder / name.replace("__", ".")).write_bytes(b"x" * size)
    return folder


def test_a_folder_counts_its_weights_once(tmp_path: Path) -> None:
    files = {"model-1__safetensors": 100, "model-2__safetensors": 50, "consolidated__safetensors": 150}
    folder = written(tmp_path, **files, pytorch_model__bin=150, tokenizer__json=999)
    assert weights(folder) == (150, True)
    assert weights(folder, dtype="float32") == (300, False)
    assert weights(folder, quantization="int8") == (150, False)


def test_older_weights_count_where_there_are_no_others(tmp_path: Path) -> None:
    assert weights(written(tmp_path, pytorch_model__bin=70)) == (70, True)


def test_a_packed_file_grows(tmp_path: Path) -> None:
    assert weights(written(tmp_path, m__gguf=10) / "m.gguf") == (40, False)
    assert weights(tmp_path / "nowhere.gguf") == UNKNOWN


def test_the_hub_cache_is_looked_into(tmp_path: Path) -> None:
    snapshots = tmp_path / "hub" / "models--org--name" / "snapshots"
    os.utime(written(snapshots / "old", model__safetensors=1), (1, 1))
    written(snapshots / "new", model__safetensors=2)
    home = {"HF_HOME": str(tmp_path)}
    assert weights("org/name", home) == (2, True)
    assert weights("org/name", home, revision="old") == (1, True)
    assert weights("org/name", {"HF_HUB_CACHE": str(tmp_path / "hub")}) == (2, True)
    assert weights("org/other", home) == UNKNOWN


def test_a_folder_without_weights_tells_nothing(tmp_path: Path) -> None:
    assert weights(tmp_path) == UNKNOWN


def test_keys_and_values_are_as_configured(tmp_path: Path) -> None:
    config = LocalConfig.model_validate({"id": "m", "type": "local", "kv_cache_memory": "16MiB"})
    assert expected(config, {"HF_HOME": str(tmp_path)}).kv_bytes == 1 << 24


def test_the_machine_has_no_more_than_its_container(tmp_path: Path) -> None:
    whole = machine_bytes(tmp_path)
    assert whole > 0
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_bytes(tmp_path) == whole
    (tmp_path / "memory.max").write_text("1000\n")
    assert machine_bytes(tmp_path) == 1000


@pytest.mark.parametrize(
    ("chosen", "count"), [("0,1", 2), ("", 0), ("-1", 0), ("2,-1,3", 1), ("GPU-1234", 1), (None, 3)]
)
def test_gpus_are_those_that_a_worker_will_see(tmp_path: Path, chosen: str | None, count: int) -> None:
    written(tmp_path, nvidia0=0, nvidia1=0, nvidia2=0, nvidiactl=0)
    written(tmp_path / "nvidia-caps")
    assert visible_gpus({} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}, tmp_path) == count


def test_devices_are_counted_under_one_name() -> None:
    assert [ledger_name(device) for device in ("cuda", "cuda:1", "mps", "cpu")] == ["cuda:0", "cuda:1", "cpu", "cpu"]
