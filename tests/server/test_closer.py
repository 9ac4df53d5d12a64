"""Searches that look closer: views, normalised scores, another order, and precision instead of scores."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import status_pb2
from lookalike.v1 import calibration_pb2, types_pb2
from lookalike.v1 import search_pb2 as pb
from lookalike_extractor.calibration import ScoredPairs
from lookalike_extractor.errors import LookalikeError
from lookalike_server.background import set_background
from lookalike_server.calibrations import set_calibration
from lookalike_server.engine import Outcome
from lookalike_server.errors import ArgumentInvalid, DescriptorInvalid
from lookalike_server.rows import NewRow
from lookalike_server.services.calibration import CalibrationServicer
from made_rows import SPACE, pointing, row
from over_wire import HandEngine, Wire, image_query, info, serving, tensor
from PIL import Image

Test = Callable[[Wire], Awaitable[None]]


class ColourEngine(HandEngine):
    """A picture's descriptor points to its mean colour; with a "bad" first byte it is none."""

    async def embed(
        self, images: Sequence[Any], recipes: Sequence[str], *, wait: bool = False
    ) -> list[Outcome]:
        self.seen += images
        return [Outcome(descriptors={recipes[0]: _colour(image)}) for image in images]


def _colour(image: Any) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) if isinstance(image, bytes) else image
    return pointing(*(1 + pixels.reshape(-1, 3).mean(axis=0)))


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Test], None]:
    """Runs a coroutine against a server whose collection "shop" has a colour for each name."""

    def runner(test: Test) -> None:
        async def all_of_it() -> None:
            async with serving(tmp_path, ColourEngine()) as wire:
                wire.catalog.create("shop", SPACE).upsert(
                    [row("red", 1, 0, 0), row("green", 0, 1, 0), row("blue", 0, 0, 1), row("grey", 1, 1, 1)]
                )
                await test(wire)

        asyncio.run(all_of_it())

    return runner


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and field of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(caught.value.trailing_metadata() or ())
    detail = info(status_pb2.Status.FromString(trailers["grpc-status-details-bin"]))  # type: ignore[arg-type]
    return caught.value.code(), detail.reason, detail.metadata["field"]


def picture_with_a_patch() -> bytes:
    """Grey, with a red rectangle in it, as a PNG."""
    canvas = Image.new("RGB", (200, 160), "grey")
    canvas.paste("red", (30, 40, 110, 110))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def descriptor_query(*values: float) -> pb.Query:
    return pb.Query(descriptor=tensor(pointing(*values).tolist()))


def ids(response: pb.SearchResponse, query: int = 0) -> list[str]:
    return [hit.id for hit in response.results[query].hits]


def test_a_picture_inside_the_query_is_found_by_its_view(run: Callable[[Test], None]) -> None:
    async def test(wire: Wire) -> None:
        query = image_query(picture_with_a_patch())
        assert ids(await wire.find(query, k=1)) == ["grey"]
        looked = await wire.find(query, k=2, views=pb.VIEWS_PASTED)
        scores = {hit.id: hit.score for hit in looked.results[0].hits}
        assert set(scores) == {"grey", "red"}
        assert scores["red"] == pytest.approx(0.97, abs=0.01)  # a part counts 0.03 less
        pixels = types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_UINT8, shape=[4, 4, 3], data=b"\xff\0\0" * 16)
        plain = await wire.find(pb.Query(image=types_pb2.Image(pixels=pixels)), k=1, views=pb.VIEWS_PASTED)
        assert ids(plain) == ["red"]

    run(test)


