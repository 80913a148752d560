#!/usr/bin/env python3
"""Makes the files that `tests/data.rs` reads: Parquet as the Hub has it, and the same rows as JSONL.

    tests/goldens/data/
        types.parquet, types.jsonl     a column of every type, with nulls, empty lists and lists of structs of lists
        int96.parquet, int96.jsonl     times as Spark and Impala used to write them
        many.jsonl                     more rows, in many-*.parquet by every compression, page version and encoding,
                                       in several row groups and pages; and in three parts, part-*.parquet
        lz4.parquet, brotli.parquet    what cannot be read, and must say so

The expected rows are what pyarrow reads back, in JSON: times and dates as Python prints them, decimals as numbers,
bytes as text or else null, and null for what JSON has no number for.

    pip install pyarrow
    python tests/make_data.py
"""

import datetime
import decimal
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path(__file__).parent / "goldens" / "data"
UTC = datetime.timezone.utc


def plain(value):
    """A value of pyarrow's, as JSON can say it."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError:
                return None
        case decimal.Decimal():
            return float(value)
        case datetime.datetime() | datetime.date() | datetime.time():
            return str(value)
        case list() | tuple():
            return [plain(v) for v in value]
        case dict():
            return {k: plain(v) for k, v in value.items()}
    return float(value)  # numpy's half


def lines(path, table):
    """What pyarrow reads back from a file, an object a line."""
    # Nanoseconds are more than Python's datetime holds: printed from the number.
    nanos = [i for i, field in enumerate(table.schema) if field.type == pa.timestamp("ns")]
    rows = []
    columns = []
    for i, column in enumerate(table.columns):
        if i in nanos:
            numbers = column.cast(pa.int64()).to_pylist()
            columns.append([None if n is None else nano(n) for n in numbers])
        else:
            columns.append(column.to_pylist())
    for values in zip(*columns):
        rows.append(dict(zip(table.column_names, map(plain, values))))
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def nano(n):
    second = datetime.datetime.fromtimestamp(n // 10**9, UTC).replace(tzinfo=None)
    rest = n % 10**9
    if rest == 0:
        return str(second)
    return f"{second}.{rest // 1000:06}" if rest % 1000 == 0 else f"{second}.{rest:09}"


def write(name, table, **how):
    path = OUT / name
    pq.write_table(table, path, **how)
    back = pq.read_table(path)
    assert back.num_rows == table.num_rows
    return back


def types():
    when = datetime.datetime
    item = pa.struct([("text", pa.string()), ("ids", pa.list_(pa.int32()))])
    # A column each: its type, and four values.
    columns = {
        "zebra": (pa.string(), ["first, though last in the alphabet", "", None, "Zoë 中文 🦓"]),
        "flag": (pa.bool_(), [True, None, False, True]),
        "int8": (pa.int8(), [-128, 127, None, 0]),
        "int16": (pa.int16(), [-32768, 32767, 0, None]),
        "int32": (pa.int32(), [-(2**31), 2**31 - 1, None, 7]),
        "int64": (pa.int64(), [-(2**63), 2**63 - 1, None, 7]),
        "uint8": (pa.uint8(), [255, 0, None, 1]),
        "uint16": (pa.uint16(), [65535, 0, None, 1]),
        "uint32": (pa.uint32(), [2**32 - 1, 0, None, 1]),
        "uint64": (pa.uint64(), [2**64 - 1, 0, None, 1]),
        "half": (pa.float16(), [0.5, -2.0, None, float("inf")]),
        "float": (pa.float32(), [0.1, -3.5e38, None, float("nan")]),
        "double": (pa.float64(), [0.1, 1e300, None, float("-inf")]),
        "required": (pa.field("required", pa.int64(), nullable=False), [1, 2, 3, 4]),
        "word": (pa.dictionary(pa.int32(), pa.string()), ["a", "b", None, "a"]),
        "large": (pa.large_string(), ["x", "y" * 300, None, ""]),
        "bytes": (pa.binary(), [b"text", b"\xff\xfe", None, b""]),
        "fixed": (pa.binary(3), [b"abc", b"\x80\x81\x82", None, b"xyz"]),
        "date": (pa.date32(), [datetime.date(1970, 1, 1), datetime.date(2024, 2, 29), None, datetime.date(1, 1, 1)]),
        "date_before": (
            pa.date32(),
            [datetime.date(1969, 12, 31), datetime.date(1900, 3, 1), datetime.date(9999, 12, 31), None],
        ),
        "time_ms": (pa.time32("ms"), [datetime.time(0, 0), datetime.time(23, 59, 59, 999000), None, None]),
        "time_us": (pa.time64("us"), [datetime.time(1, 2, 3, 4), datetime.time(12, 0), None, None]),
        "stamp_ms": (pa.timestamp("ms", "UTC"), [when(2024, 2, 29, 12, tzinfo=UTC), when(1969, 7, 20, 20, 17, 40, 1000, UTC), None, None]),
        "stamp_us": (pa.timestamp("us"), [when(2000, 2, 29, 1, 2, 3, 4), when(1582, 10, 15), None, when(1, 1, 1)]),
        "stamp_ns": (pa.timestamp("ns"), [1, 1_700_000_000_123_456_789, None, -1_000]),
        "decimal": (pa.decimal128(10, 2), [decimal.Decimal("12.34"), decimal.Decimal("-99999999.99"), None, decimal.Decimal("0.00")]),
        "decimal_small": (pa.decimal128(5, 5), [decimal.Decimal("0.00001"), decimal.Decimal("-0.5"), None, None]),
        "decimal_large": (pa.decimal128(38, 3), [decimal.Decimal("123456789012345678901234567890.125"), decimal.Decimal("-1"), None, None]),
        "nothing": (pa.null(), [None] * 4),
        "list": (pa.list_(pa.string()), [["a", "b"], [], None, [None, "c", None]]),
        "lists": (pa.list_(pa.list_(pa.int64())), [[[1, 2], [], None, [3]], [], None, [[None]]]),
        "list_of_required": (
            pa.list_(pa.field("element", pa.int32(), nullable=False)), [[1], [], None, [2, 3]],
        ),
        "three": (pa.list_(pa.float32(), 2), [[0.5, 1.5], [2.5, 3.5], None, [4.5, None]]),
        "struct": (
            pa.struct([("z", pa.int32()), ("a", pa.string())]),
            [{"z": 1, "a": "x"}, {"z": None, "a": None}, None, {"z": 2, "a": ""}],
        ),
        "inside": (
            pa.struct([("in", pa.struct([("deep", pa.list_(pa.string()))]))]),
            [{"in": {"deep": ["x"]}}, {"in": None}, None, {"in": {"deep": []}}],
        ),
        # How a dataset's sequence of tables is kept (ARC's `choices`, TruthfulQA's `mc1_targets`).
        "choices": (
            pa.struct([("text", pa.list_(pa.string())), ("label", pa.list_(pa.string()))]),
            [{"text": ["a", "b"], "label": ["A", "B"]}, {"text": [], "label": []}, {"text": ["c"], "label": ["1"]}, None],
        ),
        "items": (
            pa.list_(item),
            [
                [{"text": "a", "ids": [1, 2]}, {"text": None, "ids": []}, None],
                [],
                None,
                [{"text": "b", "ids": None}, {"text": "c", "ids": [None, 3]}],
            ],
        ),
        "items_of_items": (
            pa.list_(pa.list_(item)),
            [[[{"text": "a", "ids": [1]}], []], [], None, [None, [{"text": "b", "ids": [2, 3]}, {"text": "c", "ids": []}]]],
        ),
        "map": (pa.map_(pa.string(), pa.int64()), [[("k", 1), ("j", None)], [], None, [("z", 3), ("a", 4)]]),
    }
    fields = [t if isinstance(t, pa.Field) else pa.field(name, t) for name, (t, _) in columns.items()]
    arrays = []
    for field, (_, values) in zip(fields, columns.values()):
        if field.type == pa.float16():
            import numpy

            values = [None if v is None else numpy.float16(v) for v in values]
        if field.type == pa.float32():
            values = [None if v is None else max(v, -3.4e38) if v == v else v for v in values]
        arrays.append(pa.array(values, field.type))
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    lines(OUT / "types.jsonl", write("types.parquet", table, store_schema=False))

    stamps = [when(2001, 9, 9, 1, 46, 40, 5), None, when(1969, 12, 31, 23, 59, 59, 999999), when(1600, 1, 1)]
    table = pa.table({"when": pa.array(stamps, pa.timestamp("us"))})
    write("int96.parquet", table, use_deprecated_int96_timestamps=True)
    lines(OUT / "int96.jsonl", table)


def many():
    words = ["red", "green", "blue", None, "a longer word that stands out"]
    rows = [
        {
            "id": i,
            "question": f"{i} and {words[i % 4]}",
            "word": words[i * i % 5],
            "endings": [f"{i % 7}{w or ''}" for w in words[: i % 5]],
            "label": i % 3 if i % 11 else None,
            "score": i / 8,
        }
        for i in range(60)
    ]
    table = pa.Table.from_pylist(rows)
    plain = dict(row_group_size=40, data_page_size=300, write_batch_size=16, write_statistics=False, store_schema=False)
    for compression, version in [("none", "1.0"), ("snappy", "1.0"), ("snappy", "2.0"), ("gzip", "1.0"), ("zstd", "2.0")]:
        name = f"many-{compression}-v{version[0]}.parquet"
        back = write(name, table, compression=compression, data_page_version=version, **plain)
    delta = {
        "id": "DELTA_BINARY_PACKED",
        "question": "DELTA_BYTE_ARRAY",
        "word": "DELTA_LENGTH_BYTE_ARRAY",
        "score": "BYTE_STREAM_SPLIT",
    }
    write("many-delta.parquet", table, use_dictionary=False, column_encoding=delta, **plain)
    # As older versions named the items of a list.
    write("many-item.parquet", table, use_compliant_nested_type=False, **plain)
    lines(OUT / "many.jsonl", back)
    for i in range(3):
        write(f"part-{i}.parquet", table.slice(i * 20, 20), **plain)
    few = table.slice(0, 3).select(["id", "question"])
    write("lz4.parquet", few, compression="lz4", store_schema=False)
    write("brotli.parquet", few, compression="brotli", store_schema=False)


OUT.mkdir(parents=True, exist_ok=True)
types()
many()
size = sum(path.stat().st_size for path in OUT.iterdir())
print(f"{size} bytes in {len(list(OUT.iterdir()))} files")
