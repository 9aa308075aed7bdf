"""TensorZero's gateway as its Python package has it: `python tensorzero_gateway.py CONFIG_FILE PORT_FILE`.

Run by the interpreter of its own environment. It chooses its port, which is then written to `PORT_FILE`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tensorzero.tensorzero import _start_http_gateway

if __name__ == "__main__":
    config, port_file = sys.argv[1:]
    gateway = _start_http_gateway(
        config_file=config, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
    )
    Path(port_file).write_text(str(urlsplit(gateway.base_url).port))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    gateway.close()