def test_with_views_a_bad_picture_fails_alone_and_other_queries_have_one_view(
    run: Callable[[Test], None],
) -> None:
    async def test(wire: Wire) -> None:
        queries = [pb.Query(item_id="red"), image_query(b"bad"), descriptor_query(0, 1, 0)]
        found = await wire.find(*queries, image_query(picture_with_a_patch()), views=pb.VIEWS_PASTED, k=1)
        assert info(found.results[1].status).reason == "IMAGE_FORMAT_UNSUPPORTED"
        assert info(found.results[1].status).metadata["field"] == "queries[1].image"
        assert [ids(found, i) for i in (0, 2)] == [["grey"], ["green"]]
        assert len(ids(found, 3)) == 1
        code, reason, field = await refusal(
            wire.find(image_query(picture_with_a_patch()), views=pb.VIEWS_GRID)
        )
        assert (code, reason, field) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "MESSAGE_TOO_LARGE",
            "queries",
        )  # ten views, eight images

    run(test)


def test_normalised_scores_are_less_what_the_query_shares_with_the_background(
    run: Callable[[Test], None],
) -> None:
    async def test(wire: Wire) -> None:
        query = descriptor_query(1, 0.2, 0)
        code, reason, _ = await refusal(wire.find(query, normalize=True))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_BACKGROUND")
        rows = np.stack([pointing(1, 1, 0), pointing(0, 1, 1), pointing(1, 0, 1), pointing(0, 0, 0, 1)])
        set_background(wire.catalog.get("shop"), rows)
        plain, less = await wire.find(query), await wire.find(query, normalize=True)
        assert ids(plain) == ids(less)
        bias = np.sort(rows @ pointing(1, 0.2, 0))[-3:].mean()
        for before, after in zip(plain.results[0].hits, less.results[0].hits, strict=True):
            assert after.score == pytest.approx(before.score - bias, abs=1e-6)
        bounded = await wire.find(query, normalize=True, min_score=0.0)
        assert ids(bounded) == [hit.id for hit in less.results[0].hits if hit.score >= 0]
        set_background(wire.catalog.get("shop"), np.empty((0, 4), np.float32))
        assert (await refusal(wire.find(query, normalize=True)))[1] == "NO_BACKGROUND"

    run(test)


def test_a_background_that_is_none_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, ColourEngine()) as wire:
            shop = wire.catalog.create("shop", SPACE)
            wrong: list[tuple[np.ndarray, type[LookalikeError]]] = [
                (np.ones((2, 4), np.float32), ArgumentInvalid),
                (np.ones((3, 5), np.float32), DescriptorInvalid),
                (np.zeros((3, 4), np.float32), DescriptorInvalid),
            ]
            for rows, error in wrong:
                with pytest.raises(error):
                    set_background(shop, rows)

    asyncio.run(test())


@pytest.mark.parametrize("rerank", [pb.RERANK_QUERY_EXPANSION, pb.RERANK_K_RECIPROCAL])
def test_neighbours_bring_their_like_forward_and_scores_stay_what_they_are(
    tmp_path: Path, rerank: int
) -> None:
    async def test() -> None:
        async with serving(tmp_path, ColourEngine()) as wire:
            rng = np.random.default_rng(0)

            def rows(name: str, count: int, towards: float, spread: float) -> list[NewRow]:
                off = spread * rng.normal(size=(count, 2))
                return [row(f"{name}{i}", 1, towards + off[i, 0], off[i, 1]) for i in range(count)]

            # One stranger is nearer to the query than its kin are, but its neighbours are other strangers.
            others = [*rows("stranger", 30, -0.36, 0.02), *rows("lone", 1, -0.25, 0)]
            wire.catalog.create("shop", SPACE).upsert([*rows("kin", 12, 0.33, 0.02), *others])
            query = descriptor_query(1, 0, 0)
            plain = (await wire.find(query, k=43)).results[0].hits
            ordered = (await wire.find(query, k=43, rerank=rerank)).results[0].hits
            assert plain[0].id == "lone0"
            assert {hit.id for hit in ordered[:12]} == {f"kin{i}" for i in range(12)}
            scores = {hit.id: pytest.approx(hit.score, abs=1e-6) for hit in plain}
            assert {hit.id: hit.score for hit in ordered} == scores
            assert len((await wire.find(query, k=5, rerank=rerank)).results[0].hits) == 5
            assert "kin3" not in ids(await wire.find(pb.Query(item_id="kin3"), k=20, rerank=rerank))

    asyncio.run(test())


