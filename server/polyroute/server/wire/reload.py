"""What a reload did, as `polyroute.v1` has it."""

from __future__ import annotations

from polyroute.server.reload import Reloaded
from polyroute.v1 import admin_pb2 as pb


def reloaded_to_wire(done: Reloaded) -> pb.ReloadResponse:
    """The message of a reload or a check."""
    return pb.ReloadResponse(
        config_hash=done.digest,
        changed=done.changed,
        added=done.changes.added,
        removed=done.changes.removed,
        rebuilt=done.changes.rebuilt,
        adjusted=done.changes.adjusted,
        needs_restart=done.needs_restart,
        problems=[pb.ConfigProblem(file=p.file, line=p.line, path=p.path, message=p.message) for p in done.problems],
    )
