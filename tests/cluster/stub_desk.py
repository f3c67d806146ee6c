"""In the place of the queue of jobs: says where it listens, and answers with what it was started with."""

from __future__ import annotations

import http.server
import json
import os
import sys
from pathlib import Path


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(FOUND).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


folder = Path(sys.argv[1])
FOUND = {
    "folder": str(folder),
    "cwd": os.getcwd(),
    "token": Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text(),
    "umask": os.umask(0o077),
    "env": {key: value for key, value in os.environ.items() if key.startswith("RAY_")},
    "setup": os.environ.get("FROM_SETUP"),
}
server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
beside = folder / "desk.new"
beside.write_text(json.dumps({"host": "127.0.0.1", "port": server.server_port, "pid": os.getpid()}))
beside.replace(folder / "desk.json")
server.serve_forever()
