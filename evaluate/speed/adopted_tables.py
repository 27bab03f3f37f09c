"""Markdown table of networks with adopted layers beside themselves as they were, from the CSV file of models."""

from .adopted_entries import ADOPTED
from .cells import Row, images_of, images_ratio, peak_of, taking_turns, title
from .tables import Rows, as_fast_as, markdown, sections


def render_adopted(rows: Rows) -> str:
    """A table for each dtype and number of threads, with a row for each network, size and number of images."""
    rows = [row for row in rows if row["mode"] == "eager" and row["model"] in ADOPTED]
    return sections(rows, ("dtype", "threads"), _section)


def _section(rows: Rows) -> str:
    table = [["network", "image", "batch", "images/s", "peak MB", as_fast_as("itself unchanged")]]
    for cell in taking_turns(rows):
        of_models: dict[str, Row] = {name: row for (name, _, _), row in cell.items()}
        for name, row in of_models.items():
            stock = ADOPTED[name].stock
            ratio = images_ratio(row, of_models.get(stock)) if stock else ""
            table.append([title(name), row["image_size"], row["batch_size"], images_of(row), peak_of(row), ratio])
    return markdown(table, text_columns=1)
