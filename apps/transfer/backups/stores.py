"""Where backups are: a folder, or what fsspec opens by a URL, such as s3://bucket/prefix.

Credentials of a URL come from the environment, by the rules of its library; they are in no setting, row or log of ours.
"""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from apps.installation import install_command
from apps.ownership import hand_over
from apps.telemetry.slots import try_lock
from apps.transfer.backups import manifest
from apps.transfer.errors import TransferError, name_file

logger = logging.getLogger(__name__)

# Endings of names in a folder, while a backup is made: its own folder, the lock of who makes it, and where it goes. The
# last one is while it is deleted.
_PARTIAL = ".partial"
_LOCK = ".lock"
_UPLOAD = ".upload"
_DELETED = ".deleted"
# A URL of a folder, which is one like any other.
_FILE = "file://"
# How many backups a message lists.
_LISTED = 5
# Larger than any manifest.
_BLOCK = 1 << 20


class Store(ABC):
    """Backups at one place, by their ids, which are the names of their folders."""

    # For people.
    shown: str

    @abstractmethod
    def ids(self) -> list[str]:
        """Return the ids of the backups that are whole, in order."""

    @abstractmethod
    def blocks(self, backup_id: str, name: str) -> Iterator[bytes]:
        """Read a file of a backup. Raise OSError, or TransferError for a place that cannot be used."""

    @abstractmethod
    def add(self, backup_id: str, folder: Path) -> None:
        """Take over a backup from a folder that `new_folder` gave. Raise as `blocks`."""

    @abstractmethod
    def delete(self, backup_id: str) -> None:
        """Delete a backup. Raise as `blocks`."""

    @abstractmethod
    def has_some(self, backup_id: str) -> bool:
        """Whether there is a backup, or a part of one. Raise TransferError."""

    @abstractmethod
    def check(self) -> None:
        """Raise TransferError where no backup could be added, as far as that is known without a network."""

    @abstractmethod
    def new_folder(self, backup_id: str) -> contextlib.AbstractContextManager[Path]:
        """Make a folder on a disk for the files of a backup that is made; it is gone after the block."""

    def read_manifest(self, backup_id: str) -> manifest.Manifest:
        """Read what a backup says of itself, whose folder may have another name by now. Raise UnknownBackup,
        TransferError."""
        shown = f"{self.shown.rstrip('/')}/{backup_id}"
        try:
            content = next(self.blocks(backup_id, manifest.FILE_NAME), b"")
            found = manifest.Manifest.parse(content, shown)
        except FileNotFoundError:
            if not self.has_some(backup_id):
                raise manifest.UnknownBackup(f"There is no {shown}.") from None
            raise manifest.UnknownBackup(
                f"{shown} is no backup: it has no {manifest.FILE_NAME}, which is written last."
            ) from None
        except OSError as error:
            raise TransferError(f"{shown} cannot be read: {error.strerror or error}.") from None
        # An id becomes a path, so none is taken from a file.
        return found.model_copy(update={"id": backup_id})


