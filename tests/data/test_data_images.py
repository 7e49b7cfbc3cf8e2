from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.data import load_dataset
from edgekit.data.images import ImageOptions, ImageSplit, read_image
from edgekit.errors import DataError, RecipeError
from edgekit.recipe.schema import DataSection

images = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.new("RGB", size, colour).save(path)
    return path


def folder(root: Path, count: int = 10) -> Path:
    for index in range(count):
        paint(root / "dog" / f"{index}.png", (10 * index, 0, 255))
        paint(root / "cat" / f"{index}.PNG", (10 * index, 255, 0))
    return root


def test_images_reads_a_folder_a_class(tmp_path: Path) -> None:
    dataset = load_dataset(DataSection(images=str(folder(tmp_path / "pets")), args={"size": 4}))
    assert dataset.classes == ("cat", "dog")
    assert dataset.layout == "NCHW"
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [14, 2, 4]
    (batch,), labels = dataset.test.batch(range(4))
    assert batch.shape == (4, 3, 4, 4)
    assert batch.dtype == np.float32
    assert labels is not None
    green = batch.astype(float)[:, 1].mean((1, 2))
    assert np.array_equal(green > 0.5, labels == 0)


def test_images_keeps_named_splits(tmp_path: Path) -> None:
    folder(tmp_path / "train", 6)
    folder(tmp_path / "test", 2)
    dataset = load_dataset(DataSection(images=str(tmp_path), args={"size": 4}))
    assert len(dataset.test) == 4
    assert isinstance(dataset.test, ImageSplit)
    assert {path.parents[1].name for path in dataset.test.paths} == {"test"}


def test_images_refuses_when_splits_disagree_on_the_classes(tmp_path: Path) -> None:
    folder(tmp_path / "train", 4)
    paint(tmp_path / "test" / "cow" / "0.png", (0, 0, 0))
    with pytest.raises(DataError, match=r"expected the classes of train, \('cat', 'dog'\); received \('cow',\)"):
        load_dataset(DataSection(images=str(tmp_path), args={"size": 4}))


def test_images_has_no_labels_when_the_folder_is_flat(tmp_path: Path) -> None:
    for index in range(6):
        paint(tmp_path / f"{index}.jpg", (index, 0, 0))
    dataset = load_dataset(DataSection(images=str(tmp_path), args={"size": 4}))
    assert dataset.train.batch([0])[1] is None


def test_read_image_normalizes_in_the_layout_asked_for(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.png", (255, 0, 51))
    options = ImageOptions(size=(2, 3), mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0), layout="NHWC")
    image = read_image(path, options)
    assert image.shape == (2, 3, 3)
    np.testing.assert_allclose(image[0, 0], [1.0, -2.0, -0.3], atol=1e-6)


@pytest.mark.parametrize(("fit", "corner"), [("crop", 1.0), ("stretch", 0.0)])
def test_read_image_fits_as_asked(tmp_path: Path, fit: str, corner: float) -> None:
    wide = images.new("L", (32, 8), 0)
    wide.paste(255, (12, 0, 20, 8))
    wide.save(tmp_path / "a.png")
    options = ImageOptions(size=8, channels=1, fit=fit)  # type: ignore[arg-type]
    assert read_image(tmp_path / "a.png", options)[0, 4, 0] == corner


def test_images_refuses_a_truncated_file_and_names_it(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    broken = root / "cat" / "3.PNG"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DataError, match=r"3\.PNG: expected a readable image"):
        load_dataset(DataSection(images=str(root), args={"size": 4}))


def test_images_refuses_an_empty_class(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    (root / "emu").mkdir()
    with pytest.raises(DataError, match="emu: expected images"):
        load_dataset(DataSection(images=str(root), args={"size": 4}))


def test_images_refuses_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        load_dataset(DataSection(images=str(tmp_path / "none"), args={"size": 4}))


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ({}, RecipeError, r"data\.args\.size: this key is required"),
        ({"size": 0}, DataError, "at least 1 pixel; received 0"),
        ({"size": 4, "mean": [0.5, 0.5]}, DataError, "one for each of 3 channels"),
        ({"size": 4, "std": 0.0}, DataError, "expected positive numbers"),
        ({"size": 4, "test_share": 0.0}, DataError, "between 0 and 1"),
        ({"size": 4, "channels": 2}, RecipeError, "data.args.channels"),
        ({"sizes": 4}, RecipeError, "Did you mean 'size'"),
    ],
)
def test_images_refuses_wrong_options(
    tmp_path: Path, args: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_dataset(DataSection(images=str(folder(tmp_path / "pets", 2)), args=args))


def table(path: Path, text: str) -> DataSection:
    path.write_text(text, encoding="utf-8")
    return DataSection(csv=str(path), args={"size": 4})


def test_csv_reads_paths_and_names(tmp_path: Path) -> None:
    folder(tmp_path)
    rows = [
        f"{kind}/{index}.{'png' if kind == 'dog' else 'PNG'},{kind}" for kind in ("dog", "cat") for index in range(10)
    ]
    dataset = load_dataset(table(tmp_path / "a.csv", "path,label\n" + "\n".join(rows)))
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.train) == 14


def test_csv_numbers_are_labels_and_splits_are_kept(tmp_path: Path) -> None:
    folder(tmp_path)
    rows = [f"dog/{index}.png,{index % 2},{'test' if index > 6 else 'train'}" for index in range(10)]
    dataset = load_dataset(table(tmp_path / "a.csv", "path,label,split\n" + "\n".join(rows)))
    assert dataset.classes == ()
    assert len(dataset.test) == 3
    labels = dataset.test.batch(range(3))[1]
    assert labels is not None
    assert labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n", "expected columns path, label"),
        ("path,label\n", "received none"),
        ("path,label\nnone.png,1\n", "line 2: expected an image at"),
        ("path,label\ndog/0.png,1\ndog/1.png,\n", "line 3: expected a path and a label"),
        ("path,label,split\ndog/0.png,1,dev\n", "line 2: expected a split of train, validation, test; received 'dev'"),
        ("path,label,split\ndog/0.png,1,test\n", "expected rows of the split train"),
    ],
)
def test_csv_refuses_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    folder(tmp_path, 2)
    with pytest.raises(DataError, match=message):
        load_dataset(table(tmp_path / "a.csv", text))


def test_csv_refuses_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("path,label\nä.png,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        load_dataset(DataSection(csv=str(tmp_path / "a.csv"), args={"size": 4}))
