"""Documents of tables: a column of CSV, or of Parquet."""

import csv
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from project.data.corpus import Value
from project.data.file_content import opened, pyarrow_for, refuse_binary, refused
from project.data.records import value_of

LONGEST_FIELD = 2**31 - 1  # of CSV, in characters; Python's default of 128 KiB is shorter than many documents


def separated(path: Path, text_key: str, separator: str) -> Iterator[str]:
    """The column `text_key` of a table whose first row names its columns."""
    csv.field_size_limit(LONGEST_FIELD)
    with io.TextIOWrapper(opened(path), encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, strict=True)
        try:
            names = next((row for row in rows if row), [])
            if names.count(text_key) != 1:
                many = "several columns" if text_key in names else "no column"
                raise refused(path, f"has {many} data.text_key={text_key}; it has {names}")
            column = names.index(text_key)
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    said = f"has {len(row)} values, where the first row names {len(names)}"
                    raise refused(f"{path}:{rows.line_num}", f"{said}; a text that holds {separator!r} needs quotes")
                text = row[column]
                refuse_binary(Path(f"{path}:{rows.line_num}"), text.encode(), 0)
                yield text
        except UnicodeDecodeError as error:
            raise refused(path, f"is not UTF-8 ({error}); convert it, for instance with iconv") from None
        except csv.Error as error:
            said = f"is no table of values separated by {separator!r}: line {rows.line_num}: {error}"
            raise refused(path, said) from None


def parquet(path: Path, text_key: str) -> Iterator[Value]:
    pyarrow = pyarrow_for(path)
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise refused(path, f"is not Parquet ({error})") from None
    schema = table.schema_arrow
    if schema.names.count(text_key) != 1:
        many = "several columns" if text_key in schema.names else "no column"
        raise refused(path, f"has {many} data.text_key={text_key}; it has {schema.names}")
    column = schema.field(text_key).type
    kinds = pyarrow.types
    is_list = kinds.is_list(column) or kinds.is_large_list(column) or kinds.is_fixed_size_list(column)
    if not is_string(pyarrow, column) and not (
        is_list and (kinds.is_integer(column.value_type) or kinds.is_struct(column.value_type))
    ):
        must = "which must be of strings, of messages (role, content) or of tokens"
        raise refused(path, f"has {column} in the column data.text_key={text_key}, {must}")
    try:
        row = 0
        for batch in table.iter_batches(columns=[text_key]):
            for value in batch.column(0).to_pylist():
                fault = partial(refused, f"{path}:{row}")
                yield (value or "") if isinstance(value, str) else value_of({text_key: value or None}, text_key, fault)
                row += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise refused(path, f"is damaged ({str(error).splitlines()[0]})") from None
    except UnicodeDecodeError as error:
        raise refused(path, f"is not UTF-8 under data.text_key={text_key}, after row {row} ({error})") from None


def is_string(pyarrow: Any, column: Any) -> bool:
    value = column.value_type if pyarrow.types.is_dictionary(column) else column
    return pyarrow.types.is_string(value) or pyarrow.types.is_large_string(value) or str(value) == "string_view"
