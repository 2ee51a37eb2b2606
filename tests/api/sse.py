"""Reading /v1/watch: frames of text/event-stream, one after another."""
import json
import socket

LIMIT_S = 30


class Watcher:
    def __init__(self, address, path="/v1/watch", headers=(), family=socket.AF_UNIX, receive_bytes=None):
        self.socket = socket.socket(family)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(address)
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        for line in iter(self.file.readline, b"\r\n"):
            name, value = line.decode().split(":", 1)
            self.headers[name.lower()] = value.strip()

    def frame(self):
        """(event, id, data) of the next; None at the end."""
        fields = {}
        for line in self.file:
            line = line.decode().rstrip("\n")
            if not line:
                return fields["event"], int(fields.get("id", 0)), json.loads(fields["data"])
            name, value = line.split(": ", 1)
            fields[name] = value
        return None

    def next(self, kind):
        while True:
            frame = self.frame()
            assert frame is not None, "the stream ended"
            if frame[0] == kind:
                return frame[2]

    def close(self):
        self.file.close()
        self.socket.close()
