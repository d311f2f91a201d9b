"""Tables of pictures."""

from pathlib import Path

import polars

from visae.config.settings import TableSettings


def paths(n: int = 6) -> list[str]:
    return [f"{number}.png" for number in range(n)]


def table(folder: Path, columns: dict, form: str = "csv", **options) -> TableSettings:
    file = folder / f"table.{form}"
    frame = polars.DataFrame(columns)
    if form == "csv":
        frame.write_csv(file)
    else:
        frame.write_parquet(file)
    return TableSettings(kind="table", file=str(file), **options)


def csv(folder: Path, text: str | bytes, **options) -> TableSettings:
    file = folder / "table.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return TableSettings(kind="table", file=str(file), **options)
