"""`manage.py catalogue_table`: docs/catalogue.md, from the built-in catalogue and what the tests run."""

from typing import Any

from django.core.management.base import BaseCommand

from portal.catalogue.table import documents, page, runs_in
from portal.runtime import ROOT


class Command(BaseCommand):
    help = "Print docs/catalogue.md."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(page(documents(), runs_in(ROOT / "tests")), ending="")
