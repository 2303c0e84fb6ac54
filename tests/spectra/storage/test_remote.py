from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
import xarray as xr
import zarr

from spectra.cube import Writer, append, check_resume, compact, create, open_cube, resume, validate
from spectra.errors import UserError
from spectra.storage import creation, remote, stores
from tests.spectra.test_cube import HEADER, CutError, assert_holds, runs

BUCKET = "cubes"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server on the loopback."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket, and an environment that leads there."""
    credentials(monkeypatch, server)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    if not files.exists(BUCKET):
        files.mkdir(BUCKET)
    return f"s3://{BUCKET}"


def credentials(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server, "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """A place for a cube of this test alone."""
    base = "memory://cubes" if request.param == "memory" else request.getfixturevalue("s3")
    return f"{base}/{abs(hash(request.node.nodeid))}/c.zarr"


def test_a_cube_elsewhere_is_like_one_in_a_folder(place: str) -> None:
    assert not stores.exists(place)
    check_resume(place, "never")
    stores.check_writable(place)
    assert not stores.exists(place)
    with Writer(place) as writer:
        writer.write(HEADER, runs(2, 0))
        writer.append(runs(1, 1))
    append(place, runs(1, 2))
    assert_holds(open_cube(place), runs(2, 0), runs(1, 1), runs(1, 2))
    assert validate(place) == 4
    resume(place, HEADER)
    with pytest.raises(UserError, match=f"{place} exists already"):
        create(place, HEADER)


def test_compacting_goes_from_anywhere_to_anywhere(tmp_path: Any) -> None:
    place = f"memory://{tmp_path.name}/c.zarr"
    with Writer(place) as writer:
        writer.write(HEADER, runs(3))
    compact(place, tmp_path / "here.zarr")
    xr.testing.assert_identical(open_cube(tmp_path / "here.zarr"), open_cube(place))
    compact(tmp_path / "here.zarr", f"{place}.packed")
    xr.testing.assert_identical(open_cube(f"{place}.packed"), open_cube(place))


def test_where_there_is_none_there_is_none(place: str) -> None:
    with pytest.raises(UserError, match=f"there is no cube at {place}"):
        open_cube(place)
    with pytest.raises(UserError, match=f"there is no cube at {place} to resume"):
        check_resume(place, "must")


@pytest.mark.parametrize("cut", [20])
def test_a_cube_that_was_begun_elsewhere_does_not_exist_and_is_begun_anew(
    place: str, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no renaming: the mark that makes it a cube is written last."""
    original, left = creation.create_array, [cut]

    def limited(*args: Any) -> None:
        if left[0] == 0:
            raise CutError
        left[0] -= 1
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(creation, "create_array", limited)
        with pytest.raises(CutError):
            create(place, HEADER)
    assert not stores.exists(place)
    with pytest.raises(UserError, match="not finished"):
        open_cube(place)
    create(place, HEADER)
    append(place, runs(2))
    assert_holds(open_cube(place), runs(2))


def test_what_lies_there_already_is_not_overwritten(place: str) -> None:
    fsspec.open(f"{place}/notes.txt", "w").open().close()
    assert stores.exists(place)
    with pytest.raises(UserError, match="exists already"):
        create(place, HEADER)


def test_an_append_that_is_cut_short_elsewhere_never_was(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create(place, HEADER)
    append(place, runs(2))
    with monkeypatch.context() as patch:
        patch.setattr("spectra.storage.writer._Table._put_labels", _cut)
        with pytest.raises(CutError):
            append(place, runs(2, 5))
    assert_holds(open_cube(place), runs(2))
    append(place, runs(1, 6))
    assert_holds(open_cube(place), runs(2), runs(1, 6))


def _cut(*args: Any) -> None:
    raise CutError


def test_a_store_object_with_its_own_options_is_a_place(server: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    options = {"endpoint_url": server, "key": "test", "secret": "test"}
    store = zarr.storage.FsspecStore.from_url(f"{s3}/own/c.zarr", storage_options=options)
    create(store, HEADER)
    append(store, runs(1))
    assert_holds(open_cube(store), runs(1))


def one_sentence(place: str) -> str:
    """What opening, creating and probing a place say, if it is the same sentence, and said soon."""
    start = time.monotonic()
    said = set()
    for action in (lambda: stores.check_writable(place), lambda: create(place, HEADER)):
        with pytest.raises(UserError) as error:
            action()
        said.add(str(error.value))
    assert time.monotonic() - start < 30
    assert all(place in text and "\n" not in text and len(text) < 400 for text in said)
    return " ".join(said)


def test_a_bucket_that_does_not_exist_is_named(s3: str) -> None:
    assert "its bucket does not exist; create it first" in one_sentence("s3://nowhere/c.zarr")
    with pytest.raises(UserError, match=r"there is no cube at s3://nowhere/c\.zarr"):
        open_cube("s3://nowhere/c.zarr")


def test_missing_credentials_are_named(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    credentials(monkeypatch, server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    assert "there are no credentials for it" in one_sentence(f"s3://{BUCKET}/x/c.zarr")
    with pytest.raises(UserError, match="there are no credentials for it"):
        open_cube(f"s3://{BUCKET}/x/c.zarr")


def test_a_server_that_refuses_connections_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    credentials(monkeypatch, f"http://127.0.0.1:{port}")
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    assert "its server does not answer" in one_sentence(f"s3://{BUCKET}/x/c.zarr")


def test_denied_access_is_named(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create(place, HEADER)

    async def denied(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Access Denied")

    monkeypatch.setattr(zarr.storage.FsspecStore, "set", denied)
    with pytest.raises(UserError, match="access is denied; check its credentials and rights"):
        append(place, runs(1))


def test_an_unknown_kind_of_place_is_named() -> None:
    with pytest.raises(UserError, match=r"cannot use nonsense://x: .*nonsense"):
        create("nonsense://x", HEADER)


def test_patience_is_set_unless_the_environment_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remote._options("s3://b/x")["config_kwargs"]["connect_timeout"] == remote.CONNECT_SECONDS
    assert remote._options("memory://x") == {}
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"connect_timeout": 90}})
    assert remote._options("s3://b/x") == {}
