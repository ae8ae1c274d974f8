"""Pictures: a run's view -> its pictures by number, which is all that a link says of one."""

from collections.abc import Iterator
from dataclasses import dataclass

from quadbench.artifacts.pixels import png_size
from quadbench.errors import ArtifactError, UnknownNameError
from quadbench.report.pictures import Picture, TaskPictures, difference_png
from quadbench.report.view import ReportView
from quadbench.results.layout import Layout
from quadbench.spec import read_file
from quadbench.spec.files import require_inside

_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class NumberedPicture:
    """A picture of a page; one without a number is not there, and `note` says why."""

    label: str
    number: int | None
    psnr_db: float | None
    note: str


@dataclass(frozen=True, kw_only=True)
class ItemStrip:
    """An item with its pictures."""

    name: str
    prompt: str
    pictures: tuple[NumberedPicture, ...]


@dataclass(frozen=True, kw_only=True)
class PictureGallery:
    """A task's items, as the device at an address painted them."""

    task: str
    address: str
    items: tuple[ItemStrip, ...]


def galleries(view: ReportView) -> tuple[PictureGallery, ...]:
    """Return all pictures of a run as its page shows them."""
    numbers = {id(picture): number for number, picture in enumerate(_shown(view))}
    return tuple(_gallery(task, numbers) for task in view.pictures)


def picture_bytes(view: ReportView, number: int, layout: Layout) -> bytes:
    """Return a picture's file, or how far it is from another where it is a difference.

    Raises:
        UnknownNameError: the run has no such picture, or its file is gone.
        ArtifactError: the file is no picture, or lies outside the results folder.
    """
    picture = next((picture for n, picture in enumerate(_shown(view)) if n == number), None)
    path = picture.path if picture else None
    if picture is None or path is None or not path.is_file():
        raise UnknownNameError("picture", str(number))
    require_own(picture, layout)
    try:
        if picture.apart_from:
            return difference_png(path, picture.apart_from)
        content = read_file(path, fault=ArtifactError, most_bytes=_MOST_BYTES)
        png_size(content)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"'{path}' is no picture: {error}") from error
    return content


def require_own_pictures(view: ReportView, layout: Layout) -> None:
    """Refuse a run with a picture that links lead out of the results folder.

    Raises:
        ArtifactError: names the picture.
    """
    for picture in _shown(view):
        require_own(picture, layout)


def require_own(picture: Picture, layout: Layout) -> None:
    """Refuse a picture that, or that from which it differs, links lead out of the results folder.

    Raises:
        ArtifactError: names the picture.
    """
    for path in filter(None, (picture.path, picture.apart_from)):
        require_inside(path, layout.root, fault=ArtifactError)


def _shown(view: ReportView) -> Iterator[Picture]:
    for task in view.pictures:
        for item in (*task.shown, *task.folded):
            yield from item.pictures


def _gallery(task: TaskPictures, numbers: dict[int, int]) -> PictureGallery:
    items = tuple(
        ItemStrip(
            name=item.name,
            prompt=item.prompt,
            pictures=tuple(
                NumberedPicture(
                    label=picture.label,
                    number=numbers[id(picture)] if picture.path and picture.path.is_file() else None,
                    psnr_db=picture.psnr_db,
                    note=picture.note or "missing",
                )
                for picture in item.pictures
            ),
        )
        for item in (*task.shown, *task.folded)
    )
    return PictureGallery(task=task.task.name, address=task.device.address, items=items)
