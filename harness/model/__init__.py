"""The composable transformer; import and export of checkpoints."""
