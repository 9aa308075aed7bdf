"""Reads a `models.yaml`: every problem it has, each with its file, line and path in the YAML."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from polyroute.core.config import CacheConfig, Config, RemoteConfig, RouteConfig, SecretFile
from polyroute.core.secret import SecretUnreadable, read_secret

LATER = {
    "auth": (),
    "tls": (),
}
"""Keys that are planned but that this version does not serve; refused by name rather than ignored."""

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "timestamp", "binary")}
_SECRETS = ("api_key", "headers")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, several times as fast, where PyYAML has it."""

_ABSENT = object()

Loc: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the file; `line` counts from 1, `path` is such as `models[0].base_url`."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class ConfigError(Exception):
    """The file cannot be used; `problems` holds everything wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def read_config(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in the file at `path`, with each `${NAME}` taken from `environ`; raises `ConfigError`.

    The files that it names for secrets must be there and hold one.
    """
    return usable_config(read_content(path), str(path), environ)


def read_content(path: Path) -> bytes:
    """What stands in the file at `path`, cut a byte beyond the largest size that is read; raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([Problem(str(path), 1, "", f"cannot be read: {error.strerror}")]) from error


def usable_config(content: bytes, file: str, environ: Mapping[str, str]) -> Config:
    """The configuration that a whole file holds, its secrets' files looked at; `file` is its name in problems.

    Raises `ConfigError`.
    """
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([Problem(file, 1, "", f"the file is larger than {MAX_FILE_BYTES} bytes")])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(file, 1, "", "cannot be read: the file is not UTF-8")]) from error
    return _parse(text, file, environ, secrets=True)


def parse_config(text: str, file: str, environ: Mapping[str, str]) -> Config:
    """The configuration that `text` holds; `file` is its name in problems. Raises `ConfigError`."""
    return _parse(text, file, environ, secrets=False)


def _parse(text: str, file: str, environ: Mapping[str, str], *, secrets: bool) -> Config:
    # Nodes are many and refer to each other in no circle: going through all of them again and again while they are made
    # would take two thirds of the time, and hold up whatever else the process does.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _read(text, file, environ, secrets=secrets)
    finally:
        if collecting:
            gc.enable()


def _read(text: str, file: str, environ: Mapping[str, str], *, secrets: bool) -> Config:
    document = _Document(file, environ)
    try:
        if _too_deep(text):
            raise ConfigError([Problem(file, 1, "", "is nested too deeply")])
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        message = getattr(error, "problem", None) or str(error)
        raise ConfigError([Problem(file, mark.line + 1 if mark else 1, "", f"is not YAML: {message}")]) from error
    if node is None:
        raise ConfigError([Problem(file, 1, "", "the file is empty; it needs at least `models:`")])
    tree = document.plain(node, (), frozenset())
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        errors = error.errors()
        bad = {e["loc"][:n] for e in errors for n in range(len(e["loc"]))}
        # A list whose only entry is wrong is reported as too short as well: that second report says nothing.
        telling = [e for e in errors if e["type"] != "too_short" or e["loc"] not in bad]
        problems = [document.problem(_location(e["loc"], tree), _message(e, tree)) for e in telling]
        # A value that could not be read has no right form either: one report is enough.
        seen = {problem.path for problem in document.problems}
        problems = document.problems + [problem for problem in set(problems) if problem.path not in seen]
        raise ConfigError(sorted(problems, key=lambda p: (p.line, p.path))) from None
    found = [
        *_references(config),
        *_never_stale(config),
        *_apart(config),
        *_unreachable(config, environ),
        *(_unreadable_secrets(config) if secrets else ()),
    ]
    problems = document.problems + [document.problem(loc, message) for loc, message in found]
    if problems:
        raise ConfigError(problems)
    return config


def _too_deep(text: str) -> bool:
    """Whether lists and mappings nest beyond `MAX_DEPTH`: composing them recurses, in C without a limit."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return False


