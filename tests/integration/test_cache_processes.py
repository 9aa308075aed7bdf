"""Several processes share one cache folder; any of them may be killed, forbidden to write, or out of disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.tier import Entry
from tests.integration.cache_process import LABEL

PROGRAM = Path(__file__).with_name("cache_process.py")
ENDLESS = 10_000_000


def begin(folder: Path, task: str = "work", count: int = 100) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder), task, str(count)], stdout=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> dict[str, int]:
    """What the process counted; it must end by itself and well."""
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return {key: int(value) for key, _, value in (part.partition("=") for part in out.splitlines()[-1].split())}


async def whole_or_absent(folder: Path) -> int:
    """Opens the folder as the next process would; how many answers it finds, each of them whole."""
    store = GuardedTier(DiskTier(folder, 1 << 30, get_s=60, put_s=60))
    found = 0
    for number in range(50):
        value = await store.get(f"k{number}")
        expected = f"answer {number} ".encode() * (10_000 if number % 3 == 0 else 20)
        assert value in (None, expected)
        found += value is not None
    assert store.counts.errors == 0
    assert await store.put([Entry("after", b"v", LABEL, None)])
    await store.close()
    return found


async def test_processes_share_a_folder(tmp_path: Path) -> None:
    counts = [end(process) for process in [begin(tmp_path) for _ in range(3)]]
    assert [count["wrong"] for count in counts] == [0, 0, 0]
    assert all(count["kept"] > 0 and count["found"] > 0 for count in counts)
    assert await whole_or_absent(tmp_path) == 50


async def test_what_a_killed_process_left_is_whole(tmp_path: Path) -> None:
    for round_ in range(3):
        process = begin(tmp_path, count=ENDLESS)
        assert process.stdout is not None
        with closing(process.stdout):
            assert process.stdout.readline() == "begun\n"
            await asyncio.sleep(0.05 * round_)
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=60) == -signal.SIGKILL
        assert await whole_or_absent(tmp_path) > 0


async def test_a_survivor_is_not_held_up_by_a_killed_one(tmp_path: Path) -> None:
    victim = begin(tmp_path, count=ENDLESS)
    assert victim.stdout is not None
    with closing(victim.stdout):
        assert victim.stdout.readline() == "begun\n"
        survivor = begin(tmp_path, count=200)
        victim.kill()
        victim.wait(timeout=60)
    counted = end(survivor)
    assert counted["wrong"] == 0
    assert counted["kept"] > 0


async def test_a_full_disk_is_a_miss(tmp_path: Path) -> None:
    """No file may grow: what a full disk does, for this process alone."""
    end(begin(tmp_path, count=10))
    counted = end(begin(tmp_path, "full", 20))
    assert (counted["kept"], counted["wrong"]) == (0, 0)
    assert counted["errors"] > 0


async def test_an_empty_folder_on_a_full_disk_is_a_miss(tmp_path: Path) -> None:
    counted = end(begin(tmp_path / "new", "full", 20))
    assert (counted["kept"], counted["found"], counted["wrong"]) == (0, 0, 0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone else")
@pytest.mark.parametrize("filled", [True, False])
async def test_a_folder_that_one_may_not_write_to_is_a_miss(open_folder: Path, filled: bool) -> None:
    if filled:
        end(begin(open_folder, count=10))
    counted = end(begin(open_folder, "unprivileged", 20))
    assert (counted["kept"], counted["wrong"]) == (0, 0)
    assert counted["errors"] > 0
