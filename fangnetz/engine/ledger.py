"""Documents that outlive the store: written to this machine's files first, then to the store (SAFETY rule 8)."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import TypeAdapter

from fangnetz.core.model import Binding, HostDoc, OffProof, PauseDoc, VmDoc
from fangnetz.core.units import Instant, VmId, next_number
from fangnetz.ports import PAUSE_KEY, LedgerEntry, LedgerFiles, Process, Store

Document = VmDoc | HostDoc | Binding | OffProof | PauseDoc
_BODY: dict[type, TypeAdapter[Document]] = {
    kind: TypeAdapter(kind) for kind in (VmDoc, HostDoc, Binding, OffProof, PauseDoc)
}


def key_of(document: Document) -> str:
    """Return the name a document goes by: kind/subject."""
    match document:
        case VmDoc():
            return f"vm/{document.spec.id}"
        case HostDoc():
            return f"host/{document.id}"
        case Binding():
            return f"binding/{document.host}/{document.device}"
        case OffProof():
            return f"proof/{document.host}"
        case PauseDoc():
            return PAUSE_KEY


class Ledger:
    """Keeps files and store alike; the newest copy wins in both directions."""

    def __init__(self, store: Store, files: LedgerFiles, process: Process) -> None:
        self._store, self._files = store, files
        self._known = -1
        self._versions: dict[str, int] = {}
        self._lock = process.lock()

    def write(self, documents: Iterable[Document], decided_at: Instant | None = None) -> None:
        """Give each document a version newer than all seen; on return it is in files and store.

        `decided_at`: the instant of the view a decision was made from. What was written after that view stays newer,
        so that a controller that froze in between changes nothing when it thaws. None: as of now.
        """
        now = self._as_of(decided_at)
        entries = [
            LedgerEntry(
                key=key_of(document),
                version=next_number(self._versions.get(key_of(document), 0), now=now),
                body=_BODY[type(document)].dump_json(document).decode(),
            )
            for document in documents
        ]
        self._put(entries)

    def forget(self, vm: VmId, decided_at: Instant | None = None) -> None:
        """Write a tombstone for a VM's definition, as old as the decision."""
        key = f"vm/{vm}"
        now = self._as_of(decided_at)
        self._put([LedgerEntry(key=key, version=next_number(self._versions.get(key, 0), now=now), body="")])

    def _as_of(self, decided_at: Instant | None) -> Instant:
        if decided_at is not None:
            return decided_at
        self.sync()  # numbers unseen here may be ahead of the clock: an older one would be dropped unsaid
        return self._store.now()

    def _put(self, entries: list[LedgerEntry]) -> None:
        with self._lock:
            self._files.write(entries)
            self._store.put_ledger(entries)
            self._versions.update({entry.key: entry.version for entry in entries})

    def sync(self) -> None:
        """Copy what is newer in the store to files, and what is newer in files to the store. Cheap when nothing is."""
        changed = self._store.ledger(self._known)
        if changed is None:
            return
        version, stored = changed
        with self._lock:
            in_store = {entry.key: entry for entry in stored}
            on_disk = {entry.key: entry for entry in self._files.load()}
            self._files.write(list(in_store.values()))
            missing = [
                entry for key, entry in on_disk.items() if key not in in_store or in_store[key].version < entry.version
            ]
            self._store.put_ledger(missing)
            self._versions = {key: entry.version for key, entry in {**in_store, **on_disk}.items()}
            for key, entry in in_store.items():
                self._versions[key] = max(entry.version, self._versions[key])
            self._known = version if not missing else -1
