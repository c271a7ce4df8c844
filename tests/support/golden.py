"""Golden files: a story in comments, then steps, each a frame or message as text and the bytes that it must be.

A step begins with ``== who to whom, over which socket``; behind ``-- bytes`` come its bytes in hex.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from frzmq.wire.text import format_frame, format_message, parse_frame, parse_message

GOLDEN_DIR = Path(__file__).resolve().parents[1] / "golden"
_BYTES = "-- bytes\n"
_HEX_WIDTH = 96


@dataclass(frozen=True)
class Step:
    title: str
    text: str
    data: bytes

    @property
    def is_message(self) -> bool:
        return any(line.startswith("message ") for line in self.text.split("\n"))

    def encoded(self) -> bytes:
        """What the text says."""
        return parse_message(self.text) if self.is_message else parse_frame(self.text)

    def formatted(self) -> str:
        """What the bytes say."""
        return format_message(self.data) if self.is_message else format_frame(self.data)


@dataclass(frozen=True)
class Golden:
    story: str
    steps: tuple[Step, ...]


def parse_golden(content: str) -> Golden:
    story, *parts = content.split("\n== ")
    steps = []
    for part in parts:
        title, _, rest = part.partition("\n")
        text, _, digits = rest.partition(_BYTES)
        steps.append(Step(title, text, bytes.fromhex("".join(digits.split()))))
    return Golden(story, tuple(steps))


def with_bytes(content: str) -> str:
    """The same content, its bytes made from its text."""
    golden = parse_golden(content)
    parts = [golden.story.rstrip() + "\n"]
    for step in golden.steps:
        digits = step.encoded().hex()
        lines = [digits[i : i + _HEX_WIDTH] + "\n" for i in range(0, len(digits), _HEX_WIDTH)]
        parts.append(f"\n== {step.title}\n{step.text.rstrip()}\n{_BYTES}{''.join(lines)}")
    return "".join(parts)
