"""The columns of tables that become one output: looked at before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmtrain.core.errors import Problems, UserError
from lmtrain.data.filter.tables import without_views
from lmtrain.data.filter.tasks import Input
from lmtrain.data.sources.records import RecordSource
from lmtrain.data.sources.tables import TableRows

if TYPE_CHECKING:
    import pyarrow as pa


def columns_of(inputs: Sequence[Input], *, arrow: bool) -> pa.Schema | None:
    """The columns that all tables have; None when the output is made of lines.

    Raises :class:`UserError` for tables that differ (``arrow``), or whose values JSON has no form for.
    """
    problems = Problems()
    first: tuple[str, pa.Schema] | None = None
    for each in inputs:
        for source in each.sources:
            if not isinstance(source, RecordSource) or not isinstance(source.records, TableRows):
                continue
            schema = without_views(source.records.schema())
            with problems.collect():
                if not arrow:
                    _require_json(source.name, schema)
                elif first is None:
                    first = source.name, schema
                else:
                    _require_same(*first, source.name, schema)
    problems.raise_if_any()
    return first[1] if first and arrow else None


def _require_same(name: str, schema: pa.Schema, other_name: str, other: pa.Schema) -> None:
    if schema.equals(other):
        return
    for field in schema:
        place = other.get_field_index(field.name)
        if place < 0 or not other.field(place).type.equals(field.type):
            has = f"{other.field(place).type} there" if place >= 0 else "missing there"
            raise _unlike(f"{other_name} has other columns than {name}: {field.name!r} is {field.type} and {has}")
    more = [field.name for field in other if schema.get_field_index(field.name) < 0]
    if more:
        raise _unlike(f"{other_name} has columns that {name} has not: {', '.join(more)}")
    if schema.names != other.names:
        raise _unlike(f"{other_name} has the columns of {name} in another order")


def _unlike(text: str) -> UserError:
    return UserError(f"{text}; --format jsonl.zst keeps each record as it is", flag="--format")


def _require_json(name: str, schema: pa.Schema) -> None:
    from pyarrow import types

    def holds(kind: pa.DataType) -> bool:
        if types.is_dictionary(kind):
            return holds(kind.value_type)
        if types.is_nested(kind) and not types.is_map(kind) and not types.is_union(kind):
            return all(holds(kind.field(place).type) for place in range(kind.num_fields))
        return (
            types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
            or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
        )  # fmt: skip

    for field in schema:
        if not holds(field.type):
            raise UserError(
                f"{name}: column {field.name!r} is {field.type}, for which JSON has no form; tables alone can be "
                "written with --format parquet",
                flag="--format",
            )
