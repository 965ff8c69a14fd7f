"""Scores of samples: none is left out in silence."""

from __future__ import annotations

import pytest

from steerward.clients._samples import Scored, checked
from steerward.protocol.errors import EngineFailure

ONE = Scored(1.0, {"a": 1.0})


def test_missing_score_is_an_error_where_none_may_be_missing() -> None:
    """It was left out, and the scores behind it moved up to other samples."""
    assert checked([ONE, ONE]) == [ONE, ONE]
    with pytest.raises(EngineFailure, match="1 of 3 samples have no score"):
        checked([ONE, None, ONE])
