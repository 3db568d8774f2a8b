"""`make handouts`: build/handouts/ as a static site that works from file://, and as one PDF.

pandoc converts each handout to HTML; this module adds the page frame, table of contents, search index, inline
figures (which follow the page's colours) and console blocks. WeasyPrint makes the PDF from one page.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from grader.course import BUILD, ROOT
from grader.execution.progress import Progress
from grader.handouts.text import FOLDER, Document, documents, slug

OUT = BUILD / "handouts" / "site"
PDF = BUILD / "handouts" / "mini-kvm-labs.pdf"
ASSETS = Path(__file__).parent / "assets"
FORMAT = "gfm+gfm_auto_identifiers"
SHORT_ROWS = 12
PARTS = {"README.md": "The course", "lab1-real-mode.md": "The labs", "reference/commands.md": "Reference",
         "instructors.md": "For instructors"}


def page_name(document: Document) -> str:
    """The page of a handout."""
    return "index.html" if document.name == "README.md" else document.name.replace("/", "-")[:-3] + ".html"


def short_title(document: Document) -> str:
    title = document.title.removeprefix("Reference: ")
    return title if title.startswith("x86") else title[:1].upper() + title[1:]


def prepared(document: Document) -> str:
    """The Markdown for pandoc: blocks with only their language, consoles as HTML, no marks."""
    out: list[str] = []
    lines = document.text.splitlines()
    fences = {fence.line: fence for fence in document.fences()}
    number = 1
    while number <= len(lines):
        fence = fences.get(number)
        if fence is None:
            if not re.fullmatch(r"<!-- (table [\w .-]+|end table) -->", lines[number - 1]):
                out.append(lines[number - 1])
            number += 1
            continue
        if fence.kind in ("console", "text"):
            out += ["", console_html(fence.body, fence.kind), ""]
        else:
            out += [f"```{fence.kind}", *fence.body, "```"]
        number += len(fence.body) + 2
    return "\n".join(out)


def console_html(body: list[str], kind: str) -> str:
    """A console block with highlighted commands. Encodes blank lines, which would end the HTML block."""
    shown = []
    for line in body:
        text = html.escape(line)
        if kind == "console" and line.startswith("$ "):
            text = f'<span class="prompt">$ </span><b>{text[2:]}</b>'
        shown.append(text or "&#8203;")
    return f'<pre class="{kind}"><code>' + "\n".join(shown) + "</code></pre>"


def to_html(document: Document) -> str:
    """The body of a handout's page."""
    done = subprocess.run(["pandoc", "-f", FORMAT, "-t", "html5", "--wrap=none"], input=prepared(document),
                          text=True, stdout=subprocess.PIPE, check=True)
    return done.stdout


def with_links(body: str, document: Document, in_one: bool) -> str:
    """Rewrites links between handouts as links between pages, or with `in_one` within the PDF's one page."""
    pages = {other.path: other for other in documents()}

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        if re.match(r"[a-z]+:", match[1]):
            return match[0]
        path = (document.path.parent / target).resolve() if target else document.path
        if path in pages:
            page = pages[path]
            if in_one:
                return f'href="#{place(page, anchor)}"'
            return f'href="{page_name(page)}{"#" + anchor if anchor else ""}"'
        name = os.path.relpath(path, ROOT)
        return f'href="#" title="{name} in the kit" class="outside"'
    return re.sub(r'href="([^"]*)"', link, body)


def place(document: Document, anchor: str) -> str:
    """An anchor in the one page of the PDF."""
    name = slug(document.name[:-3].replace("/", "-"))
    return f"{name}--{anchor}" if anchor else name


def with_figures(body: str, in_one: bool) -> str:
    """Pictures with captions; in the site the drawing itself is part of the page."""
    def picture(match: re.Match[str]) -> str:
        source, text = match[1], match[2]
        path = FOLDER / "figures" / Path(source).name
        if in_one:
            drawing = f'<img src="{path.as_uri()}" alt="{text}">'
        else:
            svg = re.sub(r"<style>.*?</style>\n|<title>.*?</title>\n", "", path.read_text(), flags=re.S)
            drawing = svg.replace('role="img"', f'role="img" aria-label="{text}"')
        return f"<figure>{drawing}<figcaption>{text}</figcaption></figure>"
    body = re.sub(r'<p>(<img [^>]*>)</p>', r"\1", body)
    body = re.sub(r"<figure>\s*(<img [^>]*>)\s*<figcaption[^>]*>.*?</figcaption>\s*</figure>", r"\1", body,
                  flags=re.S)
    return re.sub(r'<img src="([^"]*)" alt="([^"]*)"[^>]*/?>', picture, body)


def with_tables(body: str) -> str:
    """Tables that scroll on a narrow page; short ones are not split in the PDF."""
    def framed(found: re.Match[str]) -> str:
        short = found[0].count("<tr") <= SHORT_ROWS
        return f'<div class="table{" short" if short else ""}">{found[0]}</div>'
    body = re.sub(r"<colgroup>.*?</colgroup>", "", body, flags=re.S)
    return re.sub(r"<table>.*?</table>", framed, body, flags=re.S)


