"""A site's folder, written beside its place and put there as a whole."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from discovery_xp.analysis import export
from discovery_xp.analysis.drawing import darkened, image
from discovery_xp.analysis.pictures import Picture
from discovery_xp.analysis.report import STYLES
from discovery_xp.errors import Refused
from discovery_xp.site import trends
from discovery_xp.site.content import Content
from discovery_xp.site.pages import CAMPAIGN_FILE, INDEX, files_of, page_of, pages
from discovery_xp.text import printable

# Says that a folder is a site, which may be replaced by a newer one.
MARK = "site.json"
FORMAT = 1
_ASSETS = Path(__file__).parent / "assets"


def write_site(folder: Path, content: Content) -> Path:
    """Write a site and return its first page; a site that is there is replaced.

    Raises Refused where something else is there, or nothing can be written; the place is then
    as it was.
    """
    _require_place(folder)
    with _beside(folder) as made:
        for path, text in pages(content).items():
            (made / path).write_text(text)
        _write_assets(made / "assets", with_library=content.with_library)
        tables = [*content.tables, *([trends.table(content)] if content.repeated else [])]
        export.write_tables_csv(made / "tables", tables)
        export.write_tables_latex(made / "tables", tables)
        _write_pictures(made / "figures", content.pictures, with_print=True)
        for run in content.runs:
            place = (made / content.page_of(run)).parent
            place.mkdir(parents=True)
            drawn = content.pictures_of(run)
            _write_pictures(place, drawn, with_print=False)
            (place / INDEX).write_text(page_of(content, run, drawn))
            for file in files_of(content, run):
                (place / file.path).parent.mkdir(exist_ok=True)
                shutil.copyfile(run.run.folder / file.of_run, place / file.path)
        if content.campaign is not None:
            (made / CAMPAIGN_FILE).write_text(content.campaign.text)
        (made / MARK).write_text(json.dumps({"format": FORMAT, "title": content.title}) + "\n")
    return folder / INDEX


def _write_assets(folder: Path, with_library: bool) -> None:
    folder.mkdir()
    styles = (*STYLES, _ASSETS / "site.css")
    (folder / "site.css").write_text("".join(path.read_text() for path in styles))
    shutil.copyfile(_ASSETS / "site.js", folder / "site.js")
    if not with_library:
        return
    library = resources.files("plotly") / "package_data" / "plotly.min.js"
    (folder / "plotly.min.js").write_bytes(library.read_bytes())


def _write_pictures(folder: Path, pictures: list[Picture], with_print: bool) -> None:
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        light = image(picture.figure, "svg").decode()
        (folder / f"{picture.name}.svg").write_text(light)
        (folder / f"{picture.name}-dark.svg").write_text(darkened(light))
        for kind in ("pdf", "png") if with_print else ():
            (folder / f"{picture.name}.{kind}").write_bytes(image(picture.figure, kind))


# ---------------------------------------------------------------- the place


def _require_place(folder: Path) -> None:
    """Raise Refused where something other than a site, or nothing, is at the place."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise Refused(f"{printable(str(folder))} is no folder", "name another place")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise Refused(
            f"{printable(str(folder))} has files that no site left there",
            "name a new folder, or an empty one",
        )


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which takes the place of `folder` once all is written."""
    made: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        made.chmod(0o755)
        new, old = made / "new", made / "old"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        raise Refused(
            f"{printable(str(folder))} can't be written ({error.strerror or error})",
            "make room or name another place",
        ) from None
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
