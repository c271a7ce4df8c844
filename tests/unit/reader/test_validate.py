from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from support.snapshots import At, Stream, begin, context, end, event, operation_begin, snapshot

from frzmq.reader.decode import split_batches
from frzmq.reader.validate import Level, validate
from frzmq.snapfile.format import Generation
from frzmq.wire.batch import EndMark, WriterEnd, encode_batch, encode_end_mark
from frzmq.wire.kinds import Kind
from frzmq.wire.ledger import Ledger, WriterLedger


def good() -> Stream:
    stream = Stream("web", 1).generation(1, [begin(10, "a"), end(20, "a"), event(30, "b", writer=2)], at_ns=5)
    return stream.generation(2, [event(110, "c"), event(120, "d", writer=2)], at_ns=100)


def found(tmp_path: Path, *streams: Stream) -> list[tuple[str, str]]:
    return [(f.level.value, f.code) for f in validate(snapshot(tmp_path, *streams))]


def with_info(stream: Stream, number: int, **changes: object) -> Stream:
    generation = stream.generations[number]
    info = dataclasses.replace(generation.info, **changes)  # type: ignore[arg-type]  # a test's own words
    stream.generations[number] = Generation(info, generation.frames)
    return stream


def with_header(stream: Stream, **changes: object) -> Stream:
    stream.header = dataclasses.replace(stream.header, **changes)  # type: ignore[arg-type]  # a test's own words
    return stream


def with_rows(stream: Stream, *rows: tuple[int, int]) -> Stream:
    """Of writer 1 and so on: recorded and held."""
    ledgers = tuple(WriterLedger(recorded, held=held, writer=n) for n, (recorded, held) in enumerate(rows, 1))
    return with_header(stream, ledger=Ledger(5, held=5), writers=ledgers)


def test_validate_of_ledgers_by_writer_that_are_right_finds_nothing(tmp_path: Path) -> None:
    assert validate(snapshot(tmp_path, with_rows(good(), (3, 3), (2, 2)))) == []
    # those of the last few seconds only
    stream = with_rows(good(), (3, 3), (2, 2))
    del stream.generations[0]
    assert validate(snapshot(tmp_path, stream)) == []
    # more writers than there are rows
    stream = with_header(with_rows(good(), (3, 3)), other_writers=1)
    assert validate(snapshot(tmp_path, stream)) == []


def test_validate_of_losses_that_the_writers_ledger_does_not_have_is_an_error(tmp_path: Path) -> None:
    stream = good().generation(3, [event(210, "e")], at_ns=200, skip={1: 2}, overwritten=True, complete=False)
    stream.generation(4, [event(310, "e")], at_ns=300, skip={1: 4}, complete=False)
    row, other = WriterLedger(11, 0, 5, 0, 2, 4, 0, 1), WriterLedger(2, held=2, writer=2)

    def faults(row: WriterLedger) -> list[str]:
        ledger = Ledger(13, 0, 7, 0, row.overwritten, row.missing, row.late)
        opened = snapshot(tmp_path, with_header(stream, ledger=ledger, writers=(row, other)))
        return [f.message for f in validate(opened) if f.level is Level.ERROR]

    assert faults(row) == []
    # some of what was missing came late
    assert faults(dataclasses.replace(row, missing=1, late=3)) == []
    swapped = faults(dataclasses.replace(row, overwritten=4, missing=2))
    assert swapped == ["web[1]: writer 1: its ledger says 2 records missing, the generations have 4"]
    swapped = faults(dataclasses.replace(row, overwritten=1, missing=5))
    assert swapped == ["web[1]: writer 1: its ledger says 1 records overwritten, the generations have 2"]


def test_validate_of_a_whole_snapshot_finds_nothing(tmp_path: Path) -> None:
    assert validate(snapshot(tmp_path, good())) == []


def _repeated(stream: Stream) -> None:
    generation = stream.generations[0]
    stream.generations[0] = Generation(
        dataclasses.replace(generation.info, records=4, batches=3), (*generation.frames, generation.frames[1])
    )


def _foreign(stream: Stream) -> None:
    other = Stream("other", 9).generation(1, [event(10, "x", writer=5)], at_ns=5)
    generation = stream.generations[0]
    stream.generations[0] = Generation(
        dataclasses.replace(generation.info, records=4, batches=3), (*generation.frames, other.generations[0].frames[1])
    )


def _short_row(stream: Stream) -> None:
    mark = encode_end_mark(EndMark((WriterEnd(1, 0, 1), WriterEnd(2, 0, 1))))
    with_info(stream, 0, end_mark=mark)


def _long_row(stream: Stream) -> None:
    mark = encode_end_mark(EndMark((WriterEnd(1, 0, 2), WriterEnd(2, 0, 3))))
    with_info(stream, 0, end_mark=mark)


