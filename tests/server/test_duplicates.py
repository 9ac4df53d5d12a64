"""The search for near-duplicates, on arrays small enough to check by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lookalike_server.duplicates import (
    Asked,
    Duplicates,
    Policy,
    Progress,
    candidates,
    find_duplicates,
    search,
)
from lookalike_server.duplicates.candidates import TOLERANCE, Pairs, Plan, similar_pairs
from lookalike_server.duplicates.clusters import Recall, clustered_pairs, sampled_recall


def at_degrees(*degrees: float) -> np.ndarray:
    """Descriptors in the plane: the similarity of two is the cosine of the angle between them."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def cosine(degrees: float) -> float:
    return float(np.cos(np.radians(degrees)))


def find(
    descriptors: np.ndarray,
    *,
    digests: list[bytes] | None = None,
    attributes: list[dict[str, object]] | None = None,
    threshold: float = cosine(10),
    reference: list[bool] | None = None,
    **asked: Any,
) -> Duplicates:
    count = len(descriptors)
    return find_duplicates(
        [f"item{i}" for i in range(count)],
        descriptors,
        digests or [b""] * count,
        [json.dumps(a) for a in attributes] if attributes else [""] * count,
        Asked(threshold, against=reference is not None, **asked),
        reference=reference,
    )


def rows(found: Duplicates) -> list[list[int]]:
    return [[member.row for member in group.members] for group in found.groups]


def test_items_that_resemble_nothing_are_in_no_group() -> None:
    assert find(at_degrees(0, 40, 80)).groups == []


def test_no_items_make_no_groups() -> None:
    assert find(np.empty((0, 4), np.float32)).groups == []


def test_similar_items_form_a_group_and_the_largest_group_comes_first() -> None:
    assert rows(find(at_degrees(0, 2, 90, 93, 95))) == [[2, 3, 4], [0, 1]]


def test_a_group_lists_the_representative_and_then_the_nearest_first() -> None:
    found = find(at_degrees(0, 8, 3), attributes=[{"width": 9, "height": 9}, {}, {}])
    assert rows(found) == [[0, 2, 1]]
    assert [m.score for m in found.groups[0].members] == pytest.approx([1, cosine(3), cosine(8)], abs=1e-6)


def test_a_pair_exactly_at_the_threshold_is_found() -> None:
    assert rows(find(at_degrees(0, 10), threshold=cosine(10))) == [[0, 1]]
    assert rows(find(at_degrees(0, 10), threshold=cosine(10) + 1e-4)) == []


def test_equal_descriptors_are_found_at_threshold_one() -> None:
    vector = np.random.default_rng(0).normal(size=64).astype(np.float32)
    vector /= np.linalg.norm(vector)
    assert rows(find(np.stack([vector, vector]), threshold=1.0)) == [[0, 1]]


def test_exact_copies_are_grouped_and_marked_although_nothing_else_is_similar() -> None:
    found = find(at_degrees(0, 50, 0), digests=[b"same", b"other", b"same"])
    assert rows(found) == [[0, 2]]
    assert [m.exact for m in found.groups[0].members] == [True, True]


def test_a_copy_of_a_similar_item_is_not_an_exact_copy_of_the_representative() -> None:
    found = find(at_degrees(0, 5, 5), digests=[b"a", b"b", b"b"], attributes=[{"modified": 1}, {}, {}],
                 policy=Policy.OLDEST)  # fmt: skip
    assert [(m.row, m.exact) for m in found.groups[0].members] == [(0, True), (1, False), (2, False)]


def test_items_without_a_digest_are_not_copies_of_each_other() -> None:
    assert find(at_degrees(0, 90), digests=[b"", b""]).groups == []


def test_every_pair_is_counted_copies_included() -> None:
    found = find(at_degrees(0, 0, 5, 90), digests=[b"a", b"a", b"b", b"c"])
    assert found.pairs == 3  # the two copies, and each of them with the similar one


