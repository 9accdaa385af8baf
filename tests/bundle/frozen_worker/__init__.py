"""The plugin that the tests freeze."""
