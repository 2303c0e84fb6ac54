"""What was encoded before under which name, so that the cache can say why it encodes something again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INDEX = "encoded.jsonl"
"""One line for each entry that was made: its kind, its name and what its key was made of."""

CHANGES: tuple[tuple[str, str], ...] = (
    ("transform", "other transform version"),
    ("size", "other size {old} -> {new}"),
    ("frames", "other number of frames {old} -> {new}"),
    ("vae", "other VAE weights"),
    ("encoder", "other text encoder, tokenizer or call defaults"),
)
"""Part of a key -> what is said where it differs from the last time, in this order."""

GONE = "its entry was damaged or removed from the cache"


class History:
    """The index of one cache folder. Lines are appended, so that several processes may write."""

    def __init__(self, root: Path) -> None:
        self.path = root / INDEX
        self._lines: list[dict[str, Any]] | None = None

    def add(self, parts: Mapping[str, Any]) -> None:
        """Note that an entry was made of `parts` (`kind`, `name`, `digest` and those of `CHANGES`)."""
        line = json.dumps(dict(parts), sort_keys=True) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode())  # one call, so that lines of several processes do not mix
        finally:
            os.close(handle)

    def why(self, parts: Mapping[str, Any]) -> str:
        """Why an entry made of `parts` is not there: what differs from the last one of these bytes, or of this name."""
        of_kind = [line for line in self._read() if line.get("kind") == parts["kind"]]
        same = [line for line in of_kind if line.get("digest") == parts["digest"]]
        if same:
            fewest = min([_changes(line, parts) for line in reversed(same)], key=len)
            return fewest[0] if fewest else GONE
        if any(line.get("name") == parts["name"] for line in of_kind):
            return "the picture changed since (same name, other bytes)"
        return f"the {'caption' if parts['kind'] == 'text' else 'picture'} is new"

    def _read(self) -> list[dict[str, Any]]:
        """The lines so far; torn ones, after a power cut, are left out."""
        if self._lines is None:
            self._lines = []
            try:
                text = self.path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                return self._lines
            for line in text.splitlines():
                try:
                    self._lines.append(dict(json.loads(line)))
                except (ValueError, TypeError):
                    continue
        return self._lines


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two entries of the same bytes."""
    return [
        words.format(old=before.get(part), new=now[part])
        for part, words in CHANGES
        if part in now and before.get(part) != now[part]
    ]
