"""The documents agree with the program."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from cdc import config
from cdc.alert import settings
from cdc.config import Config
from cdc.local.demo import compare

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "cdc.example.toml"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def fields(kind: Any, where: str = "") -> set[str]:
    """Return the dotted names of all keys below a section; names of replicas and hooks are `*`."""
    hints = get_type_hints(kind)
    found = {where + tag} if (tag := kind.__struct_config__.tag_field) else set()
    for field in msgspec.structs.fields(kind):
        hint, name = hints[field.name], field.encode_name
        parts = [hint, *get_args(hint), *(part for arg in get_args(hint) for part in get_args(arg))]
        sections = [k for k in parts if isinstance(k, type) and issubclass(k, msgspec.Struct)]
        if not sections:
            found.add(where + name)
        for section in sections:
            star = ".*" if get_args(hint) else ""
            found |= fields(section, f"{where}{name}{star}.")
    return found


def keys(table: dict[str, Any], where: str = "") -> set[str]:
    """Return the dotted names of the keys of decoded TOML, in the same form."""
    found = set()
    for name, value in table.items():
        if isinstance(value, dict) and name != "options":
            found |= keys(value, f"{where}{'*' if where == 'replicas.' else name}.")
        elif name == "hooks":
            found |= {key for hook in value for key in keys(hook, f"{where}hooks.*.")}
        else:
            found.add(where + name)
    return found


def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what the example takes from the environment."""
    for name in ("KAFKA_PASSWORD", "CONNECT_PASSWORD", "ALERT_SECRET"):
        monkeypatch.setenv(name, "a secret")


def test_the_example_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """cdc.example.toml is a valid configuration, with its secrets in the environment."""
    secrets(monkeypatch)

    assert "app" == config.load(EXAMPLE).name


def test_the_example_has_every_key_and_no_other() -> None:
    """Each key of the configuration stands in cdc.example.toml, and each key there exists."""
    text = EXAMPLE.read_text(encoding="utf-8")

    assert fields(Config) == keys(tomllib.loads(text))


def test_the_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a key has a plain default, the example shows it."""
    secrets(monkeypatch)
    shown = config.load(EXAMPLE)

    assert config.Topic() == msgspec.structs.replace(shown.kafka.topic, name=None)
    assert config.Bootstrap() == shown.bootstrap
    assert config.Apply() == shown.apply
    assert config.Lag() == shown.lag
    assert settings.Alert() == msgspec.structs.replace(shown.alert, hooks=(), listen=None)
    command, webhook, alertmanager = shown.alert.hooks
    assert isinstance(command, settings.CommandHook)
    assert isinstance(webhook, settings.WebhookHook)
    assert isinstance(alertmanager, settings.AlertmanagerHook)
    assert settings.CommandHook(argv=command.argv) == command
    assert settings.WebhookHook(url=webhook.url, secret=webhook.secret) == webhook
    assert settings.AlertmanagerHook(urls=alertmanager.urls) == alertmanager
    assert config.Connect(url="").heartbeat == shown.connect.heartbeat
    assert config.Replica(dsn="").triggers == shown.replicas["r1"].triggers


def test_generated_documents_are_fresh() -> None:
    """docs/commands.md, docs/configuration.md and the tables of docs/guarantees.md are what `make docs` writes."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link and picture of a document exists."""
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    local = [t for t in targets if not t.startswith(("http://", "https://"))]

    assert [] == [t for t in local if not (document.parent / t).exists()]


def test_tests_named_as_proof_exist() -> None:
    """Every test that docs/guarantees.md names is there."""
    named = set(
        re.findall(
            r"`(test_\w+(?:\.py)?)`?", (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
        )
    )
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {file.name for file in files} | {
        name
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert named
    assert set() == named - there


def test_the_comparison_shares_nothing_with_what_it_judges() -> None:
    """The file that compares the servers in the demo imports the standard library only."""
    tree = ast.parse(Path(compare.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert imported
    assert set() == imported - sys.stdlib_module_names
