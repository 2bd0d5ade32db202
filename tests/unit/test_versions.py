"""Every version of what is not ours is stated in cdc/local/versions.env, and nowhere another one."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from cdc.local import artifacts, versions

ROOT = Path(__file__).parents[2]
STATED = versions.read(versions.FILE.read_text(encoding="utf-8"))

#: What a place that states a version looks like, and which of ours it must be. A point release
#: (4.3.0) may be given without its last part.
STATEMENTS = {
    r"Debezium(?:'s PostgreSQL connector)?[ |]+(\d[\w.]+\.Final)": versions.DEBEZIUM,
    r"Kafka Connect[ |]+(\d+\.\d+(?:\.\d+)?)\b": versions.KAFKA,
    r"- Version (\d+\.\d+(?:\.\d+)?) with Debezium": versions.KAFKA,
    r"JDK (\d+) or newer": str(versions.JAVA),
    r"a JDK (\d+)\+": str(versions.JAVA),
}
DOCUMENTS = ["README.md", "docs/capture.md", "docs/install.md", ".ci/run"]


@pytest.mark.parametrize("pom", ["cdc/local/pom.xml", "connectors/exact/pom.xml"])
def test_the_poms_agree(pom: str) -> None:
    """Maven builds against, and fetches, the Kafka and Debezium that are stated."""
    space = "{http://maven.apache.org/POM/4.0.0}"
    found = ET.parse(ROOT / pom).find(f"{space}properties")
    assert found is not None

    properties = {child.tag.removeprefix(space): child.text for child in found}

    assert versions.KAFKA == properties["kafka.version"]
    assert versions.DEBEZIUM == properties["debezium.version"]
    assert str(versions.JAVA) == properties.get("maven.compiler.release", str(versions.JAVA))


def test_the_checksums_are_of_these_versions() -> None:
    """artifacts.sums has the stated Kafka, Debezium and PostgreSQL wheels, and no others of them."""
    names = (artifacts.HERE / "artifacts.sums").read_text(encoding="utf-8")
    wheels = {
        f"{name.replace('-', '_')}-{version}"
        for name, _, version in (wheel.partition("==") for wheel in versions.WHEELS.values())
    }

    assert {versions.KAFKA} == set(re.findall(r" jars/(?:connect|kafka)[a-z_]*(?:-[a-z]+)*(?:_2\.13)?-(\d[\d.]*)\.jar", names))  # fmt: skip
    assert {versions.DEBEZIUM} == set(re.findall(r"connector-postgres-(.+)-plugin", names))
    assert wheels == set(re.findall(r" (\w+-[\d.]+)-(?:cp|py)", names))


def test_the_documents_agree() -> None:
    """Where a document names Kafka, Debezium or a JDK with a version, it is the stated one."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    found = [
        (name, said, ours)
        for name, text in texts.items()
        for pattern, ours in STATEMENTS.items()
        for said in re.findall(pattern, text)
    ]

    assert [] == [f for f in found if f[1] != f[2] and not f[2].startswith(f[1] + ".")]
    # Each document says something, each pattern finds something: neither is looked for in vain.
    assert set(DOCUMENTS) == {name for name, _, _ in found}
    assert set(STATEMENTS.values()) == {ours for _, _, ours in found}


def test_the_images_get_their_versions_from_compose() -> None:
    """No Dockerfile and no service states a version itself; what compose hands over is stated."""
    dockerfile = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    compose = (ROOT / "docker/compose.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{(CDC_\w+)", compose))

    assert versions.FILE.samefile(ROOT / "docker/.env")
    assert [] == re.findall(r"^FROM (?!\$\{DEBIAN_IMAGE\}|[a-z]+ AS ).*$", dockerfile, re.MULTILINE)
    assert [] == re.findall(r"^ARG \w+=.*$", dockerfile, re.MULTILINE)
    assert [] == re.findall(r"image: (?!\$\{CDC_|cdc-).*", compose)
    assert used <= STATED.keys()
    assert {name for name in STATED if name.endswith("_IMAGE")} <= used
    handed = set(re.findall(r"^\s+(\w+): \$\{CDC_", compose, re.MULTILINE))
    assert handed >= set(re.findall(r"^ARG (\w+)$", dockerfile, re.MULTILINE))
