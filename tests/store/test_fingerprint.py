"""Fingerprints: code that changed changes the key, comments and docstrings do not."""

import ast
import hashlib
import os
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import ConfigError
from harness.store import syntax
from harness.store.external import directory_hash, external
from harness.store.fingerprint import Fingerprints, versions


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / f"toypackage_{uuid.uuid4().hex}"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "inner" / "__init__.py").write_text("")
    (folder / "a.py").write_text('"""Doc."""\nimport json\nimport yaml\nfrom .inner import b\n\nX = 1\n')
    (folder / "inner" / "b.py").write_text("from harness.rng import stream_seed\nY = 2\n")
    (folder / "unused.py").write_text("Z = 3\n")
    (folder / "inner" / "data.yaml").write_text("k: 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def fingerprint(package: Path) -> str:
    return Fingerprints().of([f"{package.name}.a"]).sha256


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.py", '"""Other doc."""\nimport json\nimport yaml\n# A comment.\nfrom .inner import b\nX = 1\n'),
        ("unused.py", "Z = 4\n"),
    ],
)
def test_comments_docstrings_and_unused_modules_change_nothing(package: Path, file: str, text: str) -> None:
    before = fingerprint(package)
    (package / file).write_text(text)
    assert fingerprint(package) == before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.py", "import json\nimport yaml\nfrom .inner import b\nX = 2\n"),
        ("inner/b.py", "from harness.rng import stream_seed\nY = 3\n"),
        ("inner/data.yaml", "k: 2\n"),
    ],
)
def test_code_and_data_that_are_reached_change_it(package: Path, file: str, text: str) -> None:
    before = fingerprint(package)
    (package / file).write_text(text)
    assert fingerprint(package) != before


def test_other_libraries_are_named_and_the_standard_library_is_not(package: Path) -> None:
    assert Fingerprints().of([f"{package.name}.a"]).libraries == ("yaml",)
    assert versions(("yaml", "no_such_library"))["no_such_library"] == "absent"
    assert versions(("yaml",))["yaml"][0].isdigit()


def test_imports_for_type_checkers_are_not_followed(package: Path) -> None:
    before = Fingerprints().of([f"{package.name}.a"])
    (package / "a.py").write_text(
        "import json\nimport yaml\nfrom typing import TYPE_CHECKING\nfrom .inner import b\n"
        "if TYPE_CHECKING:\n    import pandas\nX = 1\n"
    )
    assert Fingerprints().of([f"{package.name}.a"]).libraries == before.libraries


def test_the_public_surface_of_harness_is_followed_to_the_module_behind_it() -> None:
    whole = Fingerprints()
    whole.of(["harness_plugins.tokenizer.byte_bpe"])
    assert any(file.endswith("harness/axes/tokenizer.py") for file in whole._known)
    assert not any(file.endswith("harness/axes/quantizer.py") for file in whole._known)


def test_the_cache_spares_parsing_and_nothing_heavy_is_imported(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    first = Fingerprints(cache)
    sha256 = first.of([f"{package.name}.a"]).sha256
    first.save()
    second = Fingerprints(cache)
    assert second.of([f"{package.name}.a"]).sha256 == sha256
    assert not second._changed
    assert f"{package.name}.a" not in sys.modules


def test_one_process_parses_a_file_once_for_all_stores_and_again_when_it_changed(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, parsed = package / "a.py", list[str]()

    def parse(text: bytes, filename: str) -> ast.Module:
        parsed.append(Path(filename).name)
        return ast.parse(text)

    before = fingerprint(package)
    monkeypatch.setattr("harness.store.fingerprint.ast", SimpleNamespace(parse=parse))
    assert fingerprint(package) == before
    assert "a.py" in parsed, "what was just written may be written again at the same time of its file system"
    assert "rng.py" not in parsed
    for file in package.rglob("*.py"):
        os.utime(file, (1, 1))
    parsed.clear()
    assert [fingerprint(package), fingerprint(package)] == [before, before]
    assert sorted(parsed) == ["__init__.py", "a.py", "b.py"]
    module.write_text(module.read_text().replace("X = 1", "X = 2"))
    assert fingerprint(package) != before


def test_a_syntax_tree_is_written_as_python_3_11_does() -> None:
    """Keys of stored artifacts rest on it; the standard library writes others in other versions."""
    text = (
        "import a.b as c\nfrom .d import e, f\n"
        "if TYPE_CHECKING:\n    import g\nelse:\n    import h\n"
        'class A:\n    """Doc."""\n    moves_facts = 1\n    x: int = 1\n'
        'def k(a, /, *, b=None):\n    """Doc."""\n    return lambda: (a, b"x", 1.0, None)\n'
    )
    hashed, imports = syntax.read(ast.parse(text))
    kept = text.replace('    """Doc."""\n', "").replace("    moves_facts = 1\n", "")
    if sys.version_info[:2] == (3, 11):
        assert hashed == hashlib.sha256(ast.dump(ast.parse(kept)).encode()).hexdigest()
    assert hashed == "35b745984456688c661ca489559f32145ef310c29374bd1f2151e274de3c9d24"
    assert imports == [[0, "a.b", []], [1, "d", ["e", "f"]], [0, "h", []]]


def test_a_model_directory_is_known_by_content_and_hashed_once(tmp_path: Path) -> None:
    model, cache = tmp_path / "model", tmp_path / "directories.json"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"12345678")
    first = external(f"path:{model}", cache=cache)
    assert external(str(model), cache=cache).key == first.key == "path:" + directory_hash(model, cache=cache)
    (model / "model.safetensors").write_bytes(b"12345679")
    assert external(str(model), cache=cache).key != first.key
    with pytest.raises(ConfigError, match="No model directory"):
        external("path:/no/such", cache=cache)
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        external(str(tmp_path), cache=cache)


@pytest.mark.parametrize(
    ("declared", "counts"),
    [
        ('moves_facts = frozenset({"tokens"})', False),
        ('moves_facts: object = (("blocks", "counts"),)', False),
        ('moves_facts = decontaminates = ""', False),
        ('needs = moves_facts = ("documents",)', True),
        ("def moves_facts(self): return 1", True),
        ("x = [moves_facts := 1]", True),
    ],
)
def test_what_a_class_declares_for_reports_is_in_no_key(package: Path, declared: str, counts: bool) -> None:
    module = package / "a.py"
    text = module.read_text()
    module.write_text(f"{text}class A:\n    name = 1\n")
    before = fingerprint(package)
    module.write_text(f"{text}class A:\n    name = 1\n    {declared}\n")
    assert (fingerprint(package) != before) is counts
    module.write_text(f"{text}class A:\n    name = 1\nmoves_facts = 1\n")
    assert fingerprint(package) != before, "a variable of a module is read by its code"
