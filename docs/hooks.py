"""What `make site` adds to MkDocs: files that pages link to, and folders in the navigation.

Pages link as in a checkout (`../reports/demo/README.md`), so that they can be read there too. Here such a
link is followed into the repository: the file joins the site, and the link is turned to where it lies.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
ROOT_PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
"""Pages of the repository's root that are pages of the site."""
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def on_config(config: Any) -> Any:
    """Put a folder's pages where the navigation names it with `/*`."""
    config.nav = [{title: _expanded(entry) for title, entry in section.items()} for section in config.nav]
    return config


def _expanded(entry: Any) -> Any:
    if not (isinstance(entry, str) and entry.endswith("/*")):
        return entry
    folder = ROOT / DOCS / entry.removesuffix("/*")
    pages = sorted(path for path in folder.glob("*.md") if path.name != "index.md")
    return [f"{folder.name}/index.md", *(f"{folder.name}/{path.name}" for path in pages)]


def on_files(files: Files, config: Any) -> Files:
    """Add the root's pages, and every other file of the repository that a page links to."""
    for name in ROOT_PAGES:
        files.append(_added(name, config))
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for target in sorted({t for page in pages for t in _targets(page, config)}):
        if files.get_file_from_path(target) is None and (ROOT / target).is_file():
            files.append(_added(target, config))
    return files


def _added(name: str, config: Any) -> File:
    return File.generated(config, name, abs_src_path=str(ROOT / name))


def _targets(page: File, config: Any) -> Iterator[str]:
    """Files outside docs/ that a page links to, by the name they have in the site."""
    text = Path(page.abs_src_path or "").read_text(encoding="utf-8")
    for _, link, _ in LINK.findall(text):
        found = _in_repository(page.src_uri, link)
        if found and not found.startswith(DOCS):
            yield _served(found)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links into the repository to where their files lie in the site."""

    def turned(match: re.Match[str]) -> str:
        found = _in_repository(page.file.src_uri, match[2])
        if found is None:
            return match[0]
        start = posixpath.dirname(page.file.src_uri) or "."
        fragment = urlsplit(match[2]).fragment
        target = posixpath.relpath(_served(found).removeprefix(DOCS), start)
        return f"{match[1]}{target}{'#' + fragment if fragment else ''}{match[3]}"

    return LINK.sub(turned, markdown)


def _in_repository(page: str, link: str) -> str | None:
    """Where a page's link leads, from the repository's root; None where it leaves it or stays on the page."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return None
    folder = posixpath.dirname(page if page in ROOT_PAGES else DOCS + page)
    return posixpath.normpath(posixpath.join(folder, parts.path))


def _served(name: str) -> str:
    """A report is shown as its page, not as the text beside it."""
    if re.fullmatch(r"reports/\w+/README\.md", name):
        return name.replace("README.md", "index.html")
    return name
