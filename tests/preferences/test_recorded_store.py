"""The episode store that a folder of pairs or scores names."""

import json

import pytest

from grape.core.errors import DataError
from grape.preferences import recorded_stores


@pytest.mark.parametrize("store", ["a\0b", "x" * 5000, 3, None, ["a"], {}])
def test_a_store_that_cannot_be_is_refused(tmp_path, store):
    (tmp_path / "run.json").write_text('{"verb": "pair"}')
    (tmp_path / "done.json").write_text(json.dumps({"store": store}))
    with pytest.raises(DataError, match=r"done\.json"):
        recorded_stores(tmp_path)
