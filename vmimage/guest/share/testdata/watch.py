# Copyright the dev authors. SPDX-License-Identifier: Apache-2.0
"""Prints a file's text at the start and each time it is changed, as a server with reload does. Uses watchdog, or inotify where that is not installed."""

import ctypes
import os
import sys

folder, name = sys.argv[1:3]
path = os.path.join(folder, name)


def load():
    try:
        with open(path) as f:
            print("loaded", f.read().strip(), flush=True)
    except FileNotFoundError:
        pass  # between two steps of a save


def with_watchdog():
    import queue

    from watchdog.events import FileSystemEventHandler
    from watchdog.observers.inotify import InotifyObserver

    changed = queue.Queue()

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event):
            if path in (event.src_path, getattr(event, "dest_path", "")) and event.event_type in ("created", "modified", "moved", "closed"):
                changed.put(event)

    observer = InotifyObserver()
    observer.schedule(Handler(), folder, recursive=True)
    observer.start()
    load()
    while True:
        changed.get()
        load()


def with_inotify():
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init()
    if libc.inotify_add_watch(fd, folder.encode(), 0x2 | 0x8 | 0x80 | 0x100) < 0:  # modify, close after write, moved to, create
        raise OSError(ctypes.get_errno(), "inotify_add_watch")
    load()
    while True:
        if name.encode() in os.read(fd, 65536):
            load()


try:
    import watchdog.observers.inotify
except ImportError:
    with_inotify()
else:
    with_watchdog()
