"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine is decides no test.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

# Ctrl-C is tested in processes that inherit this; a shell that starts the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama with random weights, a byte-level tokenizer and a chat template; context 512."""
    from tests.tiny import save  # torch, for those tests only that need it

    return save("llama", tmp_path_factory.mktemp("tiny") / "llama")
