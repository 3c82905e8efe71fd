"""`manage.py load_catalogue [FOLDER ...]`: the built-in catalogue, then the folders given. All or nothing."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.catalogue.loader import BUILTIN, FOLDERS, CatalogueError, load


class Command(BaseCommand):
    help = "Load templates, flavors, accelerators and priorities from YAML files into the database. Nothing is changed when any file has a fault."
    requires_system_checks: list[str] = []  # they would load every page, which takes as long as the work

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "folders", nargs="*", type=Path, help="Folders with accelerators/, flavors/, templates/ and priorities/, loaded after the built-in one"
        )

        parser.add_argument("--check", action="store_true", help="Only say what is wrong; nothing is changed")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            counts = load([BUILTIN, *options["folders"]], check=options["check"])
        except CatalogueError as error:
            raise CommandError("The catalogue was not loaded:\n" + "\n".join(error.faults)) from None
        done = "checked; nothing was changed" if options["check"] else "loaded"
        self.stdout.write(", ".join(f"{count} {FOLDERS[kind]}" for kind, count in counts.items()) + f" {done}.")