class _Document:
    """Turns YAML nodes into plain values while it keeps the line of each."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self.file = file
        self.environ = environ
        self.lines: dict[Loc, int] = {}
        self.problems: list[Problem] = []
        self._constructor = yaml.constructor.SafeConstructor()

    def problem(self, loc: Loc, message: str) -> Problem:
        known = loc
        while known and known not in self.lines:
            known = known[:-1]
        return Problem(self.file, self.lines.get(known, 1), format_path(loc), message)

    def plain(self, node: yaml.Node, loc: Loc, above: frozenset[int]) -> Any:
        self.lines.setdefault(loc, node.start_mark.line + 1)
        if id(node) in above:
            self.problems.append(self.problem(loc, "an alias refers to what it stands in"))
            return None
        above |= {id(node)}
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc, above)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, (*loc, i), above) for i, item in enumerate(node.value)]
        return self._scalar(node, loc)

    def _mapping(self, node: yaml.MappingNode, loc: Loc, above: frozenset[int]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge":
                line = key_node.start_mark.line + 1
                self.problems.append(Problem(self.file, line, format_path(loc), "a key must be a plain word"))
                continue
            here = (*loc, key)
            if key in result:
                first = self.lines[here]
                self.lines[here] = key_node.start_mark.line + 1
                self.problems.append(self.problem(here, f"is given twice, first on line {first}"))
                continue
            self.lines[here] = key_node.start_mark.line + 1
            result[key] = self.plain(value_node, here, above)
            self._secret(here, value_node)
        return result

    def _secret(self, loc: Loc, node: yaml.Node) -> None:
        """Secrets stand in the environment or in a file of their own, never in this one."""
        if loc[-1] == "api_key" and isinstance(node, yaml.ScalarNode) and not _VARIABLE.search(node.value):
            self.problems.append(self.problem(loc, "a secret does not belong here; write ${NAME} or {file: PATH}"))

    def _scalar(self, node: yaml.Node, loc: Loc) -> Any:
        if node.tag not in _PLAIN_TAGS:
            self.problems.append(self.problem(loc, f"the tag `{node.tag}` is not allowed"))
            return None
        if isinstance(node.value, str) and _VARIABLE.search(node.value):
            return self._substitute(node, loc)
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self.problems.append(self.problem(loc, f"`{node.value}` cannot be read"))
            return None

    def _substitute(self, node: yaml.Node, loc: Loc) -> Any:
        missing = [name for name in _VARIABLE.findall(node.value) if name not in self.environ]
        if missing:
            self.problems.extend(self.problem(loc, f"the environment has no {name}") for name in missing)
            return None
        text = _VARIABLE.sub(lambda m: self.environ[m[1]], node.value)
        if getattr(node, "style", None) in ("'", '"') or any(part in _SECRETS for part in loc):
            return text
        tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        try:
            return self._constructor.construct_object(yaml.ScalarNode(tag, text))
        except (yaml.YAMLError, ValueError):  # what it is stays untold: it may be secret
            why = f"what the environment has of `{node.value}` cannot be read; in quotes it is taken as text"
            self.problems.append(self.problem(loc, why))
            return None


def format_path(loc: Loc) -> str:
    """`("models", 0, "base_url")` as `models[0].base_url`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _location(loc: Loc, tree: Any) -> Loc:
    """pydantic's location without the parts that name a union's arm and stand nowhere in the file."""
    result: Loc = ()
    for i, part in enumerate(loc):
        if part == "base_urls" and isinstance(tree, dict) and "base_url" in tree:
            return (*result, "base_url")
        child = _child(tree, part)
        if child is _ABSENT:
            if i < len(loc) - 1 or part in ("local", "remote", "SecretFile"):
                continue
        else:
            tree = child
        result = (*result, part)
    return result


def _child(tree: Any, part: str | int) -> Any:
    if isinstance(tree, list):
        return tree[part] if isinstance(part, int) and part < len(tree) else _ABSENT
    return tree.get(part, _ABSENT) if isinstance(tree, dict) else _ABSENT


def _message(error: Any, tree: Any) -> str:
    kind, loc, context = error["type"], error["loc"], error.get("ctx", {})
    if kind == "extra_forbidden":
        words = tuple(part for part in loc if isinstance(part, str) and part not in ("local", "remote"))
        later = LATER.get(words[-1])
        if later is not None and set(later) <= set(words):
            return "is not served by this version yet"
        return "unknown key"
    if kind == "missing":
        return "`base_url` or `base_urls` is required" if loc[-1] == "base_urls" else "is required"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        given = tree
        for part in loc:
            given = _child(given, part)
        found = f", not `{given['type']}`" if isinstance(given, dict) and "type" in given else ""
        return f"`type` must be local or remote{found}"
    if kind == "too_short":
        return f"needs at least {context['min_length']} entry"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind in ("list_type", "tuple_type"):
        return "must be a list"
    if kind in ("byte_size", "byte_size_unit"):
        return "is no size; write one such as 500MiB or 4GiB"
    return str(error["msg"][0].lower() + error["msg"][1:])


