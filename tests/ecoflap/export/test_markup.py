"""Text of others in markup languages, read back by a reader of each language."""

import docutils.core
import jinja2
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from ecoflap.export import markup
from ecoflap_pipeline.report import pages, tables
from helpers.configs import ROOT

NASTY = [
    "<b>bold</b> & &lt; &#42;",
    "a|b||c\\|d",
    "two\nlines\r\nthree\u2028four",
    "*a* _b_ __c__ `d` ~~e~~ $f$ #",
    "[link](javascript:1) ![x](y) <http://x.y>",
    "\\ ends with \\",
    "# 1. - > p_max n_in",
    "--- ``` `` `",
    "\u6a21\u578b \u2192 \u00e9",
]


def seen(html):
    """The text that a browser shows of some HTML, without the tags of Markdown's blocks."""
    from xml.etree import ElementTree

    return "".join(ElementTree.fromstring(f"<p>{html}</p>").itertext())


@pytest.mark.parametrize("text", NASTY)
def test_markdown_shows_the_text(text):
    html = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    line = " ".join(text.split())
    assert html.renderInline(markup.markdown(text)).count("<") == 0
    assert seen(html.renderInline(markup.markdown(text))) == line
    heading = html.render(f"### {markup.markdown(text)}")
    assert seen(heading.removeprefix("<h3>").removesuffix("</h3>\n")) == line
    assert seen(html.renderInline(markup.code(text))) == line


@pytest.mark.parametrize("text", NASTY)
def test_a_table_keeps_its_rows_and_columns(text):
    frame = pd.DataFrame({"Model": [text, "b"], text: ["1.0", text]})
    html = pages.html(tables.pipe_table(frame))
    assert html.count("<tr>") == 3
    assert html.count("<td>") == 4
    cells = [seen(part.partition("</td>")[0]) for part in html.split("<td>")[1:]]
    line = " ".join(text.split())
    assert cells == [line, "1.0", "b", line]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% of A & B_1 #2 ${x}", r"50\% of A \& B\_1 \#2 \$\{x\}"),
        ("a ~ b ^ c \\ d", r"a \~{} b \^{} c \textbackslash{} d"),
        ("x < y > z | w", r"x \textless{} y \textgreater{} z \textbar{} w"),
        ("A \u2192 B", r"A $\rightarrow$ B"),
        ("\u03bb = 1", r"$\lambda$ = 1"),
        ("1.0 \u00b1 2", r"1.0 $\pm$ 2"),
        ("a--b---c", "a-{}-b-{}-{}-c"),
        ("two\nlines", "two lines"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_latex_shows_the_text(text, expected):
    assert markup.latex(text) == expected
    assert not markup.needs_unicode(expected)


def test_what_pdftex_cannot_set_is_told():
    assert markup.needs_unicode(markup.latex("\u6a21\u578b"))


@pytest.mark.parametrize("text", [*NASTY, ".. include:: /etc/hostname", "word_ |x| `y`_"])
@pytest.mark.parametrize("name", ["table", "figure"])
def test_captions_of_the_report_show_the_title(text, name):
    """As Snakemake renders them: Jinja first, then docutils."""
    template = (ROOT / "workflow" / "report" / f"{name}.rst").read_text(encoding="utf-8")
    params = {"params": {"settings": {"title": text}}}
    rst = jinja2.Environment().from_string(template).render(snakemake=params)
    parts = docutils.core.publish_parts(
        rst, writer="html", settings_overrides={"report_level": 1, "halt_level": 2}
    )
    shown = " ".join(seen(parts["body"]).split())
    assert shown.startswith(" ".join(text.split()) + ". ")


@pytest.mark.parametrize("text", ["[a] b", "* b"])
def test_a_row_of_latex_does_not_begin_with_what_its_end_takes_for_an_argument(text):
    assert markup.latex(text) == "{}" + text


@pytest.mark.parametrize("write", [markup.markdown, markup.latex, markup.plot])
def test_characters_that_nothing_shows_become_blanks(write):
    assert write("a\x00b\x1bc") == "a b c"
