"""``edgekit targets``: devices to profile on."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.options import Json

app = typer.Typer(
    help="Devices to profile on: list them, show one, find out whether it can be used.", no_args_is_help=True
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
