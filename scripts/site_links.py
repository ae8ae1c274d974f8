"""A hook of mkdocs: files of the repository that pages link to, outside docs/, are part of the site, below repository/."""

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
OUTSIDE = "repository/"


def in_repository(page: str, link: str) -> str:
    """Return the path in the repository to which a page of the site links, from what GitHub sees."""
    own = page.removeprefix(OUTSIDE) if page.startswith(OUTSIDE) else f"docs/{page}"
    return normpath(f"{dirname(own)}/{link}" if dirname(own) else link)


def in_site(path: str) -> str:
    return path.removeprefix("docs/") if path.startswith("docs/") else OUTSIDE + path


def on_files(files: Files, *, config: Any) -> Files:
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(Path(str(page.abs_src_path)).read_text()):
            path = in_repository(page.src_uri, link)
            if not files.get_file_from_path(in_site(path)) and (ROOT / path).is_file():
                files.append(added := File.generated(config, in_site(path), abs_src_path=str(ROOT / path)))
                waiting += [added] if path.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    here = page.file.src_uri
    return LINK.sub(lambda found: f"]({relpath(in_site(in_repository(here, found[1])), dirname(here) or '.')}", markdown)
