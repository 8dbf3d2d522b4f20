"""Hydra 1.3's composition without work that it repeats; what it composes stays the same.

A composition of some fifty configs takes 0.2 s, and a plan needs one for each preset and scale, and for the
choices of its longest factor. Half of that would go into parents set again and again, into copies of what
does not change, and into YAML and interpolations read before.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from typing import IO, TYPE_CHECKING, Any

from hydra import version as hydra_version
from hydra._internal import config_repository, defaults_list
from omegaconf import DictConfig, ListConfig, OmegaConf, _utils, base, grammar_parser
from omegaconf._utils import _ensure_container
from omegaconf.base import Node
from omegaconf.basecontainer import BaseContainer

if TYPE_CHECKING:
    from hydra._internal.defaults_list import Overrides
    from hydra.core.default_element import InputDefault

_interpolation_map = defaults_list._create_interpolation_map
_load = OmegaConf.load
_NOTHING = OmegaConf.create()
_READ: dict[str, Any] = {}
"""Configs by their YAML."""
KEPT = 500
"""Configs that are kept, and texts with interpolations; an installation has some hundred."""
_parsed = functools.lru_cache(maxsize=KEPT)(grammar_parser.parse)
"""What a text with interpolations says, parsed where it has not been; whoever resolves it changes nothing."""


def _map_where_used(overrides: Overrides, defaults_list: list[InputDefault], self_added: bool) -> DictConfig:
    """What entries of a defaults list may interpolate (`${scale}_${experiment}`), made where one does.

    Hydra makes it for each config, which takes half of its time, and reads it for entries with an
    interpolation alone.
    """
    asked = [entry.get_config_path() for entry in defaults_list if entry.is_interpolation()]
    if not asked:
        return _NOTHING
    if any("defaults" in path for path in asked):
        return _interpolation_map(overrides, defaults_list, self_added)
    return OmegaConf.create(overrides.known_choices)


def _share_sources(repository: Any, delegate: Any) -> None:
    """Keep the sources of configs in a composition's own list, and the sources themselves as they are.

    Hydra copies them deeply, the ConfigStore with every node included, so that a search path of a
    composition's own replaces no one else's: it replaces the list, and a source copies what it hands out.
    """
    repository.delegate = copy.copy(delegate)
    repository.cache = {}


def _merge_with(config: Any, *others: Any) -> None:
    """Merge others into a config as OmegaConf does, and tell what stands in it directly that it does.

    OmegaConf tells all that is below, after each merge, and so for every level again: a merge of containers
    in it has told what they hold, and what is put into it whole has its own content right.
    """
    for other in others:
        if other is None:
            raise ValueError("Cannot merge with a None config")
        flags = {"allow_objects": True} if config._get_flag("allow_objects") is True else {}
        given = _ensure_container(other, flags=flags)
        if isinstance(config, DictConfig) and isinstance(given, DictConfig):
            BaseContainer._map_merge(config, given)
        elif isinstance(config, ListConfig) and isinstance(given, ListConfig):
            BaseContainer._list_merge(config, given)
        else:
            raise TypeError("Cannot merge DictConfig with ListConfig")
    content = config.__dict__["_content"]
    inside = content.values() if isinstance(content, dict) else content
    for node in inside if isinstance(content, dict | list) else ():
        if node is not None:
            node._set_parent(config)


def _copied(node: Node, memo: Any = None) -> Any:
    """A deep copy of a container, beside it: as OmegaConf's, which makes each node anew to fill it."""
    return _copied_below(node, node.__dict__["_parent"])


def _copied_below(node: Node, parent: Any) -> Any:
    found, metadata = object.__new__(type(node)), object.__new__(type(node._metadata))
    metadata.__dict__.update(node._metadata.__dict__)  # names and types are shared
    metadata.flags = copy.copy(metadata.flags)
    metadata.resolver_cache = (
        copy.deepcopy(metadata.resolver_cache) if metadata.resolver_cache else defaultdict(dict)
    )
    own = found.__dict__
    own.update(node.__dict__)
    own.update(_metadata=metadata, _parent=parent, _flags_cache=None)
    content = own.get("_content")
    if isinstance(content, dict):
        own["_content"] = {key: _copied_below(value, found) for key, value in content.items()}
    elif isinstance(content, list):
        own["_content"] = [_copied_below(value, found) for value in content]
    elif isinstance(content, Node):
        own["_content"] = _copied_below(content, found)
    return found


def _load_once(file: str | IO[Any]) -> Any:
    """A config of YAML, parsed where it has not been."""
    if isinstance(file, str) or not hasattr(file, "seek"):
        return _load(file)
    text = file.read()
    if text not in _READ:
        file.seek(0)
        found = _load(file)
        if len(_READ) >= KEPT:
            _READ.clear()
        _READ[text] = found
    return copy.deepcopy(_READ[text])


PATCHES = (
    (defaults_list, "_create_interpolation_map", _map_where_used),
    (config_repository.CachingConfigRepository, "__init__", _share_sources),
    (hydra_version, "_get_version", functools.cache(hydra_version._get_version)),
    (BaseContainer, "_merge_with", _merge_with),
    (DictConfig, "__deepcopy__", _copied),
    (ListConfig, "__deepcopy__", _copied),
    (OmegaConf, "load", _load_once),
    (base, "parse", _parsed),
    (_utils, "parse", _parsed),
)
"""What stands in for what of Hydra's: owner, name, ours."""
ORIGINALS = tuple((owner, name, getattr(owner, name)) for owner, name, _ in PATCHES)


def install() -> None:
    """Let Hydra compose so, in this process; idempotent."""
    for owner, name, ours in PATCHES:
        setattr(owner, name, ours)
