"""A whole `models.yaml`."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ByteSize, Field

from polyroute.core.config.cache import CacheConfig
from polyroute.core.config.models import LocalConfig, ModelConfig
from polyroute.core.config.routes import RouteConfig
from polyroute.core.config.values import HostName, Name, Seconds, Section

Operate: TypeAlias = Literal["local", "all", "off"]
"""Who may operate the server from the HTTP address: callers on this machine, whoever reaches it, nobody."""


class ConsoleConfig(Section):
    """The console on the HTTP address; `off` is what YAML 1.1 reads as false where it is bare.

    `hosts` are the names, besides those of loopback, by which it may be operated under `all`; None is by any.
    """

    operate: Annotated[Operate, BeforeValidator(lambda value: "off" if value is False else value)] = "local"
    hosts: tuple[HostName, ...] | None = None


class ExperimentsConfig(Section):
    """How long records, pairs and feedback are kept, in seconds."""

    retention: Seconds = 30 * 86400.0


class LimitsConfig(Section):
    """Largest input that is accepted at all; a model's own context is checked besides.

    `max_connection_age` is how long callers may use one connection, in seconds, give or take a tenth; None is for ever,
    but where several router processes share the ports.
    """

    max_prompt_bytes: ByteSize = Field(default=ByteSize(4 * 1024 * 1024), gt=0)
    max_messages: int = Field(default=4096, ge=1)
    max_connection_age: Seconds | None = None


class Config(Section):
    """A whole `models.yaml`."""

    default_model: Name | None = None
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    routes: tuple[RouteConfig, ...] = ()
    cache: CacheConfig = CacheConfig()
    limits: LimitsConfig = LimitsConfig()
    experiments: ExperimentsConfig = ExperimentsConfig()
    console: ConsoleConfig = ConsoleConfig()
    memory_budget: ByteSize | None = Field(default=None, ge=64 * 1024 * 1024)

    @property
    def effective_default(self) -> str | None:
        """The model or route for requests that name none: the named one, else the only model."""
        if self.default_model is None and len(self.models) == 1:
            return self.models[0].id
        return self.default_model

    @property
    def effective_models(self) -> tuple[ModelConfig, ...]:
        """The models, with what the file says where they do not: the keys of `cache`, and that the default is warm."""
        default = self.effective_default
        behind = {default}.union(*(route.models for route in self.routes if route.id == default))
        return tuple(self._effective(model, default=model.id in behind) for model in self.models)

    def _effective(self, model: ModelConfig, *, default: bool) -> ModelConfig:
        filled: dict[str, Any] = {}
        said = {} if model.cache is None else {key: getattr(model.cache, key) for key in model.cache.model_fields_set}
        if model.cache is None or len(said) < len(CacheConfig.model_fields):
            filled["cache"] = self.cache.model_copy(update=said) if said else self.cache
        if isinstance(model, LocalConfig) and model.warm.min is None:
            filled["warm"] = model.warm.model_copy(update={"min": int(default)})
        return model.model_copy(update=filled) if filled else model

    @property
    def digest(self) -> str:
        """SHA-256 of what the file says, in hexadecimal; of a secret only that there is one, so it may be shown."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
