"""PostgreSQL's types with their extremes: facts that any test of values may use.

`SCALARS` covers every type of pg_catalog that a column can have, and one each of the kinds that
users make (enum, domain, composite, range). `expanded` adds the array of each of them. `lacks` tells
which a server cannot do, `printed` how it prints them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import psycopg

Session = psycopg.Connection[tuple[object, ...]]

#: Objects the cases rest on; once per database.
PRELUDE = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy, "x"');
CREATE DOMAIN posint AS integer CHECK (VALUE > 0);
CREATE DOMAIN txtdom AS text;
CREATE DOMAIN numdom AS numeric(12,3);
CREATE DOMAIN moneydom AS money;
CREATE DOMAIN spandom AS interval;
CREATE DOMAIN arrdom AS int[];
CREATE DOMAIN domdom AS numdom;
CREATE TYPE comp AS (a int, b text, c timestamp, d float8);
CREATE TYPE txtrange AS RANGE (subtype = text);
"""

#: Base types of pg_catalog that no column can have or that have no input.
NOT_STORABLE = frozenset(
    {
        "gtsvector",
        "pg_brin_bloom_summary",
        "pg_brin_minmax_multi_summary",
        "pg_dependencies",
        "pg_mcv_list",
        "pg_ndistinct",
        "pg_node_tree",
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A type and values of it, as SQL expressions.

    `big` is an expression for a value that is stored out of line when the column's storage is
    EXTERNAL. `needs` names what the server must have: an extension, "xml", or "17" for a version.
    """

    type: str
    values: tuple[str, ...]
    big: str | None = None
    needs: str | None = None


def _quoted(*texts: str) -> tuple[str, ...]:
    return tuple("'" + text.replace("'", "''") + "'" for text in texts)


_DATES = (
    "2024-02-29", "infinity", "-infinity", "0001-01-01 BC", "4713-01-01 BC", "0044-03-15 BC",
    "0001-01-01", "1582-10-04", "1582-10-10", "1582-10-15", "1500-02-28", "0005-02-29 BC",
    "9999-12-31", "10000-01-01", "294276-12-31",
)  # fmt: skip
_TIMES = ("00:00:00", "24:00:00", "23:59:59.999999", "12:34:56.789012", "00:00:00.1")
_STAMPS = (
    "2024-02-29 12:34:56.789012", "infinity", "-infinity", "0001-01-01 00:00:00 BC",
    "0044-03-15 12:00:00.5 BC", "4713-01-01 00:00:00 BC", "1582-10-10 00:00:00",
    "1500-02-28 01:02:03", "1883-11-18 12:03:58", "1969-12-31 23:59:59.999999",
    "9999-12-31 23:59:59.999999", "10000-01-01 00:00:00", "29453-07-04 01:02:03.000001",
    # The microsecond Debezium takes for infinity, and PostgreSQL's last one.
    "294247-01-10 04:00:25.2", "294276-12-31 23:59:59.999999", "2024-01-01 00:00:00.1",
)  # fmt: skip
_STAMPS_TZ = (*_STAMPS, "2024-02-29 12:34:56+02", "1883-11-18 12:03:58-05:30", "0001-01-01+15 BC")
_INTERVALS = (
    "0", "1 year 2 mons -3 days 04:05:06.7", "-1 mons 1 day -00:00:00.000001", "1 day", "1 mon",
    "2 mons", "-1 year", "178000000 years", "-178000000 years -11 mons", "00:00:00.5",
    "-00:00:00.5", "2147483647:59:59.999999", "2147483648 hours", "2500000000 hours",
    "-2500000000 hours", "1 year -1 days +00:00:01",
)  # fmt: skip
_FLOATS = (
    "NaN", "Infinity", "-Infinity", "-0", "0", "0.1", "1.1", "1e15", "1e14", "123456", "1234567",
    "100000", "1e6", "0.0001", "0.00001", "16777217", "1e22", "1e23", "9.5367431640625e-07",
)  # fmt: skip
_NUMERICS = (
    "1.50", "1.000", "-0", "0.00", "100", "1e30", "0.00000000000000000000000000001", "NaN",
    "Infinity", "-Infinity", "12345678901234567890123456789012345678901234567890.123456789",
)  # fmt: skip
_TEXTS = (
    "''", "'plain'", "'  padded  '", "'NULL'", r"'\N'", r"'\.'", "'__debezium_unavailable_value'",
    r"E'üñí 🙂 \'q\' \"dq\" back\\slash\nnew\ttab\r'", r"E'\u2028\u007f\u0002'", r"E'\u0001'",
    r"E'\u0001\u0001 twice'", r"E'a\u0001'", "'{\"not\": json'",
)  # fmt: skip
_LONG = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) i)"
_LABELS = "(SELECT string_agg(md5(i::text), '.') FROM generate_series(1, 200) i)"
_HUGE_NUMBER = "('0.' || repeat('1234567890', 1500))::numeric"
_ENDS = "(SELECT string_agg(format('[%s,%s)', 3*i, 3*i+1), ',') FROM generate_series(1, 1000) i)"
_NUMBERS = "(SELECT string_agg(i::text, ',') FROM generate_series(10, 2000) i)"
_POINTS = "(SELECT string_agg(format('(%s,%s)', i, -i), ',') FROM generate_series(1, 500) i)"

SCALARS: tuple[Case, ...] = (
    Case("smallint", _quoted("-32768", "32767", "0")),
    Case("integer", _quoted("-2147483648", "2147483647")),
    Case("bigint", _quoted("-9223372036854775808", "9223372036854775807", "9007199254740993")),
    Case("numeric", _quoted(*_NUMERICS), big=_HUGE_NUMBER),
    Case("numeric(10,2)", _quoted("12345678.90", "-0.01", "0", "NaN")),
    Case("numeric(5,-2)", _quoted("12345", "100")),
    Case("numeric(3,6)", _quoted("0.000123", "0.000000")),
    Case("real", _quoted(*_FLOATS, "3.4028235e38", "1e-45", "1.17549435e-38", "123456789")),
    Case(
        "double precision",
        _quoted(
            *_FLOATS,
            "0.30000000000000004",
            "1.7976931348623157e308",
            "5e-324",
            "2.2250738585072014e-308",
            "9007199254740993",
            "123456789.123456789",
        ),
    ),
    Case("money", _quoted("12.34", "-0.01", "0", "92233720368547758.07", "-92233720368547758.08")),
    Case("boolean", ("true", "false")),
    Case("char(6)", _quoted("ab", "", "ünïc", "abcdef")),
    Case("character(3000)", _quoted("x"), big=f"left({_LONG}, 3000)"),
    Case("varchar(20)", _quoted("x", "", "trail  ")),
    Case("varchar", _TEXTS, big=_LONG),
    Case("text", _TEXTS, big=_LONG),
    Case("name", _quoted("", "pg_class", "x" * 63, "with space")),
    Case('"char"', ("'a'", "''", r"'\377'", r"'\001'", r"'\\'")),
    Case("bytea", (r"'\x'", r"'\x00ff10'", r"'\xdeadbeef'"), big=f"convert_to({_LONG}, 'UTF8')"),
    Case("date", _quoted(*_DATES, "5874897-12-31")),
    Case("time", _quoted(*_TIMES)),
    Case("time(0)", _quoted(*_TIMES)),
    Case("time(3)", _quoted(*_TIMES)),
    Case(
        "timetz",
        _quoted(
            "12:34:56.789012+02",
            "24:00:00+00",
            "24:00:00+02",
            "01:00:00+05:30",
            "00:00:00-15:59",
            "23:59:59.999999-08",
            "10:00:00+01:02:03",
        ),
    ),
    Case("timetz(0)", _quoted("12:34:56.5+02")),
    Case("timestamp", _quoted(*_STAMPS)),
    Case("timestamp(0)", _quoted(*(s for s in _STAMPS if not s.startswith("294276")))),
    Case("timestamp(3)", _quoted(*(s for s in _STAMPS if not s.startswith("294276")))),
    Case("timestamptz", _quoted(*_STAMPS_TZ)),
    Case("timestamptz(0)", _quoted(*(s for s in _STAMPS_TZ if not s.startswith("294276")))),
    Case("timestamptz(3)", _quoted(*(s for s in _STAMPS_TZ if not s.startswith("294276")))),
    Case("interval", _quoted(*_INTERVALS)),
    Case("interval year to month", _quoted("1 year 2 mons", "-1 mons")),
    Case("interval(0)", _quoted("00:00:00.7", "-1 days")),
    Case("interval day to second(3)", _quoted("1 day 00:00:00.7777")),
    Case("uuid", _quoted("00000000-0000-0000-0000-000000000000", "{A0EEBC999C0B4EF8BB6D6BB9BD380A11}")),
    Case(
        "json",
        _quoted('{"b": 1,  "a":[1.10, 1e400]}', "null", '"\\u0001"', "1e400"),
        big=f"to_json({_LONG})",
    ),
    Case(
        "jsonb",
        _quoted('{"b": 1, "a":[1.10, null]}', "null", "1e400", '"x"'),
        big=f"to_jsonb({_LONG})",
    ),
    Case("jsonpath", _quoted("$.a[*] ? (@ > 1)", "lax $"), big=f"('$.\"' || {_LONG} || '\"')::jsonpath"),
    Case(
        "xml",
        _quoted('<a b="1">x</a>', '<?xml version="1.0"?><a/>', "text only"),
        big=f"('<a>' || {_LONG} || '</a>')::xml",
        needs="xml",
    ),
    Case("bit(1)", ("B'0'", "B'1'")),
    Case("bit(12)", ("B'100000000001'", "B'000000000000'")),
    Case("bit(64000)", ("repeat('01', 32000)::bit(64000)",), big="repeat('01', 32000)::bit(64000)"),
    Case("varbit", ("B''", "B'0'", "B'0001'", "B'1'"), big="repeat('01', 32000)::varbit"),
    Case("varbit(10)", ("B'0000000001'",)),
    Case("inet", _quoted("192.168.0.1", "192.168.0.1/24", "::1", "2001:db8::/32", "::ffff:1.2.3.4")),
    Case("cidr", _quoted("10.0.0.0/8", "192.168.0.1/32", "2001:db8::/32", "::/0")),
    Case("macaddr", _quoted("08:00:2b:01:02:03")),
    Case("macaddr8", _quoted("08:00:2b:01:02:03:04:05")),
    Case("int4range", _quoted("empty", "[1,5)", "(,)", "[-2147483648,)", "[1,1]")),
    Case("int8range", _quoted("empty", "[1,9223372036854775807)")),
    Case(
        "numrange",
        _quoted("[1.50,2.500)", "(,NaN]", "[-Infinity,Infinity]"),
        big=f"numrange({_HUGE_NUMBER}, 2)",
    ),
    Case("daterange", _quoted("[2024-01-01,infinity)", "[0044-03-15 BC,)")),
    Case("tsrange", _quoted("[2024-01-01 00:00:00.5,infinity]", "(,0044-03-15 BC)")),
    Case("tstzrange", _quoted("[2024-01-01 00:00+02,2024-07-01 00:00+02)", "[-infinity,infinity]")),
    Case("txtrange", _quoted('["a,b",z)', '["\\"",)'), big=f"txtrange('0', 'g' || {_LONG})"),
    Case("int4multirange", _quoted("{}", "{[1,3),[5,8)}"), big=f"('{{' || {_ENDS} || '}}')::int4multirange"),
    Case("int8multirange", _quoted("{[1,3)}"), big=f"('{{' || {_ENDS} || '}}')::int8multirange"),
    Case("nummultirange", _quoted("{[1.50,2.5),[3,)}"), big=f"('{{' || {_ENDS} || '}}')::nummultirange"),
    Case(
        "datemultirange",
        _quoted("{[2024-01-01,2024-02-01)}"),
        big="(SELECT range_agg(daterange(d::date, d::date + 1)) FROM"
        " generate_series('2000-01-01'::timestamp, '2008-01-01', '3 days') d)",
    ),
    Case(
        "tsmultirange",
        _quoted("{[2024-01-01,2024-02-01)}"),
        big="(SELECT range_agg(tsrange(d, d + '1 hour')) FROM"
        " generate_series('2000-01-01'::timestamp, '2008-01-01', '3 days') d)",
    ),
    Case(
        "tstzmultirange",
        _quoted("{[2024-01-01 00:00+02,2024-02-01)}"),
        big="(SELECT range_agg(tstzrange(d, d + '1 hour')) FROM"
        " generate_series('2000-01-01'::timestamptz, '2008-01-01', '3 days') d)",
    ),
    Case("point", _quoted("(1.5,-2)", "(NaN,Infinity)", "(-0,1e-300)", "(0.1,0.30000000000000004)")),
    Case("line", _quoted("{1,-1,0.5}", "{0,1,-1e20}")),
    Case("lseg", _quoted("[(1,2),(3,4.25)]")),
    Case("box", _quoted("(2,2),(0,0.5)", "(Infinity,1),(-1,-Infinity)")),
    Case("path", _quoted("((1,2),(3,4.5))", "[(1,2),(3,4.5),(5,6)]"), big=f"('[' || {_POINTS} || ']')::path"),
    Case("polygon", _quoted("((0,0),(1,1.5),(2,0))"), big=f"('(' || {_POINTS} || ')')::polygon"),
    Case("circle", _quoted("<(1,2),3.5>", "<(0,0),0>")),
    Case(
        "tsvector",
        _quoted("", "a:1A fat:2B,4C cat:5", "'it''s' 'a b'"),
        big=f"to_tsvector('simple', regexp_replace({_LONG}, '(.{{8}})', '\\1 ', 'g'))",
    ),
    Case("tsquery", _quoted("", "fat & (rat | !cat:ab*)", "'a b' <-> c")),
    Case("oid", _quoted("0", "4294967295")),
    Case("oidvector", _quoted("", "1 2 4294967295")),
    Case("int2vector", _quoted("", "1 -2 32767")),
    Case("regclass", _quoted("pg_class", "-")),
    Case("regcollation", _quoted('"C"')),
    Case("regconfig", _quoted("simple")),
    Case("regdictionary", _quoted("simple")),
    Case("regnamespace", _quoted("pg_catalog")),
    Case("regoper", _quoted("0")),
    Case("regoperator", _quoted("+(integer,integer)")),
    Case("regproc", _quoted("now")),
    Case("regprocedure", _quoted("sum(integer)")),
    Case("regrole", _quoted("pg_monitor")),
    Case("regtype", _quoted("integer", "timestamp with time zone")),
    Case("xid", _quoted("0", "4294967295")),
    Case("xid8", _quoted("18446744073709551615")),
    Case("cid", _quoted("4294967295")),
    Case("tid", _quoted("(0,1)", "(4294967295,65535)")),
    Case("pg_lsn", _quoted("0/0", "FFFFFFFF/FFFFFFFF")),
    Case("pg_snapshot", _quoted("10:20:10,14,15"), big=f"('10:99999:' || {_NUMBERS})::pg_snapshot"),
    Case("txid_snapshot", _quoted("10:20:10,14,15"), big=f"('10:99999:' || {_NUMBERS})::txid_snapshot"),
    Case("refcursor", _quoted("my cursor", ""), big=f"{_LONG}::refcursor"),
    Case("aclitem", _quoted("pg_monitor=r/pg_monitor", "=r/pg_monitor")),
    Case("mood", _quoted("sad", 'very happy, "x"')),
    Case("posint", _quoted("1")),
    Case("txtdom", _TEXTS, big=_LONG),
    Case("numdom", _quoted("1.5", "NaN")),
    Case("domdom", _quoted("-7.25")),
    Case("moneydom", _quoted("-1234.50")),
    Case("spandom", _quoted("2500000000 hours", "1 day")),
    Case("arrdom", _quoted("{}", "[0:1]={7,8}", "{{1,NULL},{3,4}}"), big="ARRAY(SELECT generate_series(1, 2000))"),
    Case(
        "comp",
        (
            r"""ROW(1, E'a,b"c\\', '0044-03-15 BC', 0.1)::comp""",
            "ROW(NULL, '', 'infinity', 'NaN')::comp",
            "ROW(NULL, NULL, NULL, NULL)::comp",
        ),
        big=f"ROW(1, {_LONG}, NULL, NULL)::comp",
    ),
    Case("vector(3)", _quoted("[1,2.5,-3]"), needs="vector"),
    Case("vector", _quoted("[0.1]"), big="array_fill(0.5::real, '{1500}')::vector", needs="vector"),
    Case("halfvec(3)", _quoted("[1,2.5,-3]"), needs="vector"),
    Case("sparsevec(5)", _quoted("{1:1,3:-2.5}/5"), needs="vector"),
    Case("hstore", _quoted('"a"=>"1", "b c"=>NULL, "e"=>""'),
         big=f"hstore('k', {_LONG})", needs="hstore"),
    Case("citext", _quoted("MiXed"), big=f"{_LONG}::citext", needs="citext"),
    Case("ltree", _quoted("a.b.c"), big=f"{_LABELS}::ltree", needs="ltree"),
    Case("isbn", _quoted("978-0-393-04002-9"), needs="isn"),
    Case("interval", _quoted("infinity", "-infinity", "00:00:00"), needs="17"),
)  # fmt: skip


def array_of(case: Case) -> Case:
    """Return the array of a type: NULLs, empty, two dimensions, other bounds, and a big one."""
    first, last = case.values[0], case.values[-1]
    of = f"{case.type}[]"
    every = ", ".join(case.values)
    return Case(
        of,
        (
            "'{}'",
            f"ARRAY[{every}, NULL]::{of}",
            f"ARRAY[[{first}, NULL], [{last}, {first}]]::{of}",
            f"('[0:0]=' || (ARRAY[{first}]::{of})::text)::{of}",
        ),
        big=f"array_fill({last}::{case.type}, ARRAY[1 + 20000 / pg_column_size({last}::{case.type})])",
        needs=case.needs,
    )


def expanded() -> Iterator[Case]:
    """Give every scalar case and its array; domains over arrays have none of their own."""
    for case in SCALARS:
        yield case
        if case.type != "arrdom":
            yield array_of(case)


def lacks(session: Session, need: str | None) -> str | None:
    """Return why a server cannot do what a case needs, or None; creates extensions."""
    if need is None:
        return None
    if need.isdigit():
        older = session.info.server_version < int(need) * 10_000
        return f"PostgreSQL {need} is needed" if older else None
    attempt = "SELECT '<a/>'::xml" if need == "xml" else f'CREATE EXTENSION IF NOT EXISTS "{need}"'
    try:
        with session.transaction():
            session.execute(attempt.encode())
    except psycopg.Error as error:
        return f"this server has no {need}: {str(error).splitlines()[0]}"
    return None


def printed(session: Session, query: str) -> list[tuple[str | None, ...]]:
    """Return rows as the types' output functions print them, as COPY does.

    A cast to text is not that for boolean, char(n) and inet.
    """
    result = session.execute(query.encode()).pgresult
    assert result

    def text(row: int, column: int) -> str | None:
        value = result.get_value(row, column)
        return None if value is None else value.decode()

    return [tuple(text(r, c) for c in range(result.nfields)) for r in range(result.ntuples)]
