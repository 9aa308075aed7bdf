"""What the page on rollouts has readers try is run as it stands: a version that fails turns back, and is mended."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from polyroute.client.admin import AdminClient
from polyroute.client.enums import RolloutState
from polyroute.client.operations import Rollout
from tests.e2e.running import BIN, ROOT, Running, run, serving

PAGE = (ROOT / "docs" / "rollouts.md").read_text()
TRIED = PAGE[PAGE.index("## Try it") : PAGE.index("## In the file")]
(FILE,) = re.findall(r"^```yaml\n(.*?)^```", TRIED, flags=re.DOTALL | re.MULTILINE)
FAILS, MENDED = re.findall(r"^```bash\n(.*?)^```", TRIED, flags=re.DOTALL | re.MULTILINE)


def shell(script: str, server: Running, folder: Path) -> str:
    """What a block of commands prints, each by the `polyroute` of this environment; all but failing calls succeed."""
    environ = {"POLYROUTE_GRPC_ADDRESS": server.grpc, "POLYROUTE_ADMIN_ADDRESS": server.admin}
    script = script.replace("polyroute ", f"{BIN}/polyroute ").replace("models.yaml", str(folder / "models.yaml"))
    done = run(["bash", "-c", script], environ=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def state(server: Running) -> tuple[RolloutState, float]:
    async def asked() -> Rollout:
        async with AdminClient(server.admin) as admin:
            return await admin.rollout("chat", timeout=60)

    found = asyncio.run(asked())
    return found.state, found.weight


@pytest.mark.demo
@pytest.mark.timeout(600)
def test_the_page_on_rollouts_can_be_followed(tmp_path: Path, demo_cache: Path) -> None:
    (tmp_path / "models.yaml").write_text(FILE)
    environ = {"POLYROUTE_CACHE_DIR": str(demo_cache), "POLYROUTE_STATE_URL": f"sqlite:///{tmp_path / 'state.db'}"}
    with serving(tmp_path, "--config", str(tmp_path / "models.yaml"), "--no-watch", environ=environ) as server:
        server.wait_ready()
        server.wait(lambda: state(server) == (RolloutState.RUNNING, 0.5), "the rollout began")
        printed = shell(FAILS, server, tmp_path)
        assert printed.startswith("chat: stable -> next: running, step 1 of 2, 50.0% of traffic")
        assert "calls in a row failed, while the old version answered" in printed
        assert state(server) == (RolloutState.ROLLED_BACK, 0.0)
        first, _, rest = MENDED.partition("polyroute rollout pause")
        shell(first, server, tmp_path)
        server.wait(lambda: state(server) == (RolloutState.RUNNING, 0.5), "it began anew")
        printed = shell("polyroute rollout pause" + rest, server, tmp_path)
        assert "paused, step 1: let me look (operator)" in printed
        assert "promoted" in printed
        assert state(server) == (RolloutState.PROMOTED, 1.0)
