"""Parsed JSON or YAML with something else in one place."""

import copy


def places(value, *, first_alone=False, opens=lambda place: True, above=()):
    """Every place in a value, as the keys and positions that lead there.

    Of a list its first entry alone where `first_alone`; nothing below a place that does not open
    """
    if above:
        yield above
    if above and not opens(above):
        return
    if isinstance(value, dict):
        items = value.items()
    else:
        items = enumerate(value[:1] if first_alone else value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, first_alone=first_alone, opens=opens, above=(*above, key))


def with_wrong(stated, place, wrong):
    """A copy that holds something else in a place."""
    changed = node = copy.deepcopy(stated)
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = wrong
    return changed
