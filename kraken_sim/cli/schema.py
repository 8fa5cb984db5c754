"""`kraken-sim schema`: JSON schema of the files people write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kraken_sim.cli.output import as_json
from kraken_sim.cli.streams import put

if TYPE_CHECKING:
    import argparse

    from kraken_sim.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """What may be given."""
    kinds = ("scenario", "profile", "machine", "design", "purchase", "service")
    parser.add_argument("kind", choices=kinds, nargs="?", default="scenario")
    parser.set_defaults(handler=_schema)


def _schema(args: argparse.Namespace) -> None:
    """Prints one schema."""
    put(as_json(_schema_of(args.kind)))


def _schema_of(kind: str) -> dict[str, Any]:
    if kind == "profile":
        from kraken_sim.profiles.schema import profile_json_schema

        return profile_json_schema()
    if kind == "machine":
        from kraken_sim.profiles.datasheet import datasheet_json_schema

        return datasheet_json_schema()
    if kind == "design":
        from kraken_sim.explore.design.request import DesignRequest

        return DesignRequest.model_json_schema()
    if kind == "purchase":
        from kraken_sim.explore.procure.request import ProcureRequest

        return ProcureRequest.model_json_schema()
    if kind == "service":
        from kraken_sim.serving.request import ServeRequest

        return ServeRequest.model_json_schema()
    from kraken_sim.scenario.spec import scenario_json_schema

    return scenario_json_schema()
