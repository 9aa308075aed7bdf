"""What a server takes of a machine before it is asked anything."""

import subprocess
import sys

SELDOM = {"alembic", "rapidfuzz", "redis", "numpy", "scipy", "matplotlib", "torch", "transformers", "psycopg"}
"""What only some servers use, or only some of their calls."""


def test_a_server_loads_nothing_that_only_some_use() -> None:
    program = (
        "import sys, polyroute.server.cli, polyroute.server.app\n"
        f"sys.exit(', '.join({SELDOM!r} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