class FolderStore(Store):
    """A folder. A backup appears in it by being renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shown = folder, str(folder)

    def ids(self) -> list[str]:
        found = {path.parent.name for path in self.folder.glob(f"backup-*/{manifest.FILE_NAME}")}
        return sorted(filter(manifest.is_backup_id, found))

    def read_manifest(self, backup_id: str) -> manifest.Manifest:
        path = self.folder / backup_id
        if path.is_file():
            raise TransferError(f"{path} is a file, and a backup is a folder. Name {self.folder} for the one it is in.")
        return super().read_manifest(backup_id)

    def has_some(self, backup_id: str) -> bool:
        return (self.folder / backup_id).exists()

    def blocks(self, backup_id: str, name: str) -> Iterator[bytes]:
        path = self.folder / backup_id / name
        with name_file(path), open(path, "rb") as file:
            yield from iter(partial(file.read, _BLOCK), b"")

    def check(self) -> None:
        try:
            self.make_folder()
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise TransferError(f"{self.folder} cannot be used: {error.strerror or error}.") from error

    def make_folder(self) -> None:
        """Make the folder, if it is not there, for the user whose folder it is in. Raise OSError."""
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            hand_over(self.folder)

    def add(self, backup_id: str, folder: Path) -> None:
        for path in folder.iterdir():
            # Some file systems have no permissions. The folder has its own from the beginning.
            with contextlib.suppress(OSError):
                path.chmod(0o600)
        for path in (folder, *folder.iterdir()):
            hand_over(path)
            _sync(path)
        folder.rename(self.folder / backup_id)
        _sync(self.folder)

    def delete(self, backup_id: str) -> None:
        deleted = self.folder / f".{backup_id}{_DELETED}"
        try:
            # By this name it is none any more, wherever this ends, and the next backup deletes what is left.
            (self.folder / backup_id).rename(deleted)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(deleted)
        except OSError as error:
            raise TransferError(f"{error.filename} cannot be deleted: {error.strerror}.") from error

    @contextlib.contextmanager
    def new_folder(self, backup_id: str) -> Iterator[Path]:
        folder = self.folder / f".{backup_id}{_PARTIAL}"
        self.make_folder()
        self._sweep()
        lock = folder.with_suffix(_LOCK)
        with try_lock(lock) as is_locked:
            if not is_locked:
                raise TransferError(f"Another process makes {backup_id} in {self.folder}. Try again.")
            try:
                folder.mkdir(mode=0o700)
                yield folder
            except OSError as error:
                # What people know is the place.
                if Path(error.filename or "").is_relative_to(folder):
                    error.filename = self.shown
                raise
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete what processes have left that died while they made a backup, and what deletions have left."""
        for deleted in self.folder.glob(f".backup-*{_DELETED}"):
            shutil.rmtree(deleted, ignore_errors=True)
        for lock in self.folder.glob(f".backup-*{_LOCK}"):
            with try_lock(lock) as is_locked:
                if is_locked:
                    shutil.rmtree(lock.with_suffix(_PARTIAL), ignore_errors=True)
                    lock.unlink(missing_ok=True)


class UrlStore(Store):
    """A place that fsspec opens. The manifest of a backup is written last, and deleted first. While one is uploaded or
    deleted, a note in the local store says so: what is left of one where that died or failed is deleted by it, and
    nothing else is."""

    def __init__(self, url: str) -> None:
        self.shown = url
        with self._explain():
            try:
                import fsspec

                # Listings are of now.
                self._files, self._path = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
            except ImportError as error:
                raise TransferError(
                    f"{url} needs a library that is not installed: {error}. `{install_command('backups')}` installs "
                    "what s3:// needs; other places have libraries of their own."
                ) from None
            self._path = self._path.rstrip("/")

    def check(self) -> None:
        """To be opened is all that it can without a network."""

    def has_some(self, backup_id: str) -> bool:
        with self._explain():
            return bool(self._files.exists(f"{self._path}/{backup_id}"))

    def ids(self) -> list[str]:
        with self._explain():
            found = self._files.glob(f"{self._path}/backup-*/{manifest.FILE_NAME}")
        return sorted(filter(manifest.is_backup_id, {str(path).split("/")[-2] for path in found}))

    def blocks(self, backup_id: str, name: str) -> Iterator[bytes]:
        path = f"{self._path}/{backup_id}/{name}"
        with self._explain(FileNotFoundError), self._files.open(path, "rb") as file:
            yield from iter(partial(file.read, _BLOCK), b"")

    def add(self, backup_id: str, folder: Path) -> None:
        with self._explain():
            target = f"{self._path}/{backup_id}"
            note = self._note(backup_id)
            # What is above must be there: a bucket of a mistyped name is not made.
            self._files.mkdir(target, create_parents=False)
            for path in sorted(folder.iterdir(), key=lambda path: path.name == manifest.FILE_NAME):
                self._files.put_file(str(path), f"{target}/{path.name}")
                size = self._files.info(f"{target}/{path.name}")["size"]
                if size != path.stat().st_size:
                    raise TransferError(f"{self.shown} has kept {size} bytes of {path.name}, not all.")
            note.unlink()

    def delete(self, backup_id: str) -> None:
        with self._explain():
            target = f"{self._path}/{backup_id}"
            note = self._note(backup_id)
            lock = note.with_suffix(_LOCK)
            with try_lock(lock) as is_locked:
                if not is_locked:
                    raise TransferError(f"Another process deletes {target}.")
                try:
                    self._files.rm_file(f"{target}/{manifest.FILE_NAME}")
                    self._files.rm(target, recursive=True)
                    note.unlink()
                finally:
                    lock.unlink(missing_ok=True)

    def _note(self, backup_id: str) -> Path:
        """Write the note that this backup is not to stay unless it is whole."""
        local = local_store()
        local.make_folder()
        note = local.folder / f".{backup_id}{_UPLOAD}"
        note.write_text(self.shown)
        _sync(note)
        return note

    def new_folder(self, backup_id: str) -> contextlib.AbstractContextManager[Path]:
        self._sweep()
        return local_store().new_folder(backup_id)

    def _sweep(self) -> None:
        """Delete what uploads and deletions from this data folder at this place have left that died or failed."""
        for note in local_store().folder.glob(f".backup-*{_UPLOAD}"):
            with try_lock(note.with_suffix(_LOCK)) as is_locked:
                if is_locked and note.exists() and note.read_text() == self.shown:
                    try:
                        self._delete_unless_whole(note.stem.removeprefix("."))
                        note.unlink()
                    except TransferError as error:
                        # Who may add backups may still not delete any.
                        logger.warning("what is left of a backup stays: %s", error)

    def _delete_unless_whole(self, backup_id: str) -> None:
        try:
            json.loads(b"".join(self.blocks(backup_id, manifest.FILE_NAME)))
        except (FileNotFoundError, ValueError):
            with self._explain(), contextlib.suppress(FileNotFoundError):
                self._files.rm(f"{self._path}/{backup_id}", recursive=True)

    @contextlib.contextmanager
    def _explain(self, *meant: type[Exception]) -> Iterator[None]:
        """Turn what libraries of all kinds raise into a sentence, but for what is `meant`."""
        passed: tuple[type[Exception], ...] = (TransferError, *meant)
        try:
            yield
        except passed:
            raise
        except Exception as error:
            raise TransferError(f"{self.shown} cannot be used: {str(error) or type(error).__name__}") from error


