"""The registry benchmark: a whole run at two small sizes."""

from __future__ import annotations

import json

import pytest
from benchmarks.registry.__main__ import main, table
from benchmarks.registry.measure import ROWS, Figures


def test_a_run_has_every_figure_at_every_size(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--models", "4", "20", "--calls", "100", "--json"])
    columns = [Figures(**column) for column in json.loads(capsys.readouterr().out)]
    assert [(column.models, column.routes) for column in columns] == [(4, 1), (20, 2)]
    assert all(getattr(column, name) > 0 for column in columns for name in ROWS)
    assert len(table(columns).splitlines()) == 2 + len(ROWS)
