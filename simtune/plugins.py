# SPDX-License-Identifier: Apache-2.0
"""Things by name: those that come with simtune, and those that other packages register."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from simtune.errors import ConfigurationError

_log = logging.getLogger(__name__)


class Plugins:
    """One kind of things.

    Args:
        kind: what messages call one of them, such as "simulator".
        group: entry-point group under which packages register theirs.
        built_in: "module:attribute" by name of those that come with simtune, also found when it runs from
            a checkout without metadata. A registered one of the same name takes the place.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        self._kind, self._group, self._built_in = kind, group, built_in

    def names(self) -> tuple[str, ...]:
        """All names that `load` knows, sorted."""
        return tuple(sorted({*self._built_in, *self._registered()}))

    def load(self, name: str) -> Any:
        """The class or function of that name.

        Raises:
            ConfigurationError: nothing is called so, or it cannot be imported.
        """
        registered = self._registered()
        if name not in registered and name not in self._built_in:
            raise ConfigurationError(
                f"no {self._kind} is called '{name}'", f"known: {', '.join(self.names())}"
            )
        try:
            if name in registered:
                return registered[name].load()
            module, _, attribute = self._built_in[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        except ConfigurationError:
            raise  # it says itself what is wrong
        except Exception as error:
            raise self.broken(name, error) from error

    def broken(self, name: str, error: Exception) -> ConfigurationError:
        """What to say of one that fails in an unforeseen way."""
        return ConfigurationError(
            f"{self._kind} '{name}' cannot be loaded: {error}", "repair or remove the package that brings it"
        )

    def _registered(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self._group):
            first = found.setdefault(entry.name, entry)
            if first.value != entry.value:
                _log.warning("two packages bring the %s '%s'; using %s", self._kind, entry.name, first.value)
        return found
