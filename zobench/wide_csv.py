"""Records of a CSV file with cells of any length."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from zobench.errors import UserError

_WIDEST = 2**31 - 1  # characters of a cell: the largest C long on all systems


def csv_records(lines: Iterable[str], path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each record with the number of its first line; UserError for mismatched quotation marks.

    The csv module's limit is global, so it is raised only while a record is read.
    """
    reader = csv.reader(lines, strict=True)
    while True:
        first, before = reader.line_num + 1, csv.field_size_limit(_WIDEST)
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            marks = (
                "; a quotation mark inside quotation marks is doubled" if '"' in str(error) else ""
            )
            raise UserError(f"{path}:{first}: malformed csv: {error}{marks}") from None
        finally:
            csv.field_size_limit(before)
        yield first, fields
