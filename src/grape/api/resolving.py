"""What a call is given: settings as an object, by name, or both; policies and stores, open or by their place."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from grape.api.results import CollectResult
from grape.core.errors import SettingsError
from grape.core.events import LoggingReporter, Reporter
from grape.core.remote.publishing import publishing, with_local_folders
from grape.core.repositories import pinned_settings
from grape.core.settings import settings_from_dict, settings_to_dict
from grape.policies import Policy
from grape.store import EpisodeStore

__all__ = ["LOG", "named_policy", "place_of", "publishing_verb", "resolved"]

_S = TypeVar("_S")
_P = ParamSpec("_P")
_R = TypeVar("_R")

LOG = LoggingReporter()
"""Who hears of a verb where its caller names nobody."""


def publishing_verb(verb: Callable[_P, _R]) -> Callable[_P, _R]:
    """A verb that may write to an address such as ``s3://bucket/run``, see :mod:`grape.core.remote.publishing`."""

    @functools.wraps(verb)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with publishing(cast(Reporter, kwargs.get("reporter", LOG))):
            return verb(*args, **kwargs)

    return call


def resolved(kind: type[_S], settings: _S | None, values: Mapping[str, Any]) -> _S:
    """The settings with ``values`` over them, of the right types.

    Raises:
        SettingsError: A name is unknown, a value has the wrong type, or a dry run is asked for.
    """
    if settings is not None and not isinstance(settings, kind):
        raise SettingsError(
            f"Expected {kind.__name__}, not {type(settings).__name__}.", f"Give grape.{kind.__name__}(...), or fields."
        )
    plain = settings_to_dict(values)  # paths become texts, which stand for either
    if settings is None:
        items = dataclasses.fields(kind)  # type: ignore[arg-type]
        missing = [item.name for item in items if _is_required(item) and item.name not in plain]
        if missing and plain.keys() <= {item.name for item in items}:  # what is unknown is told first
            raise SettingsError(f"{kind.__name__} needs {' and '.join(missing)}.", f"Give it by name: {missing[0]}=...")
    else:  # a text may stand where a path is meant
        settings = settings_from_dict(kind, settings_to_dict(settings))
    chosen = settings_from_dict(kind, plain, settings)
    if getattr(chosen, "dry_run", False):
        raise SettingsError(
            "A dry run has a plan and no result.",
            "Use --dry-run on the command line, or the package's run_... function, which returns the plan.",
        )
    return with_local_folders(pinned_settings(chosen))


def _is_required(item: "dataclasses.Field[Any]") -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def named_policy(policy: Policy | Path | str | None, values: dict[str, Any]) -> Policy | None:
    """The policy if it is open; its name, or that of its class, goes into the settings' ``values``."""
    if policy is not None:
        own = type(policy).__name__
        label = "Expert" if own == "expert" else own  # which settings take for the suite's expert
        values["policy"] = str(policy) if isinstance(policy, str | Path) else label
    return None if isinstance(policy, str | Path) else policy


def place_of(store: CollectResult | EpisodeStore | Path | str) -> Path:
    """Where a store is."""
    if isinstance(store, CollectResult):
        return store.folder
    return store.path if isinstance(store, EpisodeStore) else Path(store)
