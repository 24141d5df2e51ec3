"""Text of others (labels, titles, prompts, paths) in a markup language: it stays that text."""

import re
import unicodedata

GREEK = """
    α:alpha β:beta γ:gamma δ:delta ε:varepsilon ζ:zeta η:eta θ:theta ι:iota κ:kappa λ:lambda μ:mu
    ν:nu ξ:xi π:pi ρ:rho σ:sigma τ:tau υ:upsilon φ:varphi χ:chi ψ:psi ω:omega Γ:Gamma Δ:Delta
    Θ:Theta Λ:Lambda Ξ:Xi Π:Pi Σ:Sigma Φ:Phi Ψ:Psi Ω:Omega
"""
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%_#${}"}
    | {
        "±": r"$\pm$",
        "−": "$-$",
        "\\": r"\textbackslash{}",
        "^": r"\^{}",
        "~": r"\~{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\textasciigrave{}",
        "←": r"$\leftarrow$",
        "→": r"$\rightarrow$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "↔": r"$\leftrightarrow$",
        "⇒": r"$\Rightarrow$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "≠": r"$\neq$",
        "≈": r"$\approx$",
        "∞": r"$\infty$",
    }
    | {item[0]: rf"$\{item[2:]}$" for item in GREEK.split()}
)
# What a LaTeX with pdfTeX sets without further packages: Latin letters, dashes, quotation marks.
PDFTEX = re.compile(r"[\x00-\u017f\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u20ac]*")
# An underscore within a word is no markup, and & begins an entity only before its name.
MARKDOWN = re.compile(r"[\\`*\[\]<|~#$]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")


def one_line(text: object) -> str:
    """Returns a text on one line, with single blanks between its words, and nothing unprintable."""
    seen = (" " if unicodedata.category(letter) == "Cc" else letter for letter in str(text))
    return " ".join("".join(seen).split())


def markdown(text: object) -> str:
    """Returns what shows a text in a line of Markdown, a cell of a table among them."""
    return MARKDOWN.sub(r"\\\g<0>", one_line(text))


def code(text: object) -> str:
    """Returns a text as Markdown's code, between more backticks than are in it."""
    text = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    blank = " " if "`" in text else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def latex(text: object) -> str:
    """Returns what shows a text in LaTeX."""
    found = unicodedata.normalize("NFC", one_line(text)).translate(LATEX)
    found = re.sub("-(?=-)", "-{}", found)  # two would become a dash
    return re.sub(r"^(?=[\[*])", "{}", found)  # after the end of a row they are its arguments


def needs_unicode(text: str) -> bool:
    """Tells whether LaTeX text has characters that want XeLaTeX or LuaLaTeX, and their font."""
    return PDFTEX.fullmatch(text) is None


def plot(text: object) -> str:
    """Returns what shows a text in a figure of matplotlib.

    Dollars are no mathematics there; what begins with an underscore would be kept from a legend.
    """
    found = one_line(text).replace("$", r"\$")
    return f" {found}" if found.startswith("_") else found