def test_a_chain_is_taken_apart_where_the_representative_no_longer_resembles() -> None:
    chain = at_degrees(0, 8, 16, 24, 32)  # each within 10 degrees of the next
    found = find(chain, attributes=[{"modified": i} for i in range(5)], policy=Policy.OLDEST)
    assert rows(found) == [[0, 1], [2, 3]]
    assert found.split == 3


def test_a_member_in_reach_of_two_representatives_joins_the_nearer() -> None:
    oldest_first = [{"modified": 0}, {"modified": 1}, {"modified": 2}, {"modified": 3}]
    found = find(at_degrees(0, 12, 9, 2), attributes=oldest_first, policy=Policy.OLDEST)
    assert rows(found) == [[0, 3], [1, 2]]


def test_the_largest_image_represents_by_pixels_and_then_by_bytes() -> None:
    sizes: list[dict[str, object]] = [
        {"width": 10, "height": 10, "bytes": 900},
        {"width": 20, "height": 10, "bytes": 100},
        {"width": 10, "height": 20, "bytes": 200},
    ]
    assert rows(find(at_degrees(0, 1, 2), attributes=sizes))[0][0] == 2


def test_the_oldest_file_represents() -> None:
    ages: list[dict[str, object]] = [{"modified": 30.5}, {"modified": 20}, {}]
    assert rows(find(at_degrees(0, 1, 2), attributes=ages, policy=Policy.OLDEST))[0][0] == 1


def test_the_most_connected_item_represents() -> None:
    assert rows(find(at_degrees(0, 9, 5, 40), policy=Policy.MOST_CONNECTED)) == [[2, 1, 0]]


@pytest.mark.parametrize(
    ("asked", "best"),
    [
        ({"policy": Policy.SHARPEST}, 1),
        ({"policy": Policy.MAX, "attribute": "rank.stars"}, 2),
        ({"policy": Policy.MIN, "attribute": "rank.stars"}, 1),
    ],
)
def test_an_attribute_chooses_what_represents(asked: dict[str, Any], best: int) -> None:
    attributes: list[dict[str, object]] = [
        {"rank": 5},
        {"sharpness": 9.5, "rank": {"stars": 2}},
        {"sharpness": 3, "rank": {"stars": 4}},
    ]
    assert rows(find(at_degrees(0, 1, 2), attributes=attributes, **asked))[0][0] == best


def test_new_items_are_compared_with_all_and_old_ones_not_with_each_other() -> None:
    descriptors = at_degrees(0, 1, 50, 90, 51, 91, 89)  # the first four are old
    found = find(descriptors, since=4)
    assert sorted(map(sorted, rows(found))) == [[2, 4], [3, 5, 6]]
    assert found.pairs == 4
    assert rows(find(descriptors, since=7)) == []


def test_a_new_exact_copy_of_an_old_item_is_found() -> None:
    assert rows(find(at_degrees(0, 50, 0), digests=[b"a", b"b", b"a"], since=2)) == [[0, 2]]
    assert rows(find(at_degrees(0, 0, 50), digests=[b"a", b"a", b"b"], since=2)) == []


def test_only_copies_of_the_reference_are_found_and_it_is_never_a_copy_itself() -> None:
    descriptors = at_degrees(0, 1, 4, 50, 51, 90)
    found = find(descriptors, reference=[True, True, False, False, False, True])
    assert rows(found) == [[1, 2]]  # the nearer reference item; 3 and 4 are copies of each other alone
    exact = find(at_degrees(0, 0, 0, 9), digests=[b"a", b"a", b"a", b"b"],
                 reference=[True, True, False, False])  # fmt: skip
    assert rows(exact) == [[0, 2, 3]]
    assert [member.exact for member in exact.groups[0].members] == [True, True, False]


