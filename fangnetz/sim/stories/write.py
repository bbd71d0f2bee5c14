"""A story's data as the text of a scenario file, one line a host, a VM and an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def text_of(data: Mapping[str, Any]) -> str:
    """Return YAML that reads back as the same data."""
    parts: list[str] = []
    for key, value in data.items():
        if key in ("hosts", "vms") and value:
            parts += [f"{key}:", *(f"  {name}: {_flow(words)}" for name, words in value.items())]
        elif key == "timeline" and value:
            parts += ["timeline:", *(f"  - {_flow(line)}" for line in value)]
        else:
            parts.append(f"{key}: {_flow(value)}")
    return "\n".join(parts) + "\n"


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
