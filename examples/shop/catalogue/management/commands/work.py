"""`python manage.py work`: the worker. Ships placed orders until it is told to stop."""

import logging
import signal
import time

from django.core.management.base import BaseCommand
from django.db import OperationalError, connection

from catalogue.orders import ship_next
from shop import heartbeat

logger = logging.getLogger(__name__)
PAUSE = 1.0


class Command(BaseCommand):
    help = "Ship placed orders until SIGTERM; an order in hand is finished first."

    stopping = False

    def stop(self, *_: object) -> None:
        """SIGTERM: no further turn."""
        self.stopping = True

    def handle(self, **_: object) -> None:
        """Take turns: ship what waits, give a sign of life, rest when there is nothing to do."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        logger.info("the worker is ready")
        while not self.stopping:
            if not self.turn():
                time.sleep(PAUSE)
        logger.info("the worker has stopped")

    def turn(self) -> bool:
        """Ship one order; say whether there was one. Without a database there is no sign of life, but a next try."""
        try:
            order = ship_next()
        except OperationalError as error:
            logger.warning("the database does not answer, trying again: %s", error)
            connection.close()
            return False
        heartbeat.beat()
        if order is not None:
            logger.info("shipped %s", order)
        return order is not None