def test_a_copy_that_only_resembles_another_copy_of_the_reference_is_left_out() -> None:
    assert rows(find(at_degrees(0, 8, 16), reference=[True, False, False])) == [[0, 1]]


@pytest.mark.parametrize("value", ["big", True, None, [1], float("nan"), 10**400])
def test_an_attribute_that_is_no_number_counts_as_missing(value: object) -> None:
    attributes: list[dict[str, object]] = [{"width": value, "height": 5}, {"width": 3, "height": 3}]
    assert rows(find(at_degrees(0, 1), attributes=attributes))[0][0] == 1


def test_progress_reaches_every_item_and_an_exception_in_it_ends_the_search() -> None:
    class Enough(Exception):
        pass

    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.share == 1 and progress.pairs:
            raise Enough

    with pytest.raises(Enough):
        find_duplicates(["a", "b"], at_degrees(0, 1), [b"", b""], ["", ""], Asked(0.9), watch=stop)
    assert (seen[-1].items, seen[-1].pairs) == (2, 1)


@pytest.fixture
def _tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_BLOCK", (3, 7))


@pytest.mark.usefixtures("_tiny_blocks")
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 20, 23])
def test_pairs_across_blocks_come_once_each(count: int) -> None:
    descriptors = at_degrees(*np.linspace(0, 60, count))
    found = [
        (a, b)
        for block in similar_pairs(descriptors, np.arange(count), cosine(20))
        for a, b in zip(block.first, block.second, strict=True)
    ]
    similarity = descriptors.astype(np.float64) @ descriptors.astype(np.float64).T
    expected = {tuple(p) for p in np.argwhere(np.triu(similarity >= cosine(20) - TOLERANCE, 1)).tolist()}
    assert len(found) == len(expected)
    assert set(found) == expected


