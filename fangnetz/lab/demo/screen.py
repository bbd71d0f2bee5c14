"""What the demo shows: calm lines with their seconds, and the witness's verdict. Knows nothing of how it came about."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from fangnetz.lab.demo.judgement import Judged

INDENT = 10
STYLES = {
    "alarm": "yellow",
    "operation_opened": "yellow",
    "fence_sent": "red",
    "fence_proven": "cyan",
    "vm_started": "green",
    "witness": "bold green",
}


class Screen:
    """Prints; lines are wrapped at words beside their seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._told: set[str] = set()

    def title(self, words: str, note: str = "") -> None:
        """A heading, after an empty line."""
        line = Text(words, style="bold")
        if note:
            line.append(f"  {note}", style="dim not bold")
        self.console.print()
        self.console.print(line)

    def progress(self, words: str) -> None:
        """What is being done, with the seconds since the start."""
        self._line(f"{time.monotonic() - self._began:6.1f} s", words, "")

    def event(self, after_s: float, kind: str, sentence: str) -> None:
        """What happened so many seconds after the plug. A reason that was told already is not told again."""
        head, colon, reason = sentence.partition(": ")
        words = head if reason in self._told else sentence
        if colon:
            self._told.add(reason)
        self._told.add(sentence)
        self._line(f"{after_s:+6.1f} s", words, STYLES.get(kind, ""))

    def say(self, sentence: str, style: str = "") -> None:
        """A sentence of its own."""
        self.console.print(sentence, style=style, markup=False)

    def verdict(self, judged: Sequence[Judged]) -> None:
        """The witness's findings, a line a VM."""
        self.title("Witness", "reads every disk ten times a second and knows nothing of Fangnetz")
        self.console.print(Text("  VM      way               nobody wrote for  boots  overlaps", style="dim"))
        for each in judged:
            way = f"{each.source} → {', '.join(each.targets) or '–'}"
            away = "–" if each.away_s is None else f"{each.away_s:.1f} s"
            line = Text(f"  {each.vm:<6}  {way:<16}  {away:>16}  {each.boots:>5}  ")
            line.append(f"{each.overlaps:>8}", style="red" if each.overlaps else "green")
            self.console.print(line)

    def _line(self, seconds: str, words: str, style: str) -> None:
        wrapped = Text(words, style=style).wrap(self.console, max(20, self.console.width - INDENT - 1))
        for number, part in enumerate(wrapped):
            part.rstrip()
            head = Text(f"{seconds if number == 0 else '':>{INDENT - 2}}  ", style="dim")
            head.append_text(part)
            self.console.print(head)
