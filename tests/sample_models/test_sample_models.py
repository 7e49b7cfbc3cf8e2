"""Every sample model: published sizes, an export with a free batch, deterministic data that a network can learn."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.data import ArraySplit, Dataset, batches, check_dataset, code_digest, data_digest, load_dataset
from edgekit.errors import DataError
from edgekit.recipe.load import load_recipe
from edgekit.recipe.schema import DataSection

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_models"
NAMES = sorted(path.parent.name for path in SAMPLES.glob("*/recipe.yaml"))
FILES = {"__init__.py", "README.md", "data.py", "model_keras.py", "model_pytorch.py", "recipe.yaml"}
SMALL = {"samples": 60, "seed": 0}
"""Arguments of ``load`` where its data are generated."""

pytestmark = pytest.mark.filterwarnings(
    # nn.GRU keeps a flat list of its weights beside the registered ones; torch.export notices, rightly, without harm.
    "ignore:The tensor attributes self.gru._flat_weights:UserWarning",
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These networks are too small to share; several threads on a busy machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def development_data() -> Path:
    return Path(os.environ.get("EDGEKIT_DATA_DIR", ROOT.parent / "shared" / "data"))


def needs(name: str) -> Path:
    path = development_data() / name
    if not path.is_file():
        pytest.skip(f"development data are not here: {path} (set EDGEKIT_DATA_DIR)")
    return path


def load(name: str, **arguments: Any) -> Dataset:
    dataset = importlib.import_module(f"sample_models.{name}.data").load(**arguments)
    assert isinstance(dataset, Dataset)
    return dataset


def build(name: str, **arguments: Any) -> torch.nn.Module:
    module = importlib.import_module(f"sample_models.{name}.model_pytorch").build(**arguments)
    assert isinstance(module, torch.nn.Module)
    return module


def arguments_of(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    recipe = load_recipe(SAMPLES / name / "recipe.yaml")
    return dict(recipe.model.args), dict(recipe.data.args)


def small(name: str) -> Dataset:
    settings = {} if name == "digits" else SMALL
    return load(name, **{**arguments_of(name)[1], **settings})


def arrays(dataset: Dataset) -> Iterator[np.ndarray]:
    for split in (dataset.train, dataset.validation, dataset.test):
        assert isinstance(split, ArraySplit)
        assert split.labels is not None
        yield from (*split.inputs, split.labels)


def settled(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.nn.Module:
    """Set moving averages from these inputs: with the initial ones deep networks answer the same to everything."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # averages over all that it sees
    module.train()
    with torch.no_grad():
        module(*inputs)
    return module.eval()


def test_samples_have_the_same_files() -> None:
    assert NAMES == [
        "digits",
        "gru_sequence",
        "image_classification",
        "keyword_spotting",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "person_detection",
        "text_classifier",
        "vision_transformer",
    ]
    for name in NAMES:
        assert {path.name for path in (SAMPLES / name).iterdir()} >= FILES, name


@pytest.mark.parametrize(
    ("name", "arguments", "trainable", "total"),
    [
        # Keras counts moving averages too; these totals are what MLPerf Tiny's published models have.
        ("keyword_spotting", {}, 23_756, 24_908),
        ("image_classification", {}, 78_186, 78_666),
        ("person_detection", {}, 216_322, 221_794),
        # torchvision's counts of the published architectures.
        ("mobilenet_v2", {"classes": 1000}, 3_504_872, 3_538_984),
        ("mobilenet_v3_small", {"classes": 1000}, 2_542_856, 2_554_968),
        ("digits", {}, 28_410, 28_698),
    ],
)
def test_model_has_the_published_number_of_parameters(
    name: str, arguments: dict[str, Any], trainable: int, total: int
) -> None:
    module = build(name, **arguments)
    counted = [value.numel() for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")]
    assert sum(parameter.numel() for parameter in module.parameters()) == trainable
    assert sum(counted) == total


@pytest.mark.parametrize("name", NAMES)
def test_model_exports_with_a_free_batch_and_takes_the_datas_samples(name: str) -> None:
    torch.manual_seed(0)
    dataset = small(name)
    two, five, many = (tuple(map(torch.from_numpy, dataset.train.batch(range(count))[0])) for count in (2, 5, 16))
    module = settled(build(name, **arguments_of(name)[0]), many)
    free = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, two, dynamic_shapes=tuple({0: free} for _ in two))
    expected = module(*five)
    assert expected.shape == (5, len(dataset.classes))
    torch.testing.assert_close(program.module()(*five), expected, rtol=1e-4, atol=1e-5)
    assert expected.std(0).max() > 1e-4  # samples lead to different scores, so the comparison means something


