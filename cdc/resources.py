"""Files shipped beside the code: connector definitions, SQL, the capture plugin's jar.

In a wheel they lie inside the package (`cdc/_resources/`); in a checkout they are read where they
are edited. Both give the same relative names, for example `connectors/postgres.json`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from cdc.errors import InstallationError


def path(name: str) -> Path:
    """Return where the shipped file or folder `name` lies.

    Raises InstallationError when neither the wheel nor a checkout has it.
    """
    package = Path(str(resources.files("cdc")))
    for root in (package.parent, package / "_resources"):
        found = root / name
        if found.exists() and (root / "pyproject.toml").exists() == (root == package.parent):
            return found
    raise InstallationError(
        f"the file {name} of this installation is missing",
        safe="nothing was changed",
        next="in a checkout run `make setup`; otherwise install the wheel again",
    )


def text(name: str) -> str:
    """Return the shipped file `name` as text."""
    return path(name).read_text(encoding="utf-8")