def open_store(place: str = "") -> Store:
    """Return the store of a folder or URL; without one, of the settings. Raise TransferError."""
    place = place or settings.BACKUP_URL
    if not place:
        return local_store()
    if place.startswith(_FILE):
        place = place.removeprefix(_FILE) or "/"
    if "://" not in place:
        return FolderStore(Path(place).expanduser().absolute())
    if urlsplit(place).password is not None:
        raise TransferError("The URL must hold no password: credentials come from the environment.")
    if "memory" in place.partition("://")[0].split("::"):
        raise TransferError(
            f"{place} is in the memory of this process, and ends with it. Name a folder, or a URL such as "
            "s3://bucket/prefix."
        )
    return UrlStore(place)


def local_store() -> FolderStore:
    """Return the store in the data folder."""
    return FolderStore(settings.DATA_DIR / "backups")


def split_source(source: str) -> tuple[Store, str]:
    """Return the store and the id of a backup, which is named by its id, its folder or its URL; a folder may have any
    name. By its id it is looked for in the data folder, where those before migrations are, and in the place of the
    settings. Raise TransferError."""
    place, slash, backup_id = source.rstrip("/").rpartition("/")
    is_id = not slash and manifest.is_backup_id(backup_id)
    # What follows s3:// is a bucket.
    is_folder = bool(slash) and not place.endswith(":/")
    if not is_id and not is_folder:
        raise TransferError(
            f"{source} is no backup: name the folder or the URL of one, such as backups/backup-20260131T123000000 or "
            f"./monday, or its id. {list_stored(local_store(), open_store())}"
        )
    if is_id:
        return local_store() if backup_id in local_store().ids() else open_store(), backup_id
    return open_store(place or "/"), backup_id


def list_stored(*stores: Store) -> str:
    """Return sentences that tell the newest backups of stores that can be read, for whoever has named another one."""
    sentences = {}
    for store in stores:
        with contextlib.suppress(TransferError, OSError):
            newest = list(islice(filter(partial(_is_readable, store), reversed(store.ids())), _LISTED))
            sentences[store.shown] = f"The newest in {store.shown}: {', '.join(newest) or 'none'}."
    return " ".join(sentences.values())


def _is_readable(store: Store, backup_id: str) -> bool:
    try:
        store.read_manifest(backup_id)
    except TransferError:
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