def _backwards(stream: Stream) -> None:
    stream.generations[1] = Stream("web", 1).generation(9, [event(1, "z")], at_ns=0).generations[0]


def _unopened(stream: Stream) -> None:
    generation = stream.generations[0]
    stream.generations[0] = Generation(generation.info, generation.frames[1:])


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda s: with_info(s, 0, records=2), "generation"),
        (lambda s: with_info(s, 0, batches=1), "generation"),
        (lambda s: with_info(s, 0, end_mark=b"\xc1"), "batch"),
        (lambda s: with_info(s, 1, generation=3), "batch"),
        (lambda s: with_info(s, 1, generation=1), "generation"),
        (_unopened, "generation"),
        (_short_row, "index"),
        (_long_row, "index"),
        (_repeated, "index"),
        (_foreign, "batch"),
        (_backwards, "record"),
        (lambda s: s.strings.clear(), "string"),
        (lambda s: s.generation(3, [end(210, "never begun")], at_ns=200), "span"),
        (lambda s: with_header(s, stored_through=4), "batch"),
        (lambda s: with_header(s, stored_through=99, gaps=((2, 3),)), "batch"),
        (lambda s: with_header(s, answer="missing"), "file"),
        (lambda s: setattr(s, "header", dataclasses.replace(s.header, ledger=Ledger(recorded=6, held=5))), "ledger"),
        (lambda s: setattr(s, "header", dataclasses.replace(s.header, ledger=Ledger(recorded=4, held=4))), "ledger"),
        (lambda s: with_rows(s, (4, 3), (2, 2)), "ledger"),
        (lambda s: with_rows(s, (3, 3), (1, 1)), "ledger"),
        (lambda s: with_rows(s, (2, 2), (3, 3)), "ledger"),
        (lambda s: with_rows(s, (5, 5)), "ledger"),
    ],
)
def test_validate_of_a_spoiled_snapshot_names_the_fault(
    tmp_path: Path, spoil: Callable[[Stream], object], code: str
) -> None:
    stream = good()
    spoil(stream)
    assert ("error", code) in found(tmp_path, stream)


def test_validate_of_known_loss_warns(tmp_path: Path) -> None:
    stream = good().generation(3, [event(210, "e")], at_ns=200, skip={1: 2}, overwritten=True)
    stream.generation(4, [event(310, "e")], at_ns=300, complete=False, seal="silence", end_mark=b"")
    opened = snapshot(tmp_path, stream, missing=("web[1]",))
    assert [(f.level, f.message) for f in validate(opened)] == [
        (Level.WARNING, "web[1] generation 3: 2 records overwritten"),
        (Level.WARNING, "web[1] generation 4: an unknown number of records incomplete"),
        (Level.WARNING, "the last moments of web[1] are not in it: it did not answer in time"),
    ]


def test_validate_of_a_flow_back_in_time_on_one_clock_is_an_error(tmp_path: Path) -> None:
    trace = b"t" * 16
    web = Stream("web", 1).generation(
        1, [operation_begin(10, "x", 5), context(11, op=5), At(50, Kind.INJECT, (5, trace, 7))]
    )
    db = Stream("db", 2).generation(1, [At(30, Kind.EXTRACT, (6, trace, 7))])
    assert found(tmp_path, web, db) == [("error", "flow")]


def test_validate_of_damage_is_an_error(tmp_path: Path) -> None:
    opened = snapshot(tmp_path, good())
    path = Path(opened.path)
    data = bytearray(path.read_bytes())
    data[opened.file.generations(0)[1].body_offset + 50] ^= 1
    path.write_bytes(data)
    findings = validate(opened)
    assert [f.code for f in findings if f.level is Level.ERROR] == ["file"]
    assert "damaged: the checksum is wrong" in findings[-1].message


def test_validate_of_a_batch_that_was_sent_without_its_records_finds_nothing(tmp_path: Path) -> None:
    stream = good()
    generation = stream.generations[1]
    (batch,) = (b for b in split_batches(b"".join(generation.frames))[0] if b.header.writer == 2)
    empty = encode_batch(dataclasses.replace(batch.header, count=0, base_ns=batch.header.base_ns - 1))
    stream.generations[1] = Generation(
        dataclasses.replace(generation.info, records=1, lost=1), (*generation.frames[:2], empty)
    )
    ledger = Ledger(5, held=4, overwritten=1)
    opened = snapshot(tmp_path, with_header(stream, ledger=ledger))
    assert [(f.level, f.message) for f in validate(opened)] == [
        (Level.WARNING, "web[1] generation 2: 1 records overwritten")
    ]
