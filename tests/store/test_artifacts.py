"""Artifacts: complete or absent, damaged ones noticed, disks that cannot be written explained."""

import errno
import json
import os
from pathlib import Path

import pytest

from harness.errors import CorruptArtifactError, StoreError, StoreFullError
from harness.store import Store
from harness.store.external import directory_hash
from harness.store.fingerprint import Fingerprints

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make(store: Store, key: str = KEY, text: str = "weights") -> None:
    meta = {"facts": {}}
    with store.create(key, stage="pretrain", kind="model", inputs={"tokens": "t" * 64}, meta=meta) as out:
        (out / "sub").mkdir()
        (out / "sub" / "data.bin").write_text(text)
        meta["facts"] = {"steps": 3}


def test_an_artifact_comes_back_with_its_facts_and_inputs(store: Store) -> None:
    make(store)
    artifact = store.find(KEY)
    assert artifact is not None
    assert (artifact.stage, artifact.kind, artifact.facts) == ("pretrain", "model", {"steps": 3})
    assert artifact.inputs == {"tokens": "t" * 64}
    assert (artifact.path / "sub" / "data.bin").read_text() == "weights"
    assert store.all_keys() == [KEY]


def test_a_stage_that_raises_leaves_nothing(store: Store) -> None:
    def fail_half_way() -> None:
        with store.create(KEY, stage="s", kind="k", inputs={}, meta={}) as out:
            (out / "half").write_text("x")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail_half_way()
    assert store.find(KEY) is None
    assert list((store.root / "tmp").iterdir()) == []


def test_a_truncated_file_is_noticed_and_the_artifact_moved_aside(store: Store) -> None:
    make(store)
    (store.path(KEY) / "sub" / "data.bin").write_text("wei")
    assert store.find(KEY) is None
    assert not store.path(KEY).exists()
    assert len(list((store.root / "corrupt").iterdir())) == 1
    make(store)
    assert store.find(KEY) is not None


def test_a_flipped_byte_is_noticed_because_the_file_was_touched(store: Store) -> None:
    make(store)
    (store.path(KEY) / "sub" / "data.bin").write_text("weighty"[:7].replace("y", "x"))
    assert store.find(KEY) is None


def test_verify_notices_what_sizes_and_times_hide(store: Store) -> None:
    make(store)
    file = store.path(KEY) / "sub" / "data.bin"
    before = file.stat()
    file.write_text("weightX")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.find(KEY) is not None
    with pytest.raises(CorruptArtifactError, match=r"data\.bin does not match its hash.*built again"):
        store.verify(KEY)
    assert store.find(KEY) is None


def test_a_copied_store_is_hashed_once_and_then_believed(store: Store) -> None:
    make(store)
    file = store.path(KEY) / "sub" / "data.bin"
    os.utime(file)
    assert store.find(KEY) is not None
    artifact = store.find(KEY)
    assert artifact is not None
    assert file.stat().st_mtime_ns == artifact.meta["files"]["sub/data.bin"]["mtime_ns"]


def test_a_damaged_artifact_json_is_noticed(store: Store) -> None:
    make(store)
    (store.path(KEY) / "artifact.json").write_text("{")
    assert store.find(KEY) is None
    make(store)
    (store.path(KEY) / "artifact.json").unlink()
    assert store.find(KEY) is None


def test_an_artifact_of_a_newer_version_is_refused(store: Store) -> None:
    make(store)
    file = store.path(KEY) / "artifact.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(StoreError, match=r"newer version of harness \(format 99"):
        store.find(KEY)


def test_checkpoints_survive_until_the_artifact_lands(store: Store) -> None:
    (store.checkpoints(KEY) / "step5").write_text("state")
    assert (store.checkpoints(KEY) / "step5").exists()
    make(store)
    assert not (store.root / "partial" / KEY).exists()


def test_whoever_lands_second_keeps_the_first(store: Store) -> None:
    meta: dict[str, object] = {}
    with store.create(KEY, stage="s", kind="k", inputs={}, meta=meta) as out:
        (out / "file").write_text("second")
        make(store, text="first")
    artifact = store.find(KEY)
    assert artifact is not None
    assert (artifact.path / "sub" / "data.bin").read_text() == "first"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_says_what_to_do(store: Store, error: Exception) -> None:
    with (
        pytest.raises(StoreFullError, match="run the same command again"),
        store.create(KEY, stage="s", kind="k", inputs={}, meta={}),
    ):
        raise error
    assert store.find(KEY) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_recognised_from_the_real_error(store: Store) -> None:
    def fill() -> None:
        with store.create(KEY, stage="s", kind="k", inputs={}, meta={}):
            Path("/dev/full").write_text("x" * 100_000)

    with pytest.raises(StoreFullError):
        fill()


def test_a_read_only_store_says_what_to_do(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"Read-only file system\. Set HARNESS_STORE"):
        make(store)
    with pytest.raises(StoreError, match="Set HARNESS_STORE"):
        store.claim(KEY)


@pytest.mark.parametrize(
    "change",
    [
        "[]",
        "3",
        '{"format": 1}',
        {"files": []},
        {"files": {"a": 1}},
        {"files": {"a": {"size": 1}}},
        {"files": {"../../../a": {"size": 1, "mtime_ns": 1, "sha256": "0"}}},
        {"inputs": None},
        {"stage": None},
        {"created": "today"},
        {"format": None},
    ],
)
def test_a_damaged_description_is_set_aside_and_the_artifact_made_again(
    store: Store, change: str | dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    make(store)
    file = store.path(KEY) / "artifact.json"
    content = change if isinstance(change, str) else json.dumps({**json.loads(file.read_text()), **change})
    file.write_text(content)
    assert store.find(KEY) is None
    assert "is damaged: artifact.json is unreadable" in caplog.text
    assert not store.path(KEY).exists()
    make(store)
    assert store.find(KEY) is not None


def test_damaged_caches_are_made_anew(tmp_path: Path) -> None:
    file, text = tmp_path / "cache.json", tmp_path / "a" / "text"
    text.parent.mkdir()
    text.write_text("hello")
    expected = directory_hash(text.parent, cache=file)
    for content in ("", "[]", "{", json.dumps({str(text): 3}), json.dumps({str(text): [5]})):
        file.write_text(content)
        assert directory_hash(text.parent, cache=file) == expected
        file.write_text(content)
        assert Fingerprints(file).of(["harness.errors"]) == Fingerprints().of(["harness.errors"])
