#!/usr/bin/env python3
"""The API on TCP: nothing without the token, bounded in bytes and time; and what a browser may do."""
import http.client
import json
import os
import socket
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import GIB, LIMIT_S, MachineTest, get, main, until  # noqa: E402
from sse import Watcher  # noqa: E402

TOKEN = "0123456789abcdef-right"


class Tcp(MachineTest):
    def setUp(self):
        with tempfile.NamedTemporaryFile("w", suffix=".token", delete=False) as f:
            f.write(TOKEN + "\n")
        self.addCleanup(os.unlink, f.name)
        self.options = ("--api-tcp", "127.0.0.1:0", "--api-token-file", f.name)
        super().setUp()
        host, port = self.m.request("GET", "/v1/status")["tcp"].rsplit(":", 1)
        self.address = host, int(port)

    def ask(self, path, token=TOKEN, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection(*self.address, timeout=LIMIT_S)
        self.addCleanup(connection.close)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def test_token(self):
        self.assertEqual(self.ask("/v1/status")[0], 200)
        for token in (None, "", TOKEN + "x", TOKEN[:-1], "x" * 5000):
            for path in ("/v1/status", "/metrics", "/v1/watch", "/v1/nothing"):
                status, text = self.ask(path, token)
                self.assertEqual((status, json.loads(text)["error"]["code"]), (401, "denied"), path)
        self.assertEqual(self.ask("/v1/tenants", None, "POST", '{"mem_bytes":1}')[0], 401)
        self.assertEqual(self.m.request("GET", "/v1/tenants")["tenants"], [])

    def test_everything_works_with_it(self):
        status, _ = self.ask("/v1/tenants", method="POST", body=json.dumps({"mem_bytes": GIB, "name": "a"}))
        self.assertEqual(status, 201)
        self.assertIn("divvy_tenants 1", self.ask("/metrics")[1])
        w = Watcher(self.address, family=socket.AF_INET, headers=[f"Authorization: Bearer {TOKEN}"])
        self.addCleanup(w.close)
        self.assertEqual(w.next("snapshot")["tenants"][0]["name"], "a")
        self.assertEqual(self.ask("/v1/tenants/a", method="DELETE")[0], 200)

    def test_page_is_free_its_data_is_not(self):
        status, text = self.ask("/", None)
        self.assertEqual(status, 200)
        self.assertIn("<!doctype html>", text.lower())

    def test_large_and_malformed_bodies(self):
        self.assertEqual(self.ask("/v1/tenants", method="POST", body="{" * 100)[0], 400)
        status, text = self.ask("/v1/tenants", method="POST", body=b" " * (65 << 10))
        self.assertEqual(status, 413, text)

    def test_a_hundred_megabytes(self):
        def resident():
            return float(self.ask("/metrics?name[]=process_resident_memory_bytes")[1].split()[-1])
        before = resident()
        s = socket.create_connection(self.address, LIMIT_S)
        self.addCleanup(s.close)
        s.sendall(f"POST /v1/tenants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                  f"Content-Length: {100 << 20}\r\n\r\n".encode())
        try:
            for _ in range(100 << 4):
                s.sendall(b" " * 65536)
        except OSError:
            pass  # it need not be read to its end
        self.assertEqual(s.recv(1000).split()[1], b"413")
        self.assertLess(resident() - before, 16 << 20)

    def test_a_head_without_end(self):
        s = socket.create_connection(self.address, LIMIT_S)
        self.addCleanup(s.close)
        s.sendall(b"GET / HTTP/1.1\r\n")
        with self.assertRaises(OSError):
            for _ in range(100_000):
                s.sendall(b"X-Header: " + b"x" * 1000 + b"\r\n")
        self.assertEqual(self.ask("/v1/status")[0], 200)

    def test_connections_that_say_nothing_do_not_stop_the_socket(self):
        silent = [socket.create_connection(self.address, LIMIT_S) for _ in range(300)]
        for s in silent:
            self.addCleanup(s.close)
        self.assertEqual(self.m.request("GET", "/v1/status")["tenants"], 0)

    def test_start_without_a_good_token(self):
        for options in (("--api-tcp", "127.0.0.1:0"),
                        ("--api-tcp", "127.0.0.1:0", "--api-token-file", "/nonexistent"),
                        ("--api-tcp", "localhost", "--api-token-file", self.options[3])):
            self.m.stop_daemon() if self.m.daemon.poll() is None else None
            self.m.options = []
            process, said = self.m.try_start(*options)
            self.assertNotEqual(process.wait(LIMIT_S), 0, options)
            self.assertNotEqual(said, "ready")


class Browser(MachineTest):
    """On the socket, as it looks behind `ssh -L 8080:/run/divvy/divvyd.sock`."""

    def test_a_strangers_name_for_this_machine(self):
        self.assertEqual(get(self.m, "/v1/status", {"Host": "evil.example:8080"})[0], 403)
        for host in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080", "divvyd"):
            self.assertEqual(get(self.m, "/v1/status", {"Host": host})[0], 200, host)

    def test_a_strangers_page(self):
        body = json.dumps({"mem_bytes": GIB})
        headers = {"Host": "localhost:8080", "Origin": "http://evil.example", "Content-Type": "text/plain"}
        self.assertEqual(get(self.m, "/v1/tenants", headers, "POST", body)[0], 403)
        headers["Origin"] = "http://localhost:8080"
        self.assertEqual(get(self.m, "/v1/tenants", headers, "POST", body)[0], 201)
        self.assertEqual(len(until(lambda: self.m.request("GET", "/v1/tenants")["tenants"])), 1)


if __name__ == "__main__":
    main()
