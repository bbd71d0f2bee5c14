"""From the cluster file to an open store, and errors of reading it as sentences. Reads no secret but the store's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fangnetz.core.errors import StoredContentError, StoreUnreachable

if TYPE_CHECKING:
    from fangnetz.adapters.redis import RedisStore
    from fangnetz.core.model import HostSpec
    from fangnetz.core.units import HostId
    from fangnetz.settings import Settings

DEFAULT_CONFIG = Path("/etc/fangnetz/cluster.yaml")

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One command's access to the cluster."""

    settings: Settings
    store: RedisStore

    @property
    def hosts(self) -> Mapping[HostId, HostSpec]:
        return {host: one.spec for host, one in self.settings.hosts.items()}

    @contextmanager
    def asking(self) -> Iterator[RedisStore]:
        """Give the store; whatever it fails with becomes one sentence that names it."""
        try:
            yield self.store
        except StoreUnreachable as error:
            raise StoreUnreachable(f"{error} (store {self.settings.redis.place})") from error
        except (ValueError, KeyError, TypeError) as error:
            # The adapter names the key of what it does not understand; this catches what never got that far.
            raise StoredContentError(
                f"the store {self.settings.redis.place} holds content this version does not understand: {error!r}"
            ) from error


def open_session() -> Session:
    """Return the session for the cluster file in force. SettingsError with every fault of the file.

    The file is judged as a host judges it: fence secrets and the VMs' XML need not be on this machine.
    """
    from fangnetz.settings import load_settings
    from fangnetz.wiring import open_store

    path = Path(os.environ.get("FANGNETZ_CONFIG") or DEFAULT_CONFIG)
    settings = load_settings(path, "host")
    return Session(settings=settings, store=open_store(settings, name="cli"))
