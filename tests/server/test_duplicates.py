"""The search for near-duplicates, on arrays small enough to check by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lookalike_server.duplicates import Duplicates, Policy, candidates, find_duplicates
from lookalike_server.duplicates.candidates import TOLERANCE, similar_pairs


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
    policy: Policy = Policy.LARGEST,
) -> Duplicates:
    count = len(descriptors)
    return find_duplicates(
        [f"item{i}" for i in range(count)],
        descriptors,
        digests or [b""] * count,
        [json.dumps(a) for a in attributes] if attributes else [""] * count,
        threshold=threshold,
        policy=policy,
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


@pytest.mark.parametrize("value", ["big", True, None, [1], float("nan"), 10**400])
def test_an_attribute_that_is_no_number_counts_as_missing(value: object) -> None:
    attributes: list[dict[str, object]] = [{"width": value, "height": 5}, {"width": 3, "height": 3}]
    assert rows(find(at_degrees(0, 1), attributes=attributes))[0][0] == 1


def test_progress_reaches_every_item_and_an_exception_in_it_ends_the_search() -> None:
    class Enough(Exception):
        pass

    def stop(items: int, pairs: int) -> None:
        assert (items, pairs) == (2, 1)
        raise Enough

    with pytest.raises(Enough):
        find_duplicates(["a", "b"], at_degrees(0, 1), [b"", b""], ["", ""], threshold=0.9, progress=stop)


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
            threshold=threshold,
            policy=policy,
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
