"""Four processes at one cache, and a fifth that is killed again and again: no crash, and never a wrong or old answer.

Ten seconds, or as many as `POLYROUTE_TEST_CACHE_S` says.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.answers_process import SINCE_BYTES

PROGRAM = Path(__file__).with_name("answers_process.py")
SECONDS = float(os.environ.get("POLYROUTE_TEST_CACHE_S", "10"))


def begin(folder: Path, seed: int, seconds: float = SECONDS) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), str(folder), str(seconds), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_processes_that_invalidate_while_others_are_killed_find_nothing_wrong_and_nothing_old(
    tmp_path: Path,
) -> None:
    (tmp_path / "since").write_bytes(bytes(SINCE_BYTES))
    workers = [begin(tmp_path, seed) for seed in range(4)]
    kills = 0
    while any(worker.poll() is None for worker in workers):
        victim = begin(tmp_path, 100 + kills, 3600)
        try:
            assert victim.stdout is not None
            assert "begun\n" in victim.stdout  # maybe after a line that says that the disk was locked
            await asyncio.sleep(0.05 * (kills % 7))
        finally:
            victim.kill()
            victim.communicate(timeout=60)
        kills += 1
    told = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    for out in told:
        counts = {key: int(value) for key, value in (part.split("=") for part in out.splitlines()[-1].split())}
        assert (counts["wrong"], counts["stale"]) == (0, 0), counts
        assert min(counts["found"], counts["kept"], counts["invalidated"]) > 0
    assert kills > 0
