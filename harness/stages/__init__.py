"""The built-in stages, one file each; found through the entry point group `harness` like anyone's."""
