"""Pages of tables for the report."""

from __future__ import annotations

from html import escape

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1b1b1b; margin: 1.2em; }
table { border-collapse: collapse; margin: 0 0 1.6em; }
th, td { border-bottom: 1px solid #d5d5d5; padding: .3em .9em .3em 0; text-align: left; vertical-align: top; }
th { font-weight: 600; } thead th { border-bottom-width: 2px; } td { max-width: 34em; overflow-wrap: anywhere; }
.warning { color: #8a2b00; } .note { color: #4a4a4a; } small { font-weight: 400; }
"""


def as_page(title: str, body: str) -> str:
    """Return an HTML page with a title (text) and a body (HTML)."""
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title><style>{_STYLE}"
        f"</style></head><body>\n{body}</body></html>\n"
    )