def _references(config: Config) -> Iterator[tuple[Loc, str]]:
    """What only the whole file shows: duplicate names, unknown references, cycles of fallbacks."""
    models = {model.id for model in config.models}
    seen: set[str] = set()
    for section, entries in (("models", config.models), ("routes", config.routes)):
        for i, entry in enumerate(entries):
            if entry.id in seen:
                yield (section, i, "id"), f"`{entry.id}` is the name of an earlier model or route"
            seen.add(entry.id)
    if config.default_model is not None and config.default_model not in seen:
        yield ("default_model",), f"`{config.default_model}` is no model or route of this file"
    for i, route in enumerate(config.routes):
        if route.model is not None and route.model not in models:
            yield ("routes", i, "model"), f"`{route.model}` is no model of this file"
        for j, variant in enumerate(route.variants):
            if variant.model not in models:
                yield ("routes", i, "variants", j, "model"), f"`{variant.model}` is no model of this file"
        for j, shadow in enumerate(route.shadow):
            if shadow.model not in models:
                yield ("routes", i, "shadow", j, "model"), f"`{shadow.model}` is no model of this file"
        for j, name in enumerate(route.fallback):
            if name not in seen:
                yield ("routes", i, "fallback", j), f"`{name}` is no model or route of this file"
    yield from _layers(config)
    fallbacks = {route.id: route.fallback for route in config.routes}
    for i, route in enumerate(config.routes):
        cycle = _cycle(route.id, fallbacks)
        if cycle:
            yield ("routes", i, "fallback"), "goes in a circle: " + " -> ".join(cycle)


def _layers(config: Config) -> Iterator[tuple[Loc, str]]:
    """Where routes of one layer would not exclude each other."""
    earlier: dict[str, list[RouteConfig]] = {}
    for i, route in enumerate(config.routes):
        if route.layer is None:
            continue
        low, high = route.layer.slice
        for other in earlier.setdefault(route.layer.name, []):
            if other.layer is not None and low < other.layer.slice[1] and other.layer.slice[0] < high:
                yield (
                    ("routes", i, "layer", "slice"),
                    f"overlaps that of `{other.id}`, whose layer it is",
                )
            if other.sticky_by != route.sticky_by:
                keys = ", ".join(other.sticky_by)
                yield ("routes", i, "layer"), f"needs the `sticky_by` of `{other.id}`, which shares it: [{keys}]"
        earlier[route.layer.name].append(route)


def _never_stale(config: Config) -> Iterator[tuple[Loc, str]]:
    """Where answers of a model may be given that are stale, and none ever is."""
    seen: set[Loc] = set()
    for i, (model, whole) in enumerate(zip(config.models, config.effective_models, strict=True)):
        if whole.cache is None or whole.cache.ttl is not None:
            continue
        for key in ("stale_while_revalidate", "stale_if_error"):
            own = model.cache is not None and key in model.cache.model_fields_set
            loc: Loc = ("models", i, "cache", key) if own else ("cache", key)
            if getattr(whole.cache, key) is not None and loc not in seen:
                seen.add(loc)
                yield loc, f"needs a `ttl`, after which answers are stale; `{model.id}` has none"


def _unreachable(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[Loc, str]]:
    """Where the cache's tier in Redis is named, and the environment does not say where that is."""
    if environ.get("POLYROUTE_REDIS_URL"):
        return
    places: list[tuple[Loc, CacheConfig | None]] = [(("cache",), config.cache)]
    places += [(("models", i, "cache"), model.cache) for i, model in enumerate(config.models)]
    for loc, cache in places:
        if cache is not None and cache.tiers is not None and "redis" in cache.tiers:
            yield (*loc, "tiers"), "`redis` is named, and POLYROUTE_REDIS_URL does not say where it is"
        if cache is not None and cache.coalesce == "fleet":
            yield (*loc, "coalesce"), "`fleet` needs a Redis, and POLYROUTE_REDIS_URL does not say where it is"


def _apart(config: Config) -> Iterator[tuple[Loc, str]]:
    """Where machines would wait for answers of each other's that none of them finds."""
    for i, (model, whole) in enumerate(zip(config.models, config.effective_models, strict=True)):
        cache = whole.cache
        if cache is not None and cache.coalesce == "fleet" and cache.tiers is not None and "redis" not in cache.tiers:
            own = model.cache is not None and "coalesce" in model.cache.model_fields_set
            loc: Loc = ("models", i, "cache", "coalesce") if own else ("cache", "coalesce")
            yield loc, f"`fleet` needs the tier `redis`, and `{model.id}` does without"


def _unreadable_secrets(config: Config) -> Iterator[tuple[Loc, str]]:
    """Where a file that holds a secret is named which cannot be used."""
    for i, model in enumerate(config.models):
        if isinstance(model, RemoteConfig) and isinstance(model.api_key, SecretFile):
            try:
                read_secret(model.api_key.file)
            except SecretUnreadable as error:
                yield ("models", i, "api_key", "file"), str(error)


def _cycle(start: str, fallbacks: Mapping[str, tuple[str, ...]]) -> list[str]:
    """A way from `start` back to itself along fallbacks, or nothing."""
    trail: list[tuple[str, list[str]]] = [(start, [start])]
    visited: set[str] = set()
    while trail:
        name, way = trail.pop()
        for following in fallbacks.get(name, ()):
            if following == start:
                return [*way, start]
            if following not in visited:
                visited.add(following)
                trail.append((following, [*way, following]))
    return []
