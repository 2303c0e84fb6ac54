"""Stores elsewhere than on a disk: URLs through fsspec, and zarr store objects.

Options come from the environment, as fsspec reads them (FSSPEC_S3_ENDPOINT_URL, FSSPEC_S3='{"anon": true}') and as the
storage's own library does (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...); or from a `zarr.storage.FsspecStore` built by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError

if TYPE_CHECKING:
    import zarr

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 60, 2
MARK = ".spectra-writable"
EXTRAS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def opened(store: Any) -> Any:
    """A zarr store for a URL; store objects stay what they are."""
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(store, storage_options=_options(store)) if isinstance(store, str) else store


def _options(url: str) -> dict[str, Any]:
    """Patience with a server that does not answer, unless the environment says otherwise."""
    from fsspec.config import conf

    protocol = _protocol(url)
    if protocol not in ("s3", "s3a") or "config_kwargs" in conf.get("s3", {}):
        return {}
    patience = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": {"max_attempts": ATTEMPTS}}
    return {"config_kwargs": patience}


def group(store: Any, mode: str) -> zarr.Group | None:
    """The group of a store; None if there is none."""
    import zarr

    try:
        return zarr.open_group(opened(store), mode=mode)  # type: ignore[arg-type]
    except FileNotFoundError:
        return None


def create_group(store: Any, attributes: Mapping[str, Any]) -> zarr.Group:
    """A new group in place of what an earlier attempt left."""
    import zarr

    return zarr.create_group(opened(store), overwrite=True, attributes=dict(attributes))


def is_empty(store: Any) -> bool:
    """True if nothing lies at the store."""
    from zarr.core.sync import sync

    return bool(sync(opened(store).is_empty("")))


def check_writable(store: Any) -> None:
    """Write a small object and remove it again. Raises UserError if that is refused."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    with sentences(store):
        place = opened(store)
        sync(place.set(MARK, default_buffer_prototype().buffer.from_bytes(b"spectra")))
        sync(place.delete(MARK))


@contextmanager
def sentences(store: Any) -> Iterator[None]:
    """Turn what libraries of storages raise, each in its own way, into one sentence. Raises UserError."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(_missing(store)) from error
    except Exception as error:
        raise UserError(f"cannot use {store}: {_reason(error)}") from error


def _missing(store: Any) -> str:
    package = EXTRAS.get(_protocol(str(store)))
    known = f"{package}; install it with: pip install {package}" if package else "a library that is not installed"
    return f"{store} needs {known}"


def _protocol(url: str) -> str:
    return url.partition("://")[0]


def _reason(error: BaseException) -> str:
    """The last line that says something, with what to do about the usual troubles."""
    kind = type(error).__name__
    if "Credential" in kind:
        return "there are no credentials for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, PermissionError):
        return "access is denied; check its credentials and rights"
    text = " ".join(str(error).split())[:200] or kind
    if "bucket does not exist" in text:
        return "its bucket does not exist; create it first"
    if kind in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionRefusedError"):
        return f"its server does not answer ({text})"
    return text
