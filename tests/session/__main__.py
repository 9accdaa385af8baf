"""`python -m tests.session 5000` looks for broken promises in so many other programs, and prints the shortest one."""

import logging
import sys

from .searching import search

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for journal in (True, False):
        for keeps in (True, False):
            print(f"journal={journal}, the broker keeps sessions={keeps}", flush=True)
            search(journal=journal, keeps=keeps, examples=int(sys.argv[1]), derandomize=False)
