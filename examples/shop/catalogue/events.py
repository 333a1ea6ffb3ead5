"""Server-sent events: the newest orders, live."""

import json
import time
from collections.abc import Iterator
from threading import BoundedSemaphore

from django.conf import settings
from django.db import close_old_connections
from django.http import HttpRequest, StreamingHttpResponse
from django.views.decorators.http import require_safe

from catalogue.orders import newest

PAUSE = 0.5
slots = BoundedSemaphore(settings.MAX_STREAMS)


def stream() -> Iterator[str]:
    """Send the orders now, and again whenever they change, for STREAM_SECONDS.

    Where all slots are taken, send them once and end: the browser then comes back every two seconds, which is nearly
    as good to whoever looks at it, and requests always find a thread.
    """
    slot = slots.acquire(blocking=False)
    until = time.monotonic() + (settings.STREAM_SECONDS if slot else 0)
    try:
        yield f"retry: {200 if slot else 2000}\n\n"  # when the browser is to come back, in milliseconds
        sent = None
        while True:
            if (orders := newest()) != sent:
                yield f"data: {json.dumps(orders)}\n\n"
                sent = orders
            if time.monotonic() >= until:
                return
            close_old_connections()  # back into the pool: a stream that sleeps needs none
            time.sleep(PAUSE)
    finally:
        if slot:
            slots.release()


@require_safe
def events(request: HttpRequest) -> StreamingHttpResponse:
    """An EventSource can follow this."""
    headers = {"Cache-Control": "no-cache"}
    return StreamingHttpResponse(stream(), content_type="text/event-stream", headers=headers)
