"""Records of a comma-separated file, whatever the length of a cell."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from zobench.errors import UserError

_WIDEST = 2**31 - 1  # letters of a cell: what fits a C long everywhere


def csv_records(lines: Iterable[str], path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line that it begins on; UserError where quotation marks do not fit.

    The module's limit is one for the whole process: it is raised while a record is read, and is
    what it was in between.
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
