from __future__ import annotations

from pathlib import Path

from support.snapshots import Stream, event, snapshot

from frzmq.reader.certificate import Certificate, StreamCertificate, certificate
from frzmq.wire.ledger import Ledger, WriterLedger


def stream(name: str, pid: int, **header: object) -> Stream:
    return Stream(name, pid, **header).generation(1, [event(10, "e")], at_ns=5)


def test_certificate_of_a_whole_snapshot_is_whole(tmp_path: Path) -> None:
    opened = snapshot(tmp_path, stream("a", 1, answer="flushed", horizon_ns=5, stored_through=9), horizon_ns=5)
    assert certificate(opened.header) == Certificate(
        ("a[1]",), ("a[1]",), (), (), (), {}, (), 5, (StreamCertificate("a[1]", "live", "flushed", 5, ((1, 10),), {}),)
    )
    assert certificate(opened.header).whole


def test_certificate_names_who_answered_who_is_missing_and_what_is_lost_by_cause(tmp_path: Path) -> None:
    opened = snapshot(
        tmp_path,
        stream("a", 1, answer="flushed", ledger=Ledger(recorded=4, held=1, overwritten=3, dropped=2)),
        stream("b", 2, answer="read", ledger=Ledger(recorded=9, held=1)),
        stream("c", 3, answer="missing", ledger=Ledger(recorded=2, held=1, overwritten=1)),
        stream("d", 4, state="dead", ledger=Ledger(recorded=1, held=1, torn=1)),
        stream("e", 5, state="gone"),
    )
    found = certificate(opened.header)
    assert found.expected == ("a[1]", "b[2]", "c[3]")
    assert (found.answered, found.read, found.missing) == (("a[1]",), ("b[2]",), ("c[3]",))
    assert (found.dead, found.unbalanced) == (("d[4]",), ("b[2]",))
    assert found.lost == {"overwritten": 4, "dropped": 2, "torn": 1}
    assert not found.whole


def test_certificate_has_the_batches_that_came_and_the_loss_of_each_stream(tmp_path: Path) -> None:
    opened = snapshot(
        tmp_path,
        stream("a", 1, stored_through=20, gaps=((1, 4), (6, 9), (12, 13)), ledger=Ledger(2, held=1, missing=1, torn=1)),
        stream("b", 2, stored_through=3),
        stream("c", 3),
    )
    found = certificate(opened.header).streams
    assert [each.tseqs for each in found] == [((4, 6), (9, 12), (13, 21)), ((1, 4),), ()]
    assert [each.lost for each in found] == [{"missing": 1, "torn": 1}, {}, {}]


def test_certificate_of_writers_that_do_not_add_up_names_their_process(tmp_path: Path) -> None:
    rows = (WriterLedger(1, held=1, writer=1), WriterLedger(2, held=1, writer=2))
    ledger = Ledger(3, held=2, missing=1)
    opened = snapshot(tmp_path, stream("a", 1, ledger=ledger, writers=rows), stream("b", 2))
    assert certificate(opened.header).unbalanced == ("a[1]",)
