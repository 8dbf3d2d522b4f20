"""The built-in methods: one file a method, found by folder."""
