"""From the dictionary of `report.json` to what people read: a self-contained page, a terminal summary, a README table.

`reading` takes the dictionary apart and survives whatever is missing, `words` names and formats, `verdict`, `learned`,
`deployed` and `origin` say what stands in each section, `pictures` draws, `page` lays out, `text` writes for terminals
and READMEs. jinja2 and matplotlib load when a page is written.
"""

from embridge_edge.report.page import write_page
from embridge_edge.report.text import table_markdown, text_summary

__all__ = ["table_markdown", "text_summary", "write_page"]
