from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.data import load_dataset
from edgekit.errors import DataError, RecipeError
from edgekit.recipe.schema import DataSection

MODULE = """
import numpy as np
from edgekit.data import ArraySplit, Dataset

def load(count: int, bias: float = 0.0):
    part = ArraySplit((np.full((count, 2), bias, np.float32),), np.arange(count) % 2)
    return Dataset(train=part, validation=part, test=part)

def wrong():
    return [1, 2]

LIMIT = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "sources_under_test.py").write_text(MODULE)
    (tmp_path / "sources_that_need_more.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "sources_under_test"


def test_module_is_called_with_its_arguments(module: str) -> None:
    dataset = load_dataset(DataSection(module=f"{module}:load", args={"count": 6, "bias": 2.5}))
    assert len(dataset.train) == 6
    assert dataset.sample()[0].tolist() == [[2.5, 2.5]]


@pytest.mark.parametrize(
    ("entry", "args", "error", "message"),
    [
        ("sources_under_test", {}, RecipeError, "expected 'package.module:callable'; received 'sources_under_test'"),
        ("sources_under_test:", {}, RecipeError, "expected 'package.module:callable'"),
        ("no_such_module:load", {}, RecipeError, "'no_such_module' cannot be imported"),
        ("sources_that_need_more:load", {}, RecipeError, "a_package_that_nobody_has"),
        ("sources_under_test:lod", {"count": 3}, RecipeError, "has no callable 'lod'. Did you mean 'load'"),
        ("sources_under_test:LIMIT", {}, RecipeError, "has no callable 'LIMIT'"),
        ("sources_under_test:load", {}, RecipeError, "missing a required argument: 'count'"),
        ("sources_under_test:load", {"count": 3, "bais": 1}, RecipeError, r"'bais'.*Its arguments: count: int, bias"),
        ("sources_under_test:wrong", {}, DataError, "to return an edgekit.data.Dataset; received list"),
        ("sources_under_test:load", {"count": 3, "bias": float("nan")}, DataError, "split 'train': .* received nan"),
    ],
)
def test_module_is_refused_when_it_yields_no_dataset(
    module: str, entry: str, args: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_dataset(DataSection(module=entry, args=args))
