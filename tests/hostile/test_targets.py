"""The recorder's doors and the files, as `support.targets` has them: any input is taken, or refused in words, in memory in proportion; in any frame split.

Inputs that once broke something are in ``regressions/TARGET``, by name.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.targets import DECODERS, FRAMES, TARGETS, check_memory, framed, take_frames

REGRESSIONS = Path(__file__).parent / "regressions"
DOORS = [name for name in TARGETS if name not in DECODERS]
KEPT = sorted(REGRESSIONS.glob("*/*.bin"))


@st.composite
def mutated(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                del data[at : at + draw(st.integers(1, 200))]
            case 1 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                data[at:at] = draw(st.binary(max_size=12))
            case _:
                word = draw(st.sampled_from([0, 1, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]))
                data[at : at + 8] = word.to_bytes(8, "little")
    return bytes(data)


@pytest.mark.parametrize("name", DOORS)
@given(data=st.data())
def test_target_any_bytes_and_mutated_ones_are_taken_or_refused(name: str, data: st.DataObject) -> None:
    corpus = TARGETS[name].corpus
    change = bool(corpus) and data.draw(st.booleans())
    TARGETS[name].run(data.draw(mutated(corpus) if change else st.binary(max_size=400)))


@pytest.mark.parametrize("name", DOORS)
def test_target_takes_memory_in_proportion(name: str) -> None:
    for valid in TARGETS[name].corpus:
        check_memory(name, valid)
        check_memory(name, valid[: len(valid) // 2] + b"\xff" * 16 + valid[len(valid) // 2 :])
    check_memory(name, b"")
    check_memory(name, b"\xff" * 4096)


@given(st.permutations(FRAMES), st.data())
def test_frames_in_any_order_joined_and_split_anywhere_are_taken_or_refused(
    frames: list[bytes], data: st.DataObject
) -> None:
    run = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(run)), max_size=6)))
    take_frames(framed(*(run[a:b] for a, b in zip([0, *cuts], [*cuts, len(run)], strict=True))))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_regression_is_taken_or_refused_in_memory_in_proportion(path: Path) -> None:
    check_memory(path.parent.name, path.read_bytes())
