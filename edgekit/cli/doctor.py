"""``edgekit doctor``: what this machine can and cannot do."""

from __future__ import annotations

from edgekit.cli.options import Json

NAME = "doctor"


def run(json: Json = False) -> None:
    """Say which frameworks, formats and targets work here, and what is missing for the rest."""
    from edgekit.cli.output import print_json, print_table
    from edgekit.doctor import examine
    from edgekit.report.tables import doctor_table

    found = examine()
    if json:
        print_json(found)
    else:
        print_table(doctor_table(found))
