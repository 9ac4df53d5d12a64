"""The extractor's public names."""

from __future__ import annotations

import lookalike_extractor
import pytest


@pytest.mark.parametrize("name", lookalike_extractor.__all__)
def test_each_public_name_is_a_class_or_a_function(name: str) -> None:
    assert callable(getattr(lookalike_extractor, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lookalike_extractor.nothing