def sections(document: Document, body: str) -> Iterator[dict[str, str]]:
    """A page's entries in the search index."""
    for part in re.split(r"(?=<h[1-3][ >])", body):
        head = re.match(r'<h[1-3] id="([^"]*)"[^>]*>(.*?)</h[1-3]>', part, re.S)
        text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", part)))
        if head and text.strip():
            yield {"u": f"{page_name(document)}#{head[1]}", "p": short_title(document),
                   "t": html.unescape(re.sub(r"<[^>]+>", "", head[2])), "x": text.strip()}


def contents(found: list[Document], current: Document) -> str:
    """The list of pages, with the current one's sections."""
    out = []
    for document in found:
        if document.name in PARTS:
            out.append(f'<li class="part">{PARTS[document.name]}</li>')
        here = ' aria-current="page"' if document == current else ""
        out.append(f'<li><a href="{page_name(document)}"{here}>{html.escape(short_title(document))}</a></li>')
        if document == current:
            out += [f'<li class="section{level}"><a href="#{slug(text)}">'
                    f'{html.escape(text.replace("`", ""))}</a></li>'
                    for level, text in document.headings() if level in (2, 3)]
    return "<ul>" + "".join(out) + "</ul>"


def around(found: list[Document], current: Document) -> str:
    """Links to the previous and the next handout."""
    at = found.index(current)
    links = []
    if at > 0:
        before = found[at - 1]
        links.append(f'<a rel="prev" href="{page_name(before)}">&larr; {short_title(before)}</a>')
    if at + 1 < len(found):
        behind = found[at + 1]
        links.append(f'<a rel="next" href="{page_name(behind)}">{short_title(behind)} &rarr;</a>')
    return "".join(links)


def write_site(found: list[Document], bodies: Mapping[str, str]) -> None:
    """Writes the pages, their style and their search."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    template = (ASSETS / "page.html").read_text()
    index: list[dict[str, str]] = []
    for document in found:
        body = bodies[document.name]
        index += sections(document, body)
        body = with_tables(with_figures(with_links(body, document, False), False))
        page = template
        for mark, value in (("title", html.escape(short_title(document))),
                            ("contents", contents(found, document)), ("body", body),
                            ("around", around(found, document))):
            page = page.replace("{{" + mark + "}}", value)
        (OUT / page_name(document)).write_text(page)
    (OUT / "search-index.js").write_text("var searchIndex = " + json.dumps(index, ensure_ascii=False) + ";\n")
    for name in ("style.css", "search.js"):
        shutil.copy(ASSETS / name, OUT / name)


def print_page(found: list[Document], bodies: Mapping[str, str]) -> str:
    """All handouts in one HTML page for WeasyPrint."""
    parts, entries = [], []
    for document in found:
        body = with_figures(with_tables(with_links(bodies[document.name], document, True)), True)
        body = re.sub(r'(<h[1-6]) id="([^"]*)"', lambda match, page=document:   # type: ignore[misc]
                      f'{match[1]} id="{place(page, match[2])}"', body)
        body = re.sub(r"<details>\s*<summary>(.*?)</summary>", r'<div class="folded"><b>\1</b>', body,
                      flags=re.S)
        body = body.replace("</details>", "</div>")
        # WeasyPrint ignores `start`.
        body = re.sub(r'<ol start="(\d+)"',
                      lambda match: f'<ol style="counter-reset: list-item {int(match[1]) - 1}"', body)
        parts.append(f'<section class="chapter" id="{place(document, "")}">{body}</section>')
        entries.append(f'<li><a href="#{place(document, "")}">{html.escape(short_title(document))}</a></li>')
        entries += [f'<li class="inner"><a href="#{place(document, slug(text))}">'
                    f'{html.escape(text.replace("`", ""))}</a></li>'
                    for level, text in document.headings() if level == 2]
    page = (ASSETS / "print.html").read_text().replace("{{contents}}", "".join(entries))
    return page.replace("{{body}}", "".join(parts))


def write_pdf(found: list[Document], bodies: Mapping[str, str]) -> None:
    """All handouts as PDF."""
    source = PDF.with_suffix(".html")
    source.write_text(print_page(found, bodies))
    subprocess.run(["weasyprint", "-q", "-s", str(ASSETS / "print.css"), str(source), str(PDF)], check=True)
    source.unlink()


def broken_links() -> Iterator[str]:
    """Broken links in the written site."""
    pages = {path.name: path.read_text() for path in OUT.glob("*.html")}
    for name, text in pages.items():
        for target in re.findall(r'href="([^"]*)"', text):
            file, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target) or target == "#":
                continue
            page = pages.get(file or name)
            if page is None and not (OUT / file).exists():
                yield f"{name}: {target}"
            elif page is not None and anchor and f'id="{anchor}"' not in page:
                yield f"{name}: {target}"


def render(quiet: bool = False) -> int:
    """Writes the site and the PDF; returns an exit status."""
    found = documents()
    bodies: dict[str, str] = {}
    with Progress("rendering the handouts") as progress:
        for document in found:
            progress.step(document.name)
            bodies[document.name] = to_html(document)
        write_site(found, bodies)
        progress.step(PDF.name)
        write_pdf(found, bodies)
    if not quiet:
        print(f"the site: {(OUT / 'index.html').relative_to(ROOT)}\nthe PDF:  {PDF.relative_to(ROOT)}")
    return 0
