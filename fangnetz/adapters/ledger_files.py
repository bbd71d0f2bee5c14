"""Versioned documents as files: definitions, wishes and fence memory that outlive the store (SAFETY rule 8).

One JSON file a document, written whole, flushed and renamed, so that a crash leaves the old or the new one.
Never decides which document is right: the higher version is.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from pydantic import TypeAdapter, ValidationError

from fangnetz.core.errors import StoredContentError
from fangnetz.ports import LedgerEntry

_ENTRY: TypeAdapter[LedgerEntry] = TypeAdapter(LedgerEntry)


class LedgerFolder:
    """`ports.LedgerFiles` in one folder. Safe between threads; two processes may write, the newer document stays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._versions: dict[str, int] = {}
        self._read = False

    def load(self) -> tuple[LedgerEntry, ...]:
        """Return every document; StoredContentError naming the file if one cannot be read."""
        with self._lock:
            entries = tuple(self._read_file(path) for path in sorted(self._folder.glob("*.json")))
            self._versions = {entry.key: entry.version for entry in entries}
            self._read = True
            return entries

    def write(self, entries: Sequence[LedgerEntry]) -> None:
        """Write durably each entry that is newer than its file."""
        if not self._read:
            self.load()
        with self._lock:
            newer = [entry for entry in entries if entry.version > self._versions.get(entry.key, 0)]
            if not newer:
                return
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for entry in newer:
                path = self._path(entry.key)
                there = self._read_file(path).version if path.exists() else 0  # another process may have written
                if entry.version > there:
                    self._write_file(entry)
                self._versions[entry.key] = max(entry.version, there)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _path(self, key: str) -> Path:
        return self._folder / f"{quote(key, safe='')}.json"

    def _read_file(self, path: Path) -> LedgerEntry:
        try:
            entry = _ENTRY.validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise StoredContentError(f"{path}: is no versioned document of Fangnetz: {type(error).__name__}") from error
        if entry.key != unquote(path.stem):
            raise StoredContentError(f"{path}: holds the document {entry.key}, which belongs into another file")
        return entry

    def _write_file(self, entry: LedgerEntry) -> None:
        data = json.dumps({"key": entry.key, "version": entry.version, "body": entry.body}).encode()
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path(entry.key))
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