@pytest.mark.usefixtures("_tiny_blocks")
def test_the_share_of_the_work_grows_to_one() -> None:
    shares = [b.share for b in similar_pairs(at_degrees(*range(20)), np.arange(20), 0.5)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def image_like(count: int, seed: int = 0) -> np.ndarray:
    """Descriptors in clumps of many sizes and of few dimensions, as images' are; every tenth has a twin."""
    random = np.random.default_rng(seed)
    clumps = random.normal(size=(count // 20, 24))
    items = clumps[random.zipf(1.5, count) % len(clumps)] + random.normal(size=(count, 24))
    items[::10] = items[1::10] + 0.15 * random.normal(size=items[::10].shape)
    wide = items @ random.normal(size=(24, 96))
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def pairs_of(blocks: Iterable[Pairs]) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for block in blocks for a, b in zip(block.first, block.second, strict=True)]


def test_among_very_many_items_nearly_all_pairs_are_found_once_each_and_none_is_invented() -> None:
    descriptors = image_like(4000)
    rows = np.arange(4000)
    every = set(pairs_of(similar_pairs(descriptors, rows, 0.95)))
    found = pairs_of(clustered_pairs(descriptors, rows, 0.95))
    assert len(found) == len(set(found))
    assert set(found) <= every
    assert len(found) >= 0.99 * len(every) > 390


def test_the_clustered_search_gives_the_same_pairs_each_time_and_its_share_grows_to_one() -> None:
    descriptors = image_like(1000)
    first, again = ([*clustered_pairs(descriptors, np.arange(1000), 0.9)] for _ in range(2))
    assert pairs_of(first) == pairs_of(again)
    shares = [block.share for block in first]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_clustered_search_takes_few_items_too(count: int) -> None:
    descriptors = np.ones((count, 1), np.float32)
    assert len(pairs_of(clustered_pairs(descriptors, np.arange(count), 0.9))) == count * (count - 1) // 2


def test_a_search_among_many_states_its_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = image_like(2000)
    exact = find(descriptors, threshold=0.95)
    monkeypatch.setattr(search, "_EXACT_CELLS", 1000)
    many = find(descriptors, threshold=0.95)
    assert exact.recall is None
    assert many.recall is not None
    low, high = many.recall.interval()
    assert 0.9 < low < high <= 1
    assert abs(len(many.groups) - len(exact.groups)) <= 0.02 * len(exact.groups)


@pytest.mark.parametrize("since", [0, 1500])
@pytest.mark.parametrize("reference", [None, 400])
def test_the_search_among_many_and_the_exact_one_agree_on_what_is_asked(
    monkeypatch: pytest.MonkeyPatch, since: int, reference: int | None
) -> None:
    descriptors = image_like(2000)
    flags = None if reference is None else [row < reference for row in range(2000)]
    exact = find(descriptors, threshold=0.95, since=since, reference=flags)
    monkeypatch.setattr(search, "_EXACT_CELLS", 1000)
    many = find(descriptors, threshold=0.95, since=since, reference=flags)
    assert many.recall is not None
    assert 0.98 * exact.pairs <= many.pairs <= exact.pairs
    assert abs(len(many.groups) - len(exact.groups)) <= 0.02 * len(exact.groups) + 1


def test_the_recall_of_a_sample_counts_the_pairs_that_were_not_joined() -> None:
    descriptors = at_degrees(0, 1, 50, 51)
    apart, half = np.arange(4), np.array([0, 0, 2, 3])
    plan = Plan.every_pair(np.arange(4))
    for sets, found in ((apart, 0), (half, 2)):
        recall = sampled_recall(descriptors, plan, sets, cosine(5), np.arange(4), between=lambda: None)
        assert recall == Recall(found, 4)


@pytest.mark.parametrize(
    ("found", "pairs", "low", "high"), [(0, 0, 0.0, 1.0), (10, 10, 0.722, 1.0), (50, 100, 0.404, 0.596)]
)
def test_the_interval_of_a_recall_is_wilsons(found: int, pairs: int, low: float, high: float) -> None:
    assert Recall(found, pairs).interval() == pytest.approx((low, high), abs=1e-3)


collections = st.lists(
    st.tuples(st.integers(0, 35), st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=24
)


@settings(max_examples=150, deadline=None)
@given(items=collections, policy=st.sampled_from(Policy), seed=st.integers(0, 1000))
def test_the_laws_of_grouping_hold_for_any_items_in_any_order(
    items: list[tuple[int, int, int]], policy: Policy, seed: int
) -> None:
    ids = [f"item{i}" for i in range(len(items))]
    digests = [f"{angle}/{variant}".encode() for angle, variant, _ in items]
    attributes = [json.dumps({"width": w, "height": 1, "modified": w}) for _, _, w in items]
    descriptors = at_degrees(*(angle * 3 for angle, _, _ in items))
    threshold = cosine(9)

    def named(order: list[int]) -> list[list[tuple[str, float, bool]]]:
        found = find_duplicates(
            [ids[i] for i in order],
            descriptors[order],
            [digests[i] for i in order],
            [attributes[i] for i in order],
            Asked(threshold, policy, attribute="width"),
        )
        return [[(ids[order[m.row]], m.score, m.exact) for m in group.members] for group in found.groups]

    groups = named(list(range(len(ids))))
    shuffled = np.random.default_rng(seed).permutation(len(ids)).tolist()
    assert named(shuffled) == groups

    members = [name for group in groups for name, _, _ in group]
    assert len(members) == len(set(members))
    for group in groups:
        assert len(group) >= 2
        head = ids.index(group[0][0])
        for name, score, exact in group:
            row = ids.index(name)
            assert score == pytest.approx(float(descriptors[row] @ descriptors[head]), abs=1e-5)
            assert score >= threshold - TOLERANCE
            assert exact == (digests[row] == digests[head])

    grouped = set(members)
    for i, name in enumerate(ids):  # a copy of a file is never left alone
        if any(digests[i] == digests[j] for j in range(len(ids)) if j != i):
            assert name in grouped
