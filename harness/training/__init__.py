"""The one training loop; see `harness.training.loop`."""