def test_a_precision_bounds_hits_by_the_calibration_of_the_same_kind_of_scores(
    run: Callable[[Test], None],
) -> None:
    async def test(wire: Wire) -> None:
        query = descriptor_query(1, 0.2, 0)
        code, reason, _ = await refusal(wire.find(query, min_precision=0.9))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_CALIBRATED")
        shop = wire.catalog.get("shop")
        same = np.repeat([True, False], 60)
        pairs = ScoredPairs(np.where(same, 0.8, 0.3).astype(np.float32), same, np.arange(120))
        set_calibration(shop, pairs, [0.9])
        assert ids(await wire.find(query, min_precision=0.9)) == ["red"]
        assert ids(await wire.find(query, min_precision=0.9, min_score=0.99)) == []
        set_background(shop, np.eye(4, dtype=np.float32))
        assert (await refusal(wire.find(query, min_precision=0.9, normalize=True)))[1] == "NOT_CALIBRATED"
        set_calibration(shop, pairs, [0.9], normalized=True)
        assert ids(await wire.find(query, min_precision=0.9, normalize=True)) == []
        set_background(shop, np.eye(4, dtype=np.float32))  # what normalised scores mean is forgotten
        assert (await refusal(wire.find(query, min_precision=0.9, normalize=True)))[1] == "NOT_CALIBRATED"

    run(test)


def test_a_grown_collection_tells_the_score_that_its_searches_take(run: Callable[[Test], None]) -> None:
    async def test(wire: Wire) -> None:
        shop = wire.catalog.get("shop")
        rng = np.random.default_rng(0)
        same = rng.random(1000) < 1 / 3
        scores = rng.normal(np.where(same, 0.7, 0.4), 0.1).astype(np.float32)
        set_calibration(shop, ScoredPairs(scores, same, np.arange(1000)), [0.9])
        ladder = np.linspace(0.5, 0.9, 36)
        shop.upsert([row(f"at {score:.2f}", score, 0, 0, np.sqrt(1 - score**2)) for score in ladder])
        request = calibration_pb2.GetCalibrationRequest(collection="shop")
        told = (await CalibrationServicer(wire.catalog).GetCalibration(request, None)).calibration
        (threshold,) = told.thresholds
        assert (told.item_count, told.current_item_count) == (4, 40)
        assert threshold.min_score < threshold.current_score
        found = (await wire.find(descriptor_query(1, 0, 0), k=40, min_precision=0.9)).results[0].hits
        known = (await wire.find(descriptor_query(1, 0, 0), k=40)).results[0].hits
        assert [hit.id for hit in found] == [h.id for h in known if h.score >= threshold.current_score]
        assert len(found) < sum(hit.score >= threshold.min_score for hit in known)

    run(test)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"views": 7}, "views"),
        ({"rerank": 9}, "rerank"),
        ({"views": pb.VIEWS_GRID, "rerank": pb.RERANK_K_RECIPROCAL}, "rerank"),
        ({"views": pb.VIEWS_GRID, "min_precision": 0.9}, "min_precision"),
        ({"normalize": True, "group_by": "colour"}, "normalize"),
        ({"rerank": pb.RERANK_K_RECIPROCAL, "range": True, "min_score": 0.1}, "rerank"),
        ({"min_precision": 1.5}, "min_precision"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_by_name(
    run: Callable[[Test], None], options: dict[str, Any], field: str
) -> None:
    async def test(wire: Wire) -> None:
        call = wire.find(descriptor_query(1, 0, 0), **options)
        assert await refusal(call) == (grpc.StatusCode.INVALID_ARGUMENT, "ARGUMENT_INVALID", field)

    run(test)
