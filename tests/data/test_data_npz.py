from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data import ArraySplit, Dataset, load_dataset, read_arrays
from edgekit.errors import DataError, RecipeError
from edgekit.recipe.schema import DataSection


def write(path: Path, **arrays: object) -> DataSection:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return DataSection(npz=str(path))


def load(section: DataSection, **settings: object) -> Dataset:
    return load_dataset(section.model_copy(update=settings))


def array_split(split: object) -> ArraySplit:
    assert isinstance(split, ArraySplit)
    return split


def test_npz_divides_x_and_y_when_no_split_is_named(tmp_path: Path) -> None:
    x, y = np.arange(200, dtype=np.float64).reshape(100, 2), np.arange(100, dtype=np.uint8) % 5
    section = write(tmp_path / "a.npz", x=x, y=y)
    dataset = load(section)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [72, 8, 20]
    seen = np.concatenate([array_split(part).inputs[0] for part in (dataset.train, dataset.validation, dataset.test)])
    assert sorted(seen[:, 0].tolist()) == x[:, 0].tolist()
    assert seen.dtype == np.float32
    labels = array_split(dataset.test).labels
    assert labels is not None
    assert np.bincount(labels.astype(int)).tolist() == [4, 4, 4, 4, 4]
    assert labels.dtype == np.int64
    again = load(section)
    assert np.array_equal(array_split(again.test).inputs[0], array_split(dataset.test).inputs[0])
    other = load(section, seed=9)
    assert not np.array_equal(array_split(other.test).inputs[0], array_split(dataset.test).inputs[0])


def test_npz_keeps_named_splits_and_several_inputs(tmp_path: Path) -> None:
    ids = np.arange(40).reshape(20, 2)
    section = write(
        tmp_path / "a.npz",
        train_x_0=ids,
        train_x_1=np.ones((20, 3), np.float32),
        train_y=np.arange(20) % 2,
        test_x_0=ids[:4],
        test_x_1=np.ones((4, 3), np.float32),
        test_y=np.array([0, 1, 0, 1]),
    )
    dataset = load(section, args={"input_names": ["ids", "extra"]})
    assert dataset.input_names == ("ids", "extra")
    assert len(dataset.test) == 4
    assert [array.shape for array in dataset.sample()] == [(1, 2), (1, 3)]
    assert dataset.sample()[0].dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (np.arange(30) % 3, "classification"),
        (np.linspace(0, 1, 30), "regression"),
        (np.zeros((30, 2), np.int64), "regression"),
    ],
)
def test_npz_finds_the_task_in_the_labels(tmp_path: Path, labels: np.ndarray, task: str) -> None:
    assert load(write(tmp_path / "a.npz", x=np.random.rand(30, 2), y=labels)).task == task


def test_npz_without_labels_loads(tmp_path: Path) -> None:
    dataset = load(write(tmp_path / "a.npz", x=np.random.rand(10, 2)))
    assert array_split(dataset.train).labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.ones(3)}, "unknown array 'images'. Allowed: x, y"),
        ({"test_x": np.ones((3, 2))}, r"expected training samples \(train_x or x\); received only test"),
        ({"x": np.ones((3, 2)), "train_x": np.ones((3, 2))}, "received both kinds"),
        ({"x_0": np.ones((3, 2)), "x_2": np.ones((3, 2))}, "without gaps; received x_0, x_2"),
        ({"y": np.ones(3)}, "expected inputs x"),
        ({"x": np.float32(3)}, "received a single number"),
        (
            {"x": np.ones((3, 2)), "y": np.ones(4)},
            r"as many samples in every input and in the labels; received \[3, 4\]",
        ),
        ({}, "the file holds none"),
    ],
)
def test_npz_refuses_when_keys_make_no_dataset(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "a.npz", **arrays))


def test_npz_refuses_pickled_objects_without_running_them(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (witness,)

    np.savez(tmp_path / "a.npz", x=np.array([Bomb()], dtype=object))
    with pytest.raises(DataError, match=r"'x' cannot be read .*pickled objects are refused"):
        load_dataset(DataSection(npz=str(tmp_path / "a.npz")))
    assert not witness.exists()


@pytest.mark.parametrize("keep", [0, 1, 40, 0.5, 0.9])
def test_npz_refuses_when_the_file_is_truncated(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.random.rand(50, 4), y=np.arange(50) % 2)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(DataError, match=r"a\.npz"):
        load_dataset(DataSection(npz=str(path)))


@given(at=st.integers(0, 2000), value=st.integers(0, 255))
def test_read_arrays_answers_or_refuses_when_a_byte_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    np.savez_compressed(path, x=np.arange(300, dtype=np.int32))
    damaged = bytearray(path.read_bytes())
    damaged[at % len(damaged)] = value
    path.write_bytes(damaged)
    try:
        arrays = read_arrays(path)
    except DataError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())


def test_npz_refuses_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        load_dataset(DataSection(npz=str(tmp_path / "none.npz")))


def test_npz_refuses_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"received a single \.npy array"):
        load_dataset(DataSection(npz=str(tmp_path / "a.npz")))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"tsk": "regression"}, "data.args: unknown key 'tsk'. Did you mean 'task'"),
        ({"task": "segmentation"}, "data.args.task: .*received 'segmentation'"),
        ({"layout": 3}, "data.args.layout"),
    ],
)
def test_npz_refuses_when_an_argument_is_wrong(tmp_path: Path, args: dict[str, object], message: str) -> None:
    section = write(tmp_path / "a.npz", x=np.ones((9, 2)))
    with pytest.raises(RecipeError, match=message):
        load(section, args=args)


def test_npz_refuses_when_the_test_share_is_no_share(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test_share: expected a share between 0 and 1; received 1\.5"):
        load(write(tmp_path / "a.npz", x=np.ones((9, 2))), args={"test_share": 1.5})
