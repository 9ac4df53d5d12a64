"""Calibration from Python and on the command line, against a server made by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import FakeServer, descriptor
from lookalike import AsyncClient, Client
from lookalike.cli.app import run
from lookalike.errors import InvalidArgument
from lookalike.v1 import calibration_pb2, search_pb2
from photos import encode, photo


class CalibratedServer(FakeServer):
    """Remembers what it is sent, and answers with one threshold that was reached and one that was not."""

    def __init__(self) -> None:
        self.pairs = calibration_pb2.SetCalibrationRequest()
        self.asked: list[search_pb2.SearchRequest] = []
        self.background = calibration_pb2.SetBackgroundRequest()
        super().__init__()

    def SetCalibration(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.pairs = request
        return calibration_pb2.SetCalibrationResponse(calibration=self._made(request))

    def GetCalibration(self, request: Any, context: Any) -> Any:  # noqa: N802
        return calibration_pb2.GetCalibrationResponse(calibration=self._made(request))

    def SetBackground(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.background = request
        return calibration_pb2.SetBackgroundResponse()

    def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request)
        return super().Search(request, context)

    def _made(self, request: Any) -> calibration_pb2.Calibration:
        threshold = calibration_pb2.Threshold(
            precision=0.9,
            min_score=0.61,
            min_score_low=0.6,
            reached=0.91,
            reached_low=0.85,
            reached_high=0.95,
            current_score=0.66,
        )
        return calibration_pb2.Calibration(
            collection=request.collection,
            thresholds=[threshold, calibration_pb2.Threshold(precision=0.99)],
            same_pairs=60,
            different_pairs=600,
            item_count=14,
            normalized=request.normalized,
            current_item_count=140,
        )


@pytest.fixture
def server() -> Iterator[CalibratedServer]:
    running = CalibratedServer()
    yield running
    running.stop()


@pytest.fixture
def shop(server: CalibratedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of fourteen photos in the collection "shop", one of them twice."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(14):
        picture = photo("coffee").resize((40 + 2 * min(number, 12), 30))
        (folder / f"{number:02}.jpg").write_bytes(encode(picture))
    assert run(["index", str(folder), "-c", "shop", "--server", server.target]) == 0
    return folder


def calibrate(server: FakeServer, *arguments: object) -> int:
    return run(["calibrate", "-c", "shop", "--server", server.target, *map(str, arguments)])


def test_both_clients_send_pairs_and_read_thresholds(server: CalibratedServer) -> None:
    server.collections["shop"] = {}
    with Client(server.target) as client:
        learned = client.collection("shop").calibrate([0.9, 0.2], np.array([True, False]), [0, 0], missed=3)
        assert client.collection("shop").calibration() == learned
        client.collection("shop").set_background(np.ones((3, 8)))
    assert list(server.pairs.pairs.same) == [True, False]
    assert (server.pairs.pairs.missed, list(server.pairs.pairs.pictures)) == (3, [0, 0])
    assert list(server.background.descriptors.shape) == [3, 8]
    reached, unreached = learned.thresholds
    assert (reached.min_score, reached.min_score_high, unreached.min_score) == (0.61, None, None)
    assert (reached.current_score, unreached.current_score) == (0.66, None)
    assert (learned.item_count, learned.current_item_count) == (14, 140)

    async def again() -> None:
        async with AsyncClient(server.target) as client:
            shop = await client.collection("shop")
            assert await shop.calibrate([0.9], [True], normalized=True) != learned
            assert await shop.calibration() == learned
            await shop.set_background(None)

    asyncio.run(again())
    assert not server.background.HasField("descriptors")


def test_pairs_and_backgrounds_that_are_none_are_refused_before_they_are_sent(
    server: CalibratedServer,
) -> None:
    server.collections["shop"] = {}
    with Client(server.target) as client:
        shop = client.collection("shop")
        with pytest.raises(InvalidArgument, match="pairs are numbers"):
            shop.calibrate(["high"], [True])  # type: ignore[list-item]
        for vectors in ([1.0, 2.0], [], "x"):
            with pytest.raises(InvalidArgument, match="dimension"):
                shop.set_background(vectors)
        with pytest.raises(InvalidArgument, match="views is 'three'; it is one of 'grid', 'pasted'"):
            shop.search(vector=[1.0] * 8, views="three")
        with pytest.raises(InvalidArgument, match="rerank"):
            shop.search(vector=[1.0] * 8, rerank="best")


def test_closer_searches_are_asked_for_on_the_wire(server: CalibratedServer, shop: Path) -> None:
    pictures = [shop / f"{number:02}.jpg" for number in range(4)]
    with Client(server.target) as client:
        client.collection("shop").search(pictures, views="grid", normalize=True, min_precision=0.9)
        client.collection("shop").search(pictures[0], rerank="k_reciprocal")
    *viewed, last = server.asked
    assert [len(request.queries) for request in viewed] == [1, 1, 1, 1]  # ten views of each, 16 in a message
    assert all(request.views == search_pb2.VIEWS_GRID and request.normalize for request in viewed)
    assert last.rerank == search_pb2.RERANK_K_RECIPROCAL


def test_copies_of_the_collections_own_photos_are_searched(
    server: CalibratedServer, shop: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert calibrate(server, "--copies", 2, "--precision", "0.9,0.99", "--normalize") == 0
    told = capsys.readouterr()
    assert "0.6000 to -" in told.out
    assert "learned from 60 pairs" in told.err
    sent = server.pairs
    assert (list(sent.precisions), sent.normalized) == ([0.9, 0.99], True)
    # Of 28 copies and seven photos as they are every fourth is a stranger.
    assert sum(sent.pairs.same) + sent.pairs.missed == 27
    assert set(sent.pairs.pictures) == set(range(14))
    page = (tmp_path / "lookalike-calibration.html").read_text()
    assert page.count("<svg") == 2
    assert "http" not in page


def test_what_was_learned_is_shown_beside_what_is_in_force(
    server: CalibratedServer, shop: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert calibrate(server, "--show", "--normalize") == 0
    told = capsys.readouterr()
    assert "among 14 items; 'shop' holds 140 now" in told.err
    assert told.out.splitlines()[1].split()[:3] == ["0.9", "0.6600", "0.6100"]
    assert calibrate(server, "--show", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["current_item_count"] == 140
    assert [threshold["current_score"] for threshold in printed["thresholds"]] == [0.66, None]
    assert not server.pairs.collection
    assert not (tmp_path / "lookalike-calibration.html").exists()


def test_labelled_pairs_are_scored_by_their_descriptors(
    server: CalibratedServer, shop: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = (str(shop / name) for name in ("00.jpg", "01.jpg"))
    (tmp_path / "pairs.csv").write_text(f"id,other,label\n{first},{second},different\n{first},{first},1\n")
    assert calibrate(server, "--pairs", "pairs.csv", "--json") == 0
    thresholds = json.loads(capsys.readouterr().out)["thresholds"]
    assert [threshold["min_score"] for threshold in thresholds] == [0.61, None]
    vectors = [descriptor(Path(name).read_bytes()) for name in (first, second)]
    assert list(server.pairs.pairs.same) == [False, True]
    assert list(server.pairs.pairs.scores) == pytest.approx([float(vectors[0] @ vectors[1]), 1.0], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a,b,1\n", "'a' (line 1), 'b' (line 1)"),
        ("a,b,c\nx,y,z\n", "line 2: expected id, id and a label"),
        ("a,b\n", "line 1: expected id, id and a label"),
        ("id,id,label\n", "holds no pairs"),
    ],
)
def test_pairs_that_cannot_be_used_are_named_by_their_line(
    server: CalibratedServer, shop: Path, capsys: pytest.CaptureFixture[str], text: str, word: str
) -> None:
    Path("pairs.csv").write_text(text)
    assert calibrate(server, "--pairs", "pairs.csv") == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["--precision", "0.9,much"], 2, "numbers between 0 and 1"),
        (["--precision", "1"], 2, "numbers between 0 and 1"),
        (["--pairs", "nowhere.csv"], 2, "nowhere.csv"),
        (["-o", "no/where.html"], 2, "there is no folder"),
        (["--background", "{empty}"], 2, "no photos in"),
        (["--show", "--background", "{empty}"], 2, "--show learns nothing"),
    ],
)
def test_misuse_is_one_clear_line(
    server: CalibratedServer,
    shop: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    status: int,
    word: str,
) -> None:
    (tmp_path / "empty").mkdir()
    given = [argument.format(empty=tmp_path / "empty") for argument in arguments]
    assert calibrate(server, *given) == status
    assert word in capsys.readouterr().err


def test_a_collection_without_files_here_cannot_be_copied(
    server: CalibratedServer, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in list(shop.iterdir())[:2]:
        file.unlink()
    assert calibrate(server) == 1
    assert "12 of 14 items of 'shop' name a file on this machine" in capsys.readouterr().err
