# SPDX-License-Identifier: Apache-2.0
"""What travels between driver and workers, and the files that workers keep."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest
from cluster_helpers import mounted
from hypothesis import given, settings
from hypothesis import strategies as st

import simtune
from simtune.errors import ConfigurationError
from simtune.execution import wire
from simtune.execution.base import Refused
from simtune.execution.blobs import BlobsMissing, BlobStore, Library, digest_of
from simtune.execution.courier import Courier, Order
from simtune.execution.remote import JobRunner
from simtune.testing.jobs import FakeJob, FakeResult

KIND = wire.kind_of(FakeJob(0))
TEXTS = st.text(max_size=20)


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(
        st.builds(
            wire.PackedJob,
            st.integers(0, 2**40),
            st.sampled_from([KIND, "a.b:C"]),
            st.dictionaries(TEXTS, TEXTS, max_size=3),
            st.binary(max_size=50),
        ),
        max_size=5,
    ),
    st.dictionaries(st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.binary(max_size=100), max_size=3),
)
def test_chunks_arrive_as_they_were_sent(jobs: list[wire.PackedJob], blobs: dict[str, bytes]) -> None:
    arrived = wire.decode_chunk(wire.encode_chunk(wire.Chunk(jobs, blobs)))
    assert arrived.jobs == jobs
    assert arrived.blobs == blobs


@settings(max_examples=100, deadline=None, database=None)
@given(st.one_of(st.binary(max_size=200), st.integers(0, 400)), st.binary(max_size=20))
def test_damage_is_noticed(what: bytes | int, junk: bytes) -> None:
    """Whatever arrives is a message, a refusal, or a WireError."""
    whole = wire.encode_chunk(wire.Chunk([wire.PackedJob(1, KIND, {"f": "d"}, b"{}")], {"d": b"x" * 10}))
    payload = what if isinstance(what, bytes) else whole[:what] + junk
    for decode in (wire.decode_chunk, wire.decode_reply):
        with contextlib.suppress(wire.WireError, Refused):
            decode(payload)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, database=None)
@given(st.one_of(JSON, st.lists(st.tuples(JSON, JSON, JSON, JSON, JSON), max_size=3)), JSON)
def test_a_reply_that_makes_no_sense_is_noticed(jobs: object, missing: object) -> None:
    head = {"jobs": jobs, "missing": missing, "refused": "", "trouble": "", "leaving": False}
    with contextlib.suppress(wire.WireError):
        for job in wire.decode_reply(wire._frame(head, ())).jobs:
            assert (type(job.ticket), type(job.seconds)) == (int, float)
            assert job.result is None or isinstance(job.result, dict)


@pytest.mark.parametrize("told", [True, False], ids=["told to leave", "ended by its engine"])
def test_what_a_leaving_worker_has_done_counts_and_the_rest_is_not_blamed(told: bool) -> None:
    settled: SimpleQueue[Callable[[], None]] = SimpleQueue()
    courier, futures = Courier(settled.put), [Future() for _ in range(2)]
    for number, future in enumerate(futures):
        courier.add(Order.of(FakeJob(number, seconds=0.02 + 30.0 * number), future), 0.0)
    for now in range(5):
        runner = JobRunner()
        courier.joined(str(now), 1, "host", now)
        try:
            [parcel] = courier.parcels(now)  # one job, as nothing is known of how long they take
            if now and told:
                threading.Timer(0.1, runner.stop).start()
            moves = courier.replied(parcel.number, runner.perform(parcel.payload, partial(bool, now)), now)
            assert not moves.send
            courier.left(str(now), now, blame=False)
        finally:
            runner.close()
    while not settled.empty():
        settled.get()()
    assert [future.done() for future in futures] == [True, False]
    assert courier.progress(9.0).lost == 0


def test_results_before_the_end_of_a_worker_are_not_thrown_away() -> None:
    settled: SimpleQueue[Callable[[], None]] = SimpleQueue()
    courier, futures = Courier(settled.put), [Future() for _ in range(2)]
    for number, future in enumerate(futures):
        courier.add(Order.of(FakeJob(number), future), 0.0)
    courier.joined("first", 2, "host", 0.0)
    first, second = courier.parcels(0.0)
    result = FakeJob.encode_result(FakeResult(0, "value"))
    reply = wire.Reply([wire.JobReply(0, 0.1, result)], leaving=True)
    moves = courier.replied(first.number, wire.encode_reply(reply), 1.0)
    assert moves.stop == [second.number]
    settled.get()()
    assert futures[0].result(0) == FakeResult(0, "value")
    courier.joined("second", 1, "host", 2.0)
    assert len(courier.parcels(2.0)) == 1
    assert len(courier) == 1


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = wire.encode_chunk(wire.Chunk([]))
    monkeypatch.setattr(simtune, "__version__", "9.8.7")
    with pytest.raises(Refused, match=r"the driver is simtune .* the worker is simtune 9\.8\.7"):
        wire.decode_chunk(payload)


@pytest.mark.parametrize(
    "kind", ["os:system", "subprocess:Popen", "simtune.jobs:Outcome", "simtune.nowhere:X"]
)
def test_a_worker_runs_registered_jobs_only(kind: str) -> None:
    runner = JobRunner()
    try:
        payload = wire.encode_chunk(wire.Chunk([wire.PackedJob(1, kind, {}, b"{}")]))
        assert kind in wire.decode_reply(runner.perform(payload)).refused
    finally:
        runner.close()


def test_a_job_that_cannot_travel_is_refused_at_once() -> None:
    class Local(FakeJob):
        pass

    with pytest.raises(ConfigurationError, match="cannot travel"):
        wire.kind_of(Local(1))
    with pytest.raises(ConfigurationError, match="PortableJob"):
        Order.of(object(), None)  # type: ignore[arg-type]


# ---- files ------------------------------------------------------------------------------------


def content(number: int, size: int = 1000) -> tuple[str, bytes]:
    data = bytes([number]) * size
    return digest_of(data), data


def test_files_are_kept_and_the_oldest_make_room(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", limit=2500)
    for number in (1, 2):
        digest, data = content(number)
        with store.holding([digest], {digest: data}) as paths:
            assert paths[digest].read_bytes() == data
    with store.holding([content(1)[0]], {}):  # is in use, and used last
        digest, data = content(3)
        with store.holding([digest], {digest: data}):
            assert store.size() == 2000
    with store.holding([content(1)[0]], {}):
        pass
    with pytest.raises(BlobsMissing), store.holding([content(2)[0]], {}):
        pass


def test_what_is_not_its_digest_is_not_kept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest, data = content(1)
    with pytest.raises(ValueError, match="is not the one"), store.holding([digest], {digest: data + b"x"}):
        pass
    assert store.size() == 0


def test_a_file_that_vanished_or_was_cut_comes_again(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest, data = content(1)
    for harm in (lambda p: p.unlink(), lambda p: os.truncate(p, 5)):
        with store.holding([digest], {digest: data}) as paths:
            path = paths[digest]
            path.chmod(0o644)
        harm(path)
        with pytest.raises(BlobsMissing), store.holding([digest], {}):
            pass


def test_a_file_that_comes_with_a_neighbour_is_waited_for(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest, data = content(1)

    def bring() -> None:
        with store.holding([digest], {digest: data}):
            pass

    timer = threading.Timer(0.1, bring)
    timer.start()
    with store.holding([digest], {}) as paths:
        assert paths[digest].read_bytes() == data
    timer.join()


def test_a_full_disk_keeps_what_is_in_use(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", 1) as small:
        store = BlobStore(small / "blobs")
        digest, data = content(1, 600_000)
        other, more = content(2, 600_000)
        with store.holding([digest], {digest: data}):
            with pytest.raises(OSError, match="No space"), store.holding([other], {other: more}):
                pass
            assert not list((small / "blobs").glob("*.part"))
        with store.holding([other], {other: more}) as paths:
            assert paths[other].read_bytes() == more


def test_the_driver_reads_a_file_again_only_when_it_changed(tmp_path: Path) -> None:
    library, path = Library(), tmp_path / "file"
    path.write_bytes(b"one")
    first = library.digest(path)
    assert first == digest_of(b"one")
    path.write_bytes(b"other")
    assert library.digest(path) == digest_of(b"other")
