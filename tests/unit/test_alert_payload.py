"""What a hook is told, against the schemas that receivers build on."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import hypothesis
import jsonschema
import pytest
import sections
from hypothesis import strategies as st

from cdc import resources
from cdc.alert import payload, trial
from cdc.alert.judgement import About, Level, Reason, Thresholds
from cdc.alert.machine import Kind, Notice
from cdc.alert.payload import Frame

SCHEMA = json.loads(resources.text("schemas/alert.json"))
AVRO: Any = fastavro.parse_schema(json.loads(resources.text("schemas/alert.avsc")))
FRAME = Frame("app", Thresholds(180.0, 300.0), "docs/operations.md")

times = st.floats(0, 4e9)
notices = st.one_of(
    times.map(trial.notice),
    st.builds(
        Notice,
        id=st.text(min_size=1),
        kind=st.sampled_from([Kind.NEW, Kind.ESCALATED, Kind.REPEATED]),
        replica=st.text(),
        severity=st.sampled_from([Level.WARNING, Level.CRITICAL]),
        reason=st.sampled_from(Reason),
        summary=st.text(min_size=1),
        at=times,
        starts_at=times,
        lag=st.none() | st.floats(0, 1e9),
        applied_lsn=st.none() | st.just("16/B374D848"),
        about=st.sampled_from(About),
    ),
    st.builds(
        Notice,
        id=st.just("r1/1.000/2"),
        kind=st.just(Kind.RESOLVED),
        replica=st.just("r1"),
        severity=st.just(Level.CRITICAL),
        reason=st.sampled_from(Reason),
        summary=st.just("over"),
        at=times,
        starts_at=times,
        ends_at=times,
    ),
)


@hypothesis.given(notices)
def test_every_document_fits_both_schemas(notice: Notice) -> None:
    """Whatever is told is valid JSON of the schema, and comes back the same from Avro."""
    document = json.loads(payload.encoded(FRAME, notice))
    jsonschema.validate(document, SCHEMA)
    written = io.BytesIO()
    fastavro.schemaless_writer(written, AVRO, document, strict=True)
    written.seek(0)

    assert document == fastavro.schemaless_reader(written, AVRO, None)
    assert set(document) == set(SCHEMA["properties"]) == {f["name"] for f in AVRO["fields"]}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"severity": "unknown"}, {"lag_seconds": -1}, {"status": "resolved"},
        {"notification": "resolved"}, {"at": "2026-01-01 00:00"}, {"id": ""}, {"reason": "late"},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_is_never_told(change: dict[str, Any]) -> None:
    """A document that contradicts itself or the version is no valid one."""
    document = payload.document(FRAME, trial.notice(1e9))

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | change, SCHEMA)


def test_commands_get_the_document_as_variables() -> None:
    """Each field is a CDC_ variable; what is null there is empty."""
    found = payload.environment(FRAME, trial.notice(1e9))

    assert found["CDC_NOTIFICATION"] == "test"
    assert found["CDC_TARGET_SECONDS"] == "300.0"
    assert found["CDC_LAG_SECONDS"] == found["CDC_REPLICA"] == ""
    assert found["CDC_STARTS_AT"] == "2001-09-09T01:46:40.000Z"


@pytest.mark.parametrize("reason", [*Reason, None])
def test_every_alert_links_to_its_section(reason: Reason | None) -> None:
    """The runbook that an alert names is a section of docs/operations.md that tells its end."""
    name, _, anchor = FRAME.runbook(reason).partition("#")

    assert name == "docs/operations.md"
    sections.complete(anchor)
