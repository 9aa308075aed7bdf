"""Memory for keys and values is a share of what is really free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from polyroute.backends.local.worker import spare

CPU = torch.device("cpu")
GIB = 1 << 30


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(spare, "_CGROUP", tmp_path)
    monkeypatch.setattr(spare, "_machine", lambda: 16 * GIB)
    return tmp_path


def limit(group: Path, most: str, current: int = 0) -> None:
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{current}\n")


def test_a_quarter_of_what_the_machine_has(group: Path) -> None:
    assert spare.spare_bytes(CPU) == 4 * GIB
    limit(group, "max", 3 * GIB)
    assert spare.spare_bytes(CPU) == 4 * GIB


def test_a_quarter_of_what_the_container_has_left(group: Path) -> None:
    limit(group, str(10 * GIB), 2 * GIB)
    assert spare.spare_bytes(CPU) == 2 * GIB
    limit(group, str(100 * GIB), 2 * GIB)
    assert spare.spare_bytes(CPU) == 4 * GIB


def test_a_little_in_any_case(group: Path) -> None:
    limit(group, str(2 * GIB), 2 * GIB)
    assert spare.spare_bytes(CPU) == 1 << 26


def test_a_limit_that_cannot_be_read_is_none(group: Path) -> None:
    limit(group, "nonsense")
    assert spare.spare_bytes(CPU) == 4 * GIB


def test_a_gpu_gives_most_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * GIB, 80 * GIB))
    assert spare.spare_bytes(torch.device("cuda")) == int(8.5 * GIB)
