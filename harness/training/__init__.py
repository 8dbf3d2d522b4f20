"""The one training loop, its checkpoints and measurements, and distribution."""
