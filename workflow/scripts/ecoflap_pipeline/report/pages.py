"""HTML pages of tables, for Snakemake's report and to open by themselves."""

STYLE = """
body { margin: 1.5rem; background: #fff; color: #1b1f24; font: 15px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; border-bottom: 2px solid; padding: .35rem .7rem; vertical-align: bottom; }
td { border-bottom: 1px solid #d9dee5; padding: .32rem .7rem; white-space: nowrap; }
tbody tr:hover { background: #f2f7fc; }
"""


def html(markdown: str) -> str:
    """Renders Markdown as a page that refers to no other file; raw HTML in it stays text."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    head = f'<meta charset="utf-8"><title>ECoFLaP</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}</body></html>\n'
