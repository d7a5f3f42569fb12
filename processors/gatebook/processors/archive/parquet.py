"""Parquet files: the documents, and a column for each field of the index beside them.

The columns are for analysis; `document` is what is verified and restored. Needs pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import orjson

from gatebook.processors.archive.errors import Differs
from gatebook.processors.archive.records import Record, nanoseconds
from gatebook.processors.archive.store import Digested
from gatebook.processors.subjects.layers import value_at
from gatebook.schemas.errors import Fatal

ROW_GROUP_BYTES = 16 * 1024 * 1024
ROW_GROUP_RECORDS = 10_000
OWN = ("id", "timestamp_ns", "hash", "left_out", "document")
# Not as columns: text and sealed content stand in the document, if anywhere.
WITHOUT_COLUMN = ("text", "binary", "flattened")
CODECS = {"zstd": "zstd", "deflate": "gzip"}


def arrow() -> Any:
    """The package pyarrow, with its Parquet part. Raises Fatal."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Fatal(
            "Parquet needs the package pyarrow, which is not installed",
            "run: pip install 'gatebook[parquet]', or use --format avro",
        ) from None
    return pyarrow


def columns(kind: str) -> dict[str, str]:
    """Columns beside the record's own: dotted field to type, from the list of fields."""
    from gatebook.schemas.generate import KINDS, leaves, mapping_of, plain_type

    found: dict[str, str] = {}
    for leaf in leaves(next(one for one in KINDS if one.name == kind)):
        mapped = mapping_of(leaf.field)["type"]
        if mapped in WITHOUT_COLUMN:
            continue
        is_list = plain_type(leaf.field).startswith("array<")
        found[leaf.path] = f"list<{mapped}>" if is_list else mapped
    return found


def _as_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _as_whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _as_number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _as_bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _as_time(value: Any) -> int | None:
    try:
        return nanoseconds(value) if isinstance(value, str) else None
    except ValueError:
        return None


# Type in the index -> the name of pyarrow's type, and how a value is put into it.
CONVERTERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "keyword": ("string", _as_text),
    "ip": ("string", _as_text),
    "long": ("int64", _as_whole),
    "double": ("float64", _as_number),
    "boolean": ("bool_", _as_bool),
    "date_nanos": ("timestamp", _as_time),
}


def _converter(kind: str) -> Callable[[Any], Any]:
    if not kind.startswith("list<"):
        return CONVERTERS[kind][1]
    one = CONVERTERS[kind[5:-1]][1]

    def convert(value: Any) -> Any:
        """A list; a single value is one, as in the index. None where there is none."""
        if value is None:
            return None
        return [one(item) for item in (value if isinstance(value, list) else [value])]

    return convert


def _arrow_type(pa: Any, kind: str) -> Any:
    if kind.startswith("list<"):
        return pa.list_(_arrow_type(pa, kind[5:-1]))
    name = CONVERTERS[kind][0]
    return pa.timestamp("ns", tz="UTC") if name == "timestamp" else getattr(pa, name)()


class ParquetWriter:
    """Writes records into one file, a row group at a time."""

    def __init__(
        self, out: Digested, codec: str, kind: str, group_bytes: int = ROW_GROUP_BYTES
    ) -> None:
        self._group_bytes = group_bytes
        self._pa = pa = arrow()
        self._columns = columns(kind)
        self._converters = {name: _converter(one) for name, one in self._columns.items()}
        own = [
            ("id", pa.string()),
            ("timestamp_ns", pa.int64()),
            ("hash", pa.string()),
            ("left_out", pa.list_(pa.string())),
            ("document", pa.string()),
        ]
        more = [(name, _arrow_type(pa, one)) for name, one in self._columns.items()]
        self._schema = pa.schema(own + more)
        self._writer = pa.parquet.ParquetWriter(out, self._schema, compression=CODECS[codec])
        self._rows: list[Record] = []
        self._bytes = 0

    def add(self, record: Record) -> None:
        """Take one record; it is in the file once its row group is full."""
        self._rows.append(record)
        self._bytes += len(record.document)
        if self._bytes >= self._group_bytes or len(self._rows) >= ROW_GROUP_RECORDS:
            self._flush()

    def _flush(self) -> None:
        data: dict[str, list[Any]] = {
            "id": [row.id for row in self._rows],
            "timestamp_ns": [row.timestamp_ns for row in self._rows],
            "hash": [row.hash for row in self._rows],
            "left_out": [list(row.left_out) for row in self._rows],
            "document": [row.document for row in self._rows],
        }
        documents = [orjson.loads(row.document) for row in self._rows]
        for name, convert in self._converters.items():
            path = name.split(".")
            data[name] = [convert(value_at(document, path)) for document in documents]
        self._writer.write_table(self._pa.table(data, schema=self._schema))
        self._rows, self._bytes = [], 0

    def close(self) -> None:
        """Write the last row group and the file's end."""
        if self._rows:
            self._flush()
        self._writer.close()


def read_parquet(file: IO[bytes], name: str) -> Iterator[Record]:
    """Records of a file, in order. The columns of fields are not read. Raises Differs."""
    pa = arrow()
    number = 0
    try:
        opened = pa.parquet.ParquetFile(file)
        for batch in opened.iter_batches(batch_size=1_000, columns=list(OWN)):
            for row in batch.to_pylist():
                number += 1
                yield _record(row)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        raise Differs("the file cannot be read as Parquet", name, number + 1) from None


def _record(row: Mapping[str, Any]) -> Record:
    return Record(
        str(row["id"]),
        int(row["timestamp_ns"]),
        str(row["hash"]),
        tuple(row["left_out"]),
        str(row["document"]),
    )


def described(kind: str) -> dict[str, str]:
    """The columns as the manifest tells them."""
    own = {"id": "string", "timestamp_ns": "int64", "hash": "string"}
    return {**own, "left_out": "list<string>", "document": "string", **columns(kind)}
