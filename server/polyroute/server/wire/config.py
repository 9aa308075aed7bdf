"""The configuration in force, as `polyroute.v1` has it."""

from __future__ import annotations

from typing import Final

import yaml

from polyroute.core.config import Config
from polyroute.server.reload import LastReload, Reload
from polyroute.server.wire.reload import reloaded_to_wire
from polyroute.server.wire.values import timestamp
from polyroute.v1 import admin_pb2 as pb

_DUMPER: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def config_to_wire(reload: Reload, text: str) -> pb.GetConfigResponse:
    """What is in force, `text` of it, and how the last reload went."""
    return pb.GetConfigResponse(
        yaml=text,
        config_hash=reload.digest,
        file="" if reload.source is None else str(reload.source.path),
        in_force_since=timestamp(reload.since),
        last_reload=None if reload.last is None else _last(reload.last),
    )


def shown(config: Config, *, defaults: bool) -> str:
    """A configuration as YAML, its secrets as asterisks; with `defaults`, what it leaves out as well.

    Keys and `off` are spelt as in a file. Takes some milliseconds a hundred models: away from the event loop with it.
    """
    said = config.model_dump(mode="json", by_alias=True, exclude_unset=not defaults)
    text: str = yaml.dump(said, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=120)
    return text


def _last(last: LastReload) -> pb.LastReload:
    outcome = None if last.done is None else reloaded_to_wire(last.done)
    return pb.LastReload(time=timestamp(last.at), trigger=last.trigger, outcome=outcome, error=last.error)
