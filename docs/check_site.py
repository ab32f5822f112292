"""Check the built pages: links, pictures, parameters, and what a browser shows.

    sphinx-build -W docs docs/_build
    python docs/check_site.py docs/_build            # needs chromium and playwright
    python docs/check_site.py docs/_build --static   # without a browser

Links and pictures must lead to something, and documented parameters must be those of
the signature above them. In a headless Chromium, no page may report an error or ask for
a file from the network, all must fit a screen of 400 pixels, and the search must find
what people look for. The extra `site` installs playwright; chromium is a package of the
system, such as Debian's.
"""

import argparse
import functools
import http.server
import re
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

WIDTH = 400  # pixels, as of a phone
# What the search must find, and a page that must be among the first results.
SEARCHES = {
    "lambda_v": "generated/skrec.BiasedMFRegressor",
    "recommend": "guide/recommend",
    "similar items": "guide/recommend",
}
N_FIRST = 20
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


# -- without a browser ---------------------------------------------------------------


def read_pages(folder):
    """Parse all pages, by path."""
    return {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.parts
    }


def check_links(pages):
    """Yield links and pictures that lead nowhere, and pictures without alt text."""
    anchors = {path: {tag["id"] for tag in p(id=True)} for path, p in pages.items()}
    for path, page in pages.items():
        for tag in page(("a", "img", "link", "script", "source")):
            address = tag.get("href") or tag.get("src") or ""
            url = urlsplit(address)
            if not address or url.scheme or url.netloc:
                continue
            target = path
            if url.path:
                target = (path.parent / unquote(url.path)).resolve()
            if not target.is_file():
                yield path, f"{tag.name} leads to {address}, which does not exist"
            elif url.fragment and unquote(url.fragment) not in anchors.get(
                target, {unquote(url.fragment)}
            ):
                yield path, f"there is no anchor {address}"
        for tag in page("img"):
            if tag.get("alt") is None:  # empty: a decoration
                yield path, f"the picture {tag.get('src')} has no alt text"


def check_parameters(pages):
    """Yield documented parameters that the signature above them does not have."""
    for path, page in pages.items():
        for entry in page("dl", class_="py"):
            signature = entry.find("dt", class_="sig", recursive=False)
            body = entry.find("dd", recursive=False)
            if signature is None or body is None:
                continue
            known = {
                name.get_text().lstrip("*")
                for parameter in signature("em", class_="sig-param")
                for name in parameter("span", class_="n")[:1]
            }
            for name in documented(body):
                if name not in known:
                    what = signature.get("id") or signature.get_text()
                    yield path, f"{what} has no parameter {name!r}"


def documented(body):
    """Names in the list of parameters that belongs to an entry, not to its members."""
    for fields in body("dl", class_="field-list", recursive=False):
        for title in fields("dt", recursive=False):
            if title.get_text(strip=True).rstrip(":") == "Parameters":
                listed = title.find_next_sibling("dd")
                for name in listed.select(":scope > dl > dt > strong"):
                    yield from re.split(r",\s*", name.get_text().replace("*", ""))


def check_methods(pages):
    """Yield estimators whose page does not document their methods."""
    for path, page in pages.items():
        if re.fullmatch(r"skrec\.\w+Regressor\.html", path.name):
            for method in ("fit", "predict", "score", "recommend", "explain"):
                if page.find("dt", id=f"{path.stem}.{method}") is None:
                    yield path, f"the method {method} is not documented"


# -- in a browser --------------------------------------------------------------------


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serve files without a line for each."""

    def log_message(self, *_):
        """Print nothing."""


def check_in_browser(folder, names):
    """Yield what goes wrong when the pages are opened."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SystemExit(f"None of {', '.join(BROWSERS)} is installed.")
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": 800})
        found = []
        page.on("console", lambda m: m.type == "error" and found.append(m.text))
        page.on("pageerror", lambda error: found.append(str(error)))
        page.on(
            "request",
            lambda r: (
                r.url.startswith(("http:", "https:"))
                and not r.url.startswith(root)
                and found.append(f"asks for {r.url}")
            ),
        )
        page.on(
            "response",
            lambda r: r.status >= 400 and found.append(f"got {r.status} for {r.url}"),
        )
        for name in names:
            page.goto(root + name)
            width = page.evaluate("document.documentElement.scrollWidth")
            if width > WIDTH:
                found.append(f"is {width} pixels wide on a screen of {WIDTH}")
            yield from ((folder / name, problem) for problem in found)
            found.clear()
        for words, expected in SEARCHES.items():
            page.goto(f"{root}search.html?q={words}")
            page.wait_for_selector("#search-results li a", timeout=20_000)
            page.wait_for_timeout(2_000)  # results arrive one after another
            links = page.locator("#search-results ul.search > li > a")
            first = [link.get_attribute("href") for link in links.all()[:N_FIRST]]
            if not any(expected in str(link) for link in first):
                yield folder / "search.html", f"{words!r} finds {first}"
        browser.close()
    server.shutdown()


def main(options):
    folder = options.folder.resolve()
    pages = read_pages(folder)
    if not pages:
        raise SystemExit(f"{folder} has no pages: build them first.")
    problems = [
        *check_links(pages),
        *check_parameters(pages),
        *check_methods(pages),
    ]
    if not options.static:
        names = [path.relative_to(folder).as_posix() for path in pages]
        problems += check_in_browser(folder, names)
    for path, problem in problems:
        print(f"{path.relative_to(folder)}: {problem}")
    n_links = sum(len(page("a", href=True)) for page in pages.values())
    n_pictures = sum(len(page("img")) for page in pages.values())
    print(
        f"{len(pages)} pages, {n_links} links, {n_pictures} pictures, "
        f"{len(problems)} problems"
    )
    return bool(problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--static", action="store_true", help="without a browser")
    sys.exit(main(parser.parse_args()))
