"""The Java command line that Kafka and Connect share."""

from __future__ import annotations

from pathlib import Path

from cdc.local import programs

_LOG4J = Path(__file__).with_name("log4j2.xml")


def command(jars: Path, component: str, heap: str) -> list[str]:
    """Return `java` with everything up to the main class.

    The simple compiler and collector start fastest and hold the least memory.
    """
    path = ":".join(str(jar) for jar in sorted(jars.glob("*.jar")))
    return [
        str(programs.java().path),
        f"-Xmx{heap}",
        "-Xms64m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-XX:+ExitOnOutOfMemoryError",
        # PostgreSQL's driver makes the JVM's zone its session's, and values' text depends on it.
        "-Duser.timezone=UTC",
        f"-Dcdc.component={component}",
        f"-Dlog4j2.configurationFile={_LOG4J}",
        "-cp",
        path,
    ]
