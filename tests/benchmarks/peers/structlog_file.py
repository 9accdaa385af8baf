"""structlog by itself: JSON, one line a record, to a file."""

import asyncio
import logging
from pathlib import Path

import structlog

from ..log_calls import call
from ..order import Order


def main(order: Order) -> None:
    """Log."""
    with Path(order.file).open("w", encoding="utf-8") as file:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.WriteLoggerFactory(file=file),
            cache_logger_on_first_use=True,
        )
        asyncio.run(call(structlog.get_logger("bench"), order.warm_up, order.count, asyncio.sleep))


if __name__ == "__main__":
    main(Order.read())
