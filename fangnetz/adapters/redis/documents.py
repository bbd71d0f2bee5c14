"""The ledger's documents as a view needs them, read again only when its version says that one was written.

A document that cannot be read is named and left out; a host whose document is broken counts as a member in
maintenance whose last boot nobody can tell, and a broken pause lasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import redis

from fangnetz.adapters.redis.client import answers, sound
from fangnetz.adapters.redis.codec import decode
from fangnetz.adapters.redis.keys import Keys
from fangnetz.core.errors import StoredContentError
from fangnetz.core.model import UNKNOWN_BOOT, Binding, HostDoc, OffProof, PauseDoc, VmDoc
from fangnetz.core.units import DeviceName, HostId, VmId
from fangnetz.ports import PAUSE_KEY, LedgerEntry

_KINDS: Mapping[str, type] = {"vm": VmDoc, "host": HostDoc, "binding": Binding, "proof": OffProof, "pause": PauseDoc}
Document = VmDoc | HostDoc | Binding | OffProof | PauseDoc


@dataclass(frozen=True, slots=True)
class Documents:
    """Everything the ledger holds at one version. `unreadable`: a sentence for each document that is not among it."""

    version: str = ""
    vms: dict[VmId, VmDoc] = field(default_factory=dict)
    hosts: dict[HostId, HostDoc] = field(default_factory=dict)
    bindings: dict[tuple[HostId, DeviceName], Binding] = field(default_factory=dict)
    proofs: dict[HostId, OffProof] = field(default_factory=dict)
    pause: PauseDoc | None = None
    unreadable: list[str] = field(default_factory=list)
    unreadable_vms: set[VmId] = field(default_factory=set)


def read_documents(client: redis.Redis, keys: Keys) -> Documents:
    """Read the whole ledger."""
    pipe = client.pipeline(transaction=True)
    pipe.get(keys.ledger_version)
    pipe.hgetall(keys.ledger)
    first, second = answers(pipe)
    version = cast("str | None", sound(first, keys.ledger_version))
    ledger = cast("dict[str, str]", sound(second, keys.ledger))
    found = Documents(version=version or "")
    pause: PauseDoc | None = None
    for key, text in ledger.items():
        name = key.partition("/")[2]
        try:
            document = document_of(key, text, keys)
        except StoredContentError as error:
            found.unreadable.append(str(error))
            if key.startswith("host/"):  # it may have held a maintenance, and named a boot that owns VMs
                found.hosts[HostId(name)] = HostDoc(
                    id=HostId(name), maintenance=True, reason=str(error), incarnation=UNKNOWN_BOOT
                )
            elif key.startswith("vm/"):
                found.unreadable_vms.add(VmId(name))
            elif key == PAUSE_KEY:  # one may last: nothing is ordered until somebody ends it
                pause = PauseDoc(on=True, by="nobody knows whom", reason=str(error))
            continue
        match document:
            case VmDoc():
                found.vms[VmId(name)] = document
            case HostDoc():
                found.hosts[HostId(name)] = document
            case Binding():
                found.bindings[document.host, document.device] = document
            case OffProof():
                found.proofs[HostId(name)] = document
            case PauseDoc():
                pause = document
            case None:
                continue
    return replace(found, pause=pause)


def document_of(key: str, text: str, keys: Keys) -> Document | None:
    """Return one document of the ledger; None for a tombstone or a kind of another version."""
    where = f"{keys.ledger} {key}"
    entry = decode(LedgerEntry, text, where)
    kind = _KINDS.get(key.partition("/")[0])
    if not entry.body or kind is None:
        return None
    return cast("Document", decode(kind, entry.body, where))
