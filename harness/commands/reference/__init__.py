"""The pages of docs/ that are made from the registry: one an axis, one a stage, the API and the gallery."""

from harness.commands.reference.axis_pages import axes_page, axis_page
from harness.commands.reference.known import axes, stages
from harness.commands.reference.other_pages import api_page, gallery_page
from harness.commands.reference.stage_pages import stage_page, stages_page

__all__ = ["axes", "pages", "stages"]


def pages() -> dict[str, str]:
    """Every generated page by its name below docs/."""
    return {
        "api.md": api_page(),
        "gallery.md": gallery_page(),
        "axes/index.md": axes_page(),
        "stages/index.md": stages_page(),
        **{f"axes/{name}.md": axis_page(name) for name in axes()},
        **{f"stages/{name}.md": stage_page(stage) for name, stage in stages().items()},
    }
