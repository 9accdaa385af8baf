"""The example: a worker that takes commands and answers them."""
