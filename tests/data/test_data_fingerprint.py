from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.data import code_digest, data_digest
from edgekit.data.fingerprint import locate_module
from edgekit.errors import DataError, RecipeError
from edgekit.recipe.schema import DataSection

FILES = {
    "shop/__init__.py": "",
    "shop/data.py": "from shop import parts\nfrom .deep.inner import thing\nraise RuntimeError('this must not run')\n",
    "shop/parts.py": "import json\nimport numpy\nSIZE = 3\n",
    "shop/deep/__init__.py": "from .. import other\n",
    "shop/deep/inner.py": "def thing():\n    import lonely\n",
    "shop/other.py": "X = 1\n",
    "shop/unused.py": "X = 1\n",
    "lonely.py": "X = 1\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("name", sorted(set(FILES) - {"shop/unused.py"}))
def test_code_digest_changes_when_a_module_that_is_imported_changes(project: Path, name: str) -> None:
    before = code_digest("shop.data:load")
    (project / name).write_text(FILES[name] + "# changed\n")
    assert code_digest("shop.data:load") != before


def test_code_digest_stays_when_a_module_changes_that_nobody_imports(project: Path) -> None:
    before = code_digest("shop.data:load")
    (project / "shop/unused.py").write_text("X = 2\n")
    assert code_digest("shop.data:load") == before


def test_code_digest_stays_when_the_project_moves(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_digest("shop.data:load")
    monkeypatch.chdir(shutil.copytree(project, tmp_path / "elsewhere" / "far"))
    shutil.rmtree(project)
    assert code_digest("shop.data:load") == before


def test_code_digest_imports_nothing(project: Path) -> None:
    code_digest("shop.data:load")
    assert not {name for name in sys.modules if name.partition(".")[0] in ("shop", "lonely")}


def test_code_digest_differs_between_callables(project: Path) -> None:
    assert code_digest("shop.data:load") != code_digest("shop.data:other")


@pytest.mark.parametrize("entry", ["nowhere.data:load", "shop.none:load", ":load", ""])
def test_code_digest_refuses_when_there_is_no_module(project: Path, entry: str) -> None:
    with pytest.raises(RecipeError, match="expected the name of a module"):
        code_digest(entry)


def test_code_digest_refuses_when_a_module_does_not_parse(project: Path) -> None:
    (project / "shop/parts.py").write_text("def (\n")
    with pytest.raises(RecipeError, match=r"'shop\.parts' .* does not parse"):
        code_digest("shop.data:load")


def test_code_digest_survives_import_cycles(project: Path) -> None:
    (project / "shop/parts.py").write_text("from shop import data\n")
    assert len(code_digest("shop.data:load")) == 64


def test_locate_module_finds_what_python_would_import(project: Path) -> None:
    assert locate_module("shop.deep.inner") == project / "shop/deep/inner.py"
    assert locate_module("shop") == project / "shop/__init__.py"
    assert locate_module("shop.data.load") is None
    assert locate_module("sys") is None


def test_locate_module_finds_a_module_inside_a_folder_without_init(project: Path) -> None:
    (project / "shop/shelf").mkdir()
    (project / "shop/shelf/top.py").write_text("X = 1\n")
    assert locate_module("shop.shelf.top") == project / "shop/shelf/top.py"
    assert locate_module("shop.shelf") is None


def test_data_digest_follows_the_content_of_a_file_not_its_path(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(4))
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
    first = data_digest(DataSection(npz=str(tmp_path / "a.npz")))
    assert data_digest(DataSection(npz=str(tmp_path / "b.npz"))) == first
    np.savez(tmp_path / "b.npz", x=np.arange(1, 5))
    assert data_digest(DataSection(npz=str(tmp_path / "b.npz"))) != first


@pytest.mark.parametrize("change", [{"seed": 1}, {"validation_share": 0.2}, {"args": {"task": "regression"}}])
def test_data_digest_changes_with_the_settings(tmp_path: Path, change: dict[str, object]) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(4))
    section = DataSection(npz=str(tmp_path / "a.npz"))
    assert data_digest(section.model_copy(update=change)) != data_digest(section)


def test_data_digest_counts_file_arguments_by_content_when_nested(project: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips.bin"
    clips.write_bytes(b"one")

    def digest(path: str) -> str:
        return data_digest(DataSection(module="shop.data:load", args={"sources": [{"path": path}], "count": 3}))

    first, missing = digest(str(clips)), digest("not a file\0")
    shutil.copy(clips, tmp_path / "copy.bin")
    assert digest(str(tmp_path / "copy.bin")) == first
    clips.write_bytes(b"two")
    assert len({digest(str(clips)), first, missing}) == 3


def test_data_digest_sees_renamed_and_added_images(tmp_path: Path) -> None:
    root = tmp_path / "images"
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "0.png").write_bytes(b"0")
    section = DataSection(images=str(root), args={"size": 4})
    first = data_digest(section)
    (root / "cat" / "0.png").rename(root / "cat" / "1.png")
    second = data_digest(section)
    (root / "cat" / "2.png").write_bytes(b"2")
    assert len({first, second, data_digest(section)}) == 3


def test_data_digest_reads_the_images_that_a_csv_lists(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"0")
    (tmp_path / "a.csv").write_text("path,label\n0.png,1\n")
    section = DataSection(csv=str(tmp_path / "a.csv"), args={"size": 4})
    first = data_digest(section)
    (tmp_path / "0.png").write_bytes(b"1")
    assert data_digest(section) != first


@pytest.mark.parametrize("key", ["npz", "images", "csv"])
def test_data_digest_refuses_when_there_is_no_file(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match=rf"data\.{key}: expected a file or folder at"):
        data_digest(DataSection.model_validate({key: str(tmp_path / "none")}))


def test_data_digest_is_the_same_in_every_process(project: Path) -> None:
    program = (
        "from edgekit.data import data_digest; from edgekit.recipe.schema import DataSection;"
        "print(data_digest(DataSection(module='shop.data:load', args={'b': {'y': 1, 'x': 2}, 'a': 'z'})))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