@pytest.mark.parametrize("name", NAMES)
def test_data_are_the_same_every_time_and_pass_the_checks(name: str) -> None:
    first = small(name)
    check_dataset(first)
    for one, other in zip(arrays(first), arrays(small(name)), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"digits"}))
def test_data_differ_when_the_seed_differs(name: str) -> None:
    one, other = (next(arrays(load(name, **{**arguments_of(name)[1], **SMALL, "seed": seed}))) for seed in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_digests_are_found_without_importing_the_model(name: str) -> None:
    recipe = load_recipe(SAMPLES / name / "recipe.yaml")
    assert recipe.model.source == f"sample_models.{name}.model_pytorch:build"
    assert len({data_digest(recipe.data), code_digest(recipe.model.source)}) == 2


def test_text_labels_follow_from_the_words() -> None:
    data = importlib.import_module("sample_models.text_classifier.data")
    generator = np.random.default_rng(5)
    for _ in range(200):
        words, label = data.sentence(generator)
        total = 0
        for position, word in enumerate(words):
            verdict = next((sign for sign, group in zip((-1, 0, 1), data.VERDICTS, strict=True) if word in group), 0)
            total += -verdict if "not" in words[max(0, position - 2) : position] else verdict
        assert label == np.sign(total) + 1
        assert len(words) <= data.LENGTH


def test_text_padding_does_not_change_the_scores() -> None:
    module, dataset = build("text_classifier").eval(), small("text_classifier")
    ids, mask = map(torch.from_numpy, dataset.test.batch(range(4))[0])
    assert not mask.all()
    noise = torch.where(mask == 0, torch.randint_like(ids, 1, 30), ids)
    torch.testing.assert_close(module(noise, mask), module(ids, mask))
    assert not torch.allclose(module(noise, torch.ones_like(mask)), module(ids, mask))


@pytest.mark.parametrize(("path", "message"), [("none.npz", "there is no such file"), ("other.npz", "expected arrays")])
@pytest.mark.parametrize("name", ["keyword_spotting", "image_classification"])
def test_data_refuse_a_file_that_is_something_else(name: str, path: str, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", z=np.zeros(3))
    with pytest.raises(DataError, match=message):
        load(name, path=str(tmp_path / path))


def test_data_refuse_images_that_do_not_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 64, 64), np.uint8), y=np.zeros(9))
    with pytest.raises(DataError, match=r"at most 32×32; received uint8 \[9, 64, 64\]"):
        load("image_classification", path=str(tmp_path / "a.npz"))


def test_keyword_clips_load_when_the_file_is_here() -> None:
    path = needs("kws/speech_commands_dev500.npz")
    section = DataSection(module="sample_models.keyword_spotting.data:load", args={"path": str(path)})
    dataset = load_dataset(section)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [350, 50, 100]
    first = dataset.sample()[0]
    assert first.shape == (1, 1, 49, 10)
    assert data_digest(section) != data_digest(section.model_copy(update={"args": {}}))


def test_fashion_images_load_when_the_file_is_here() -> None:
    dataset = load("image_classification", path=str(needs("fashion/fashion_mnist_900.npz")))
    check_dataset(dataset)
    image = dataset.sample()[0]
    assert image.shape == (1, 3, 32, 32)
    assert image.min() == -1
    assert image.max() <= 1


def train(module: torch.nn.Module, dataset: Dataset, *, epochs: int, rate: float, batch: int) -> float:
    """Train plainly; return the accuracy on the test samples."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    steps = epochs * (len(dataset.train) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = np.random.default_rng(0)
    module.train()
    for _ in range(epochs):
        for inputs, labels in batches(dataset.train, batch, shuffle=order, drop_last=True):
            assert labels is not None
            scores = module(*map(torch.from_numpy, inputs))
            loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    module.eval()
    inputs, labels = dataset.test.batch(range(len(dataset.test)))
    with torch.no_grad():
        found = module(*map(torch.from_numpy, inputs)).argmax(1).numpy()
    return float((found == labels).mean())


@pytest.mark.parametrize(
    ("name", "data", "epochs", "rate", "batch", "accuracy"),
    [
        ("digits", {}, 12, 5e-3, 64, 0.98),
        # A share of the data and of the epochs, far above chance (8 %, 20 %, 33 %).
        ("keyword_spotting", {"samples": 1200}, 3, 5e-3, 32, 0.5),
        ("gru_sequence", {"samples": 2000}, 10, 1e-2, 32, 0.6),
        ("text_classifier", {"samples": 3000}, 5, 4e-3, 64, 0.55),
    ],
)
def test_model_learns_its_data(
    name: str, data: dict[str, Any], epochs: int, rate: float, batch: int, accuracy: float
) -> None:
    torch.manual_seed(0)
    assert train(build(name), load(name, **data), epochs=epochs, rate=rate, batch=batch) >= accuracy
