"""`python -m kepm_plugin`."""

from .cli import main

main()
