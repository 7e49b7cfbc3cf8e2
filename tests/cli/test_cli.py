"""The command line: exit codes, one clear message, JSON alone on standard output."""

import json

import pytest
import sample_builds
from html_page import Page

from edgekit.cli.main import run
from edgekit.errors import ToolError
from edgekit.recipe import load_recipe
from edgekit.store.manifest import write_manifest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("signal.signal", lambda *_: None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "none.yaml"], "expected a recipe file; there is none at none.yaml"),
        (["check", "none"], "expected a build folder"),
        (["report", "none"], "expected a build folder"),
        (["verify", "none"], "expected a build folder"),
        (["compare", "none", "nothing"], "expected a build folder"),
        (["inspect", "none.tflite"], "expected an artifact at none.tflite"),
        (["inspect", "photo.jpg"], "expected an artifact ending in"),
        (["profile", "none.pte"], "expected an artifact at none.pte"),
        (["targets", "show", "pixel-99"], "pixel-99"),
        (["convert", "none.pt2", "--to", "tflite"], "none.pt2"),
        (["convert", "none.keras", "--to", "tflite"], "there is no file 'none.keras'"),
        (["convert", "none.tflite", "--to", "executorch"], "there is no file 'none.tflite'"),
        (["convert", ".", "--to", "tflite"], "a folder that holds saved_model.pb"),
        (["convert", "none.pt2", "--to", "tflyte"], "tflyte"),
        (["convert", "none.pt2", "--to", "tflite", "--precision", "int9"], "int9"),
        (["convert", "none.pt2", "--to", "tflite", "--calibration-data", "nowhere"], "does not exist"),
    ],
)
def test_wrong_input_is_exit_2_with_one_message_on_standard_error(arguments, words, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert out == ""


def test_error_under_json_is_one_document(capsys):
    assert run(["check", "none", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["exit_code"] == 2
    assert "error:" in err


def test_unknown_command_and_option_are_exit_2(capsys):
    assert run(["biuld"]) == 2
    assert run(["build", "--no-such-option"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_failing_tool_is_exit_3_and_a_bug_shows_no_traceback(capsys, monkeypatch):
    def fail(error):
        def raise_(*_args, **_kwargs):
            raise error

        return raise_

    monkeypatch.setattr("edgekit.store.manifest.read_manifest", fail(ToolError("it broke", stage="s", log="l")))
    assert run(["check", "x"]) == 3
    assert "[s] it broke (log: l)" in capsys.readouterr().err
    monkeypatch.setattr("edgekit.store.manifest.read_manifest", fail(ZeroDivisionError("oops")))
    assert run(["check", "x"]) == 3
    err = capsys.readouterr().err
    assert "a mistake in edgekit itself (ZeroDivisionError: oops)" in err
    assert "Traceback" not in err


def test_interrupt_is_exit_130(capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekit.store.manifest.read_manifest", interrupt)
    assert run(["check", "x"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_init_writes_a_recipe_that_is_valid_and_never_overwrites(tmp_path, capsys):
    assert run(["init"]) == 0
    assert run(["recipe", "check", "recipe.yaml"]) == 0
    assert run(["init"]) == 2
    assert "--force" in capsys.readouterr().err
    assert run(["init", "--force", "--name", "other"]) == 0
    assert "name: other" in (tmp_path / "recipe.yaml").read_text()


def test_init_writes_a_pair_that_differs_in_its_model_only(tmp_path, capsys):
    assert (
        run(["init", "--both", "--name", "kws", "--model", "kws.model_pytorch:build", "--data", "kws.data:load"]) == 0
    )
    said = capsys.readouterr().err
    recipes = {name: load_recipe(tmp_path / f"recipe_{name}.yaml") for name in ("pytorch", "keras")}
    for name, recipe in recipes.items():
        assert (recipe.name, recipe.framework, recipe.model.source) == (f"kws-{name}", name, f"kws.model_{name}:build")
        assert f"edgekit build recipe_{name}.yaml" in said
    assert "edgekit compare builds/kws-pytorch builds/kws-keras --html" in said
    own = {"name", "framework", "model"}
    assert recipes["pytorch"].model_dump(exclude=own) == recipes["keras"].model_dump(exclude=own)


def test_init_writes_neither_of_a_pair_when_one_is_there(tmp_path, capsys):
    (tmp_path / "nets_keras.yaml").write_text("mine")
    assert run(["init", "nets.yaml", "--both"]) == 2
    assert "nets_keras.yaml exists" in capsys.readouterr().err
    assert not (tmp_path / "nets_pytorch.yaml").exists()
    assert run(["init", "nets.yaml", "--both", "--force"]) == 0
    assert run(["recipe", "check", "nets_pytorch.yaml"]) == run(["recipe", "check", "nets_keras.yaml"]) == 0


def test_init_refuses_a_twin_that_it_cannot_name(capsys):
    assert run(["init", "--both", "--model", "net:build"]) == 2
    assert "--model-keras" in capsys.readouterr().err
    assert run(["init", "--model-keras", "net:build"]) == 2
    assert "add --both" in capsys.readouterr().err


def test_compare_puts_two_frameworks_side_by_side(tmp_path, capsys):
    for build in sample_builds.twins():
        write_manifest(build, tmp_path / build.name)
    assert run(["compare", "digits-pytorch", "digits-keras", "--html", "both.html"]) == 0
    out, err = capsys.readouterr()
    assert "training throughput" in out
    assert "Keras better" in out
    assert "sample_models.digits.model_keras:build" in out
    assert err == "wrote both.html\n"
    assert "digits-pytorch" in Page((tmp_path / "both.html").read_text()).words
    assert run(["compare", "digits-pytorch", "digits-keras", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["before_framework"], document["after_framework"]) == ("pytorch", "keras")
    assert {"size", "latency_p50", "accuracy", "sqnr_db", "delegated"} <= {
        figure["name"] for figure in document["artifacts"][0]["figures"]
    }


def test_schema_is_json_schema(capsys):
    assert run(["recipe", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "export" in schema["required"]


def test_version_is_printed(capsys):
    from edgekit import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"edgekit {__version__}"


def test_targets_and_doctor_answer_for_people_and_machines(capsys):
    assert run(["targets", "list"]) == 0
    assert "host" in capsys.readouterr().out
    assert run(["targets", "list", "--json"]) == 0
    assert any(item["name"] == "host" for item in json.loads(capsys.readouterr().out))
    assert run(["targets", "doctor", "host", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"]
    assert run(["doctor", "--json"]) == 0
    json.loads(capsys.readouterr().out)
    assert run(["doctor"]) == 0
    assert "pytorch" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("arguments", [["build", "r.yaml", "--jobs", "0"], ["build", "r.yaml", "--nope"], ["build"]])
def test_mistake_in_the_options_is_one_document_under_json_too(arguments, capsys):
    assert run([*arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["exit_code"] == 2
    assert err
