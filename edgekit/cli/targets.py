"""``edgekit targets``: devices to profile on."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.options import CalibratedModel, Json

app = typer.Typer(
    help="Devices to profile on: list them, show one, find out whether it can be used, get what a kind needs.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The device's name.", show_default=False)]


@app.command(name="list")
def list_(json: Json = False) -> None:
    """List devices: the project's own first, then the user's, then those that come with edgekit."""
    from edgekit.cli.output import print_json, print_table
    from edgekit.report.tables import targets_table
    from edgekit.targets import list_devices

    listings = list_devices()
    if json:
        print_json(listings)
    else:
        print_table(targets_table(listings))


@app.command()
def show(name: Name, json: Json = False) -> None:
    """Print what is known about a device."""
    import sys

    import yaml

    from edgekit.cli.output import print_json
    from edgekit.targets import find_device

    facts = find_device(name).model_dump(mode="json", exclude_none=True)
    if json:
        print_json(facts)
    else:
        yaml.safe_dump(facts, sys.stdout, sort_keys=False)


@app.command()
def doctor(name: Name = "host", json: Json = False) -> None:
    """Say whether a device can be used from here, and what stands in the way; exit 2 when it cannot."""
    from edgekit.cli.output import print_json, print_table
    from edgekit.report.tables import diagnosis_table
    from edgekit.targets import diagnose, find_device

    diagnosis = diagnose(find_device(name))
    if json:
        print_json(diagnosis)
    else:
        print_table(diagnosis_table(diagnosis))
    if not diagnosis.usable:
        raise typer.Exit(2)


@app.command()
def setup(
    kind: Annotated[str, typer.Argument(help="The kind of target, such as `emulated`.", show_default=False)],
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing; use what was fetched before.")] = False,
) -> None:
    """Fetch and build what a kind of target needs, saying each thing before it is done; exit 3 when some is missing."""
    from edgekit.cli.output import say
    from edgekit.contracts import load_entry
    from edgekit.targets import target_spec

    spec = target_spec(kind, place="edgekit targets setup")
    if spec.setup is None:
        say(f"{spec.title} needs no set-up")
        return
    missing: tuple[str, ...] = load_entry(spec.setup)(say, offline=offline)
    for problem in missing:
        say(f"still missing: {problem}")
    if missing:
        raise typer.Exit(3)
    say(f"{spec.title}: everything is ready")


@app.command()
def calibrate(
    name: Name,
    measured: Annotated[
        list[str] | None,
        typer.Option("--measured", help="FILE=DURATION: the median time of an artifact on the real device, 1 thread."),
    ] = None,
    model: Annotated[
        CalibratedModel | None, typer.Option("--model", help="Only this layer of the model (default: both).")
    ] = None,
    project: Annotated[bool, typer.Option("--project", help="Store in ./targets instead of your own folder.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Remove what is stored.")] = False,
    json: Json = False,
) -> None:
    """Store times measured on the real device: they scale the estimates of the emulated one from then on."""
    from edgekit.cli.output import print_json, print_table, say
    from edgekit.errors import UserInputError
    from edgekit.pipeline import calibrate as calibration
    from edgekit.report.tables import calibration_table

    if forget == bool(measured):
        raise UserInputError("expected either --measured FILE=DURATION (once or more) or --forget")
    layers = calibration.LAYERS if model is None else (model.value,)
    if forget:
        found = calibration.forget(name, project=project)
    else:
        parsed = [calibration.parse_measurement(text) for text in measured or ()]
        found = calibration.calibrate(name, parsed, layers, project=project)
    if json:
        print_json(found)
    elif found.layers:
        print_table(calibration_table(found.layers))
    say(f"stored in {found.file}" if found.file else f"removed {found.forgotten or 'nothing: none was stored'}")
