"""An inspection on a terminal, as Markdown, as CSV, and as one HTML page; the cells are given, nothing is computed here."""

from __future__ import annotations

import csv as csv_
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from convolve.draw.tables import table

if TYPE_CHECKING:
    from convolve.analysis.columns import Sheet


def terminal(sheet: Sheet) -> Table:
    """The table for a terminal."""
    return table(sheet.heading, sheet.cells, right=[n for n, right in enumerate(sheet.right) if right])


def markdown(sheet: Sheet) -> str:
    """A Markdown table and the totals."""
    rule = ["---:" if right else "---" for right in sheet.right]
    rows = [sheet.heading, rule, *sheet.cells]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    title = f"**{sheet.title}** ({', '.join(sheet.inputs)})"
    return "\n".join([title, "", *lines, "", "```text", *sheet.summary, "```"])


def csv(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated values: one line per layer, numbers without separators."""
    out = io.StringIO()
    writer = csv_.writer(out, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def page(sheet: Sheet, diagram: str) -> str:
    """One HTML page with the diagram, the totals and the table; it needs no network."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(sheet=sheet, diagram=diagram)


_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ sheet.title }}: inspection</title>
<style>
  :root { color-scheme: light; font: 14px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #111827; }
  body { margin: 0; padding: 24px 32px; }
  h1 { font-size: 22px; margin: 0 0 4px; }
  .inputs { color: #6b7280; margin: 0 0 16px; }
  pre { background: #f8fafc; border: 1px solid #e5e7eb; border-radius: 6px; padding: 12px 16px; white-space: pre-wrap; }
  main { display: grid; grid-template-columns: minmax(300px, max-content) minmax(0, 1fr); gap: 32px; align-items: start; }
  .diagram { overflow: auto; max-height: 88vh; border: 1px solid #e5e7eb; border-radius: 6px; }
  .table { overflow: auto; max-height: 88vh; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
  th { position: sticky; top: 0; background: #fff; text-align: left; border-bottom: 2px solid #111827; padding: 4px 10px; }
  td { border-bottom: 1px solid #e5e7eb; padding: 3px 10px; }
  td.right, th.right { text-align: right; }
  tbody tr:hover { background: #eff6ff; }
  td:last-child { white-space: normal; min-width: 12em; }
  @media (max-width: 900px) { main { grid-template-columns: 1fr; } }
</style>
<h1>{{ sheet.title }}</h1>
<p class="inputs">{{ sheet.inputs | join(", ") }}</p>
<pre>{{ sheet.summary | join("\n") }}</pre>
<main>
<div class="diagram">{{ diagram | safe }}</div>
<div class="table"><table>
<thead><tr>
{% for cell in sheet.heading %}
<th{% if sheet.right[loop.index0] %} class="right"{% endif %}>{{ cell }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in sheet.cells %}
<tr>{% for cell in row %}<td{% if sheet.right[loop.index0] %} class="right"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
</main>
</html>
"""
