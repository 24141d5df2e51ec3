"""Snakemake's report in headless Chromium: every table is readable, nothing leaves the machine."""

import base64
import html
import json
import re
import shutil
import subprocess

import pytest

from helpers.projects import SMALL

pytestmark = pytest.mark.browser
# What a page looks like to a reader, told by the browser's own layout.
LAYOUT = """<script>addEventListener("load", () => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
  const all = what => [...document.querySelectorAll(what)];
  const found = all("table").map(e => ({ box: box(e), rows: e.rows.length, text: e.innerText }));
  document.documentElement.setAttribute("data-told", JSON.stringify(found));
});</script>"""
# What the report offers, and its figure as the browser shows it.
OFFER = """<script>addEventListener("load", () => setTimeout(() => {
  const text = document.body.innerText;
  const figure = Object.keys(results).find(path => path.endsWith(".svg"));
  app.setView({ content: "img", contentPath: results[figure].data_uri, resultPath: figure });
  setTimeout(() => {
    const seen = [...document.querySelectorAll("#app img")].map(e => e.naturalWidth);
    const pages = Object.fromEntries(Object.entries(results).map(([k, v]) => [k, v.data_uri]));
    const told = { pages: pages, text: text, figure: seen.at(-1) };
    document.documentElement.setAttribute("data-told", JSON.stringify(told));
  }, 500);
}, 500));</script>"""


def chromium(folder, *arguments):
    """Runs Chromium; returns what it printed and what pages said in the console.

    What the style sheets of Snakemake's page say of themselves is left out.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "no Chromium. Allowed: Debian's package. Run `apt-get install chromium`."
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1600"]
    flags += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--no-first-run"]
    done = subprocess.run(
        [program, *flags, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, [line for line in console if "cdn.tailwindcss.com" not in line]


def looked_at(page, probe, folder):
    """Opens a page with a script of ours in it; returns what the script found."""
    probed = folder / "probed.html"
    start, end, rest = page.rpartition("</body>")
    probed.write_text(start + probe + end + rest)
    dom, console = chromium(folder, "--dump-dom", "--virtual-time-budget=5000", f"file://{probed}")
    assert console == []
    return json.loads(html.unescape(re.search(r'data-told="([^"]*)"', dom)[1]))


@pytest.fixture(scope="module")
def report(finished):
    for arguments in ([], ["--report", "report.html"]):
        code, output = finished.snakemake("all", "describe_run", *arguments)
        assert code == 0, output
    return finished.folder / "report.html"


@pytest.fixture(scope="module")
def offered(report, tmp_path_factory):
    return looked_at(report.read_text(), OFFER, tmp_path_factory.mktemp("browser"))


def tables_of(offered, path, folder):
    """Returns the tables of a page of the report as the browser lays them out."""
    page = base64.b64decode(offered["pages"][path].partition("base64,")[2]).decode()
    return looked_at(page, LAYOUT, folder)


def test_the_report_has_its_text_every_category_and_a_figure(offered):
    for text in ("prunes in two steps", "Tables", "Figures", "Run"):
        assert text in offered["text"]
    assert offered["figure"] > 100  # pixels
    kinds = {name: SMALL["experiments"][name]["kind"] for name in SMALL["run"]}
    for name, kind in kinds.items():
        path = f"results/{'tables' if kind == 'table' else 'figures'}/{name}"
        assert f"{path}.{'html' if kind == 'table' else 'svg'}" in offered["pages"]


def test_a_table_is_readable(offered, tmp_path):
    table, published = tables_of(offered, "results/tables/small-table.html", tmp_path)
    assert table["box"][0] > 300
    assert table["box"][1] > 100
    assert table["rows"] == 5
    for row in ("Dense", "Global magnitude", "Wanda", "ECoFLaP"):
        assert row in table["text"]
    assert "caltech101" in published["text"]


def test_cost_versions_and_licences_are_readable(offered, tmp_path):
    cost, versions, licences = tables_of(offered, "results/report/run.html", tmp_path)
    for rule in ("extract_calibration", "compute_scores", "prune_model", "evaluate_model"):
        (line,) = [line for line in cost["text"].splitlines() if line.startswith(rule)]
        _, jobs, seconds, _, memory, *_ = line.split("\t")
        assert int(jobs) >= 1
        assert float(seconds) >= 0
        assert float(memory) > 1
    assert "torch" in versions["text"]
    assert "demo-clip\tApache-2.0" in licences["text"]


def asked_for(log):
    """Returns the addresses that a page asked for; the browser's own calls have no origin."""
    found = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    return {
        ask["url"]
        for ask in found
        if ask.get("initiator", "not an origin") != "not an origin"
        and ask.get("url", "").startswith(("http", "ws"))
    }


def test_nothing_leaves_the_machine_and_the_console_is_silent(report, tmp_path):
    log, shot = tmp_path / "net.json", tmp_path / "report.png"
    _, console = chromium(
        tmp_path, f"--log-net-log={log}", f"--screenshot={shot}", f"file://{report}"
    )
    assert console == []
    assert shot.stat().st_size > 20_000
    assert asked_for(log) == set()
    # A page that does ask for something is seen by the same means.
    other = tmp_path / "other.html"
    other.write_text('<img src="http://127.0.0.1:9/picture.png">')
    chromium(tmp_path, f"--log-net-log={log}", f"--screenshot={shot}", f"file://{other}")
    assert asked_for(log) == {"http://127.0.0.1:9/picture.png"}
