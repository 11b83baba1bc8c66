"""Serves the notes as JSON, and takes new ones by POST.

usage: server.py DATABASE
"""

import http.server
import json
import signal
import sqlite3
import sys


class Notes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with sqlite3.connect(sys.argv[1]) as db:
            rows = db.execute("SELECT text, done FROM note ORDER BY id").fetchall()
        self.reply(200, [{"text": text, "done": bool(done)} for text, done in rows])

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with sqlite3.connect(sys.argv[1]) as db:
            db.execute("INSERT INTO note (text) VALUES (?)", (text,))
        self.reply(201, {"text": text})

    def reply(self, status, body):
        data = (json.dumps(body) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer(("", 8000), Notes).serve_forever()
