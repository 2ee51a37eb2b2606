#!/usr/bin/env python3
"""The API on TCP with TLS: who has no certificate of the right authority gets nothing."""
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import GIB, LIMIT_S, MachineTest, main  # noqa: E402

TOKEN = "0123456789abcdef-right"


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def authority(at, name):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", f"/CN={name}", "-keyout", f"{at}/{name}.key", "-out", f"{at}/{name}.pem")


def certificate(at, name, signer):
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{at}/{name}.key", "-out", f"{at}/{name}.csr")
    with open(f"{at}/{name}.ext", "w", encoding="ascii") as f:
        f.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", f"{at}/{name}.csr", "-CA", f"{at}/{signer}.pem", "-CAkey", f"{at}/{signer}.key",
            "-CAcreateserial", "-days", "1", "-extfile", f"{at}/{name}.ext", "-out", f"{at}/{name}.pem")


class Tls(MachineTest):
    with_token, with_ca = False, True

    @classmethod
    def setUpClass(cls):
        if shutil.which("openssl") is None:
            print("skipped: no openssl program")
            sys.exit(77)
        cls.at = tempfile.mkdtemp(prefix="divvy-tls-")
        cls.addClassCleanup(shutil.rmtree, cls.at)
        for name in ("ca", "stranger"):
            authority(cls.at, name)
        certificate(cls.at, "server", "ca")
        certificate(cls.at, "client", "ca")
        certificate(cls.at, "foreign", "stranger")
        with open(f"{cls.at}/token", "w", encoding="ascii") as f:
            f.write(TOKEN + "\n")

    def setUp(self):
        self.options = ("--api-tcp", "127.0.0.1:0", "--api-tls-cert", f"{self.at}/server.pem",
                        "--api-tls-key", f"{self.at}/server.key")
        if self.with_ca:
            self.options += ("--api-tls-client-ca", f"{self.at}/ca.pem")
        if self.with_token:
            self.options += ("--api-token-file", f"{self.at}/token")
        super().setUp()
        host, port = self.m.request("GET", "/v1/status")["tcp"].rsplit(":", 1)
        self.address = host, int(port)

    def context(self, client="client", trust="ca"):
        context = ssl.create_default_context(cafile=f"{self.at}/{trust}.pem")
        if client:
            context.load_cert_chain(f"{self.at}/{client}.pem", f"{self.at}/{client}.key")
        return context

    def ask(self, path="/v1/status", client="client", method="GET", body=None, **headers):
        connection = http.client.HTTPSConnection(*self.address, timeout=LIMIT_S, context=self.context(client))
        self.addCleanup(connection.close)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def assert_no_answer(self, *args, **kwargs):
        with self.assertRaises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            self.ask(*args, **kwargs)


class Mutual(Tls):
    def test_with_a_certificate_everything_works(self):
        self.assertEqual(self.ask()[0], 200)
        status, text = self.ask("/v1/tenants", method="POST", body=json.dumps({"mem_bytes": GIB, "name": "a"}))
        self.assertEqual(status, 201, text)
        self.assertIn("divvy_tenants 1\n", self.ask("/metrics")[1])
        self.assertIn("<html", self.ask("/")[1])

    def test_without_one_nothing_does(self):
        for client in (None, "foreign"):
            for path in ("/", "/v1/status", "/metrics"):
                self.assert_no_answer(path, client=client)
        self.assertEqual(self.ask()[0], 200)

    def test_without_tls_nothing_does(self):
        with socket.create_connection(self.address, timeout=LIMIT_S) as s:
            s.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            try:
                while part := s.recv(4096):
                    answer += part
            except ConnectionError:
                pass
        self.assertNotIn(b"200", answer)

    def test_the_client_sees_who_it_speaks_to(self):
        with self.assertRaises(ssl.SSLError):
            with socket.create_connection(self.address, timeout=LIMIT_S) as s:
                self.context(trust="stranger").wrap_socket(s, server_hostname="127.0.0.1")

    def test_old_versions_are_refused(self):
        context = self.context()
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            with socket.create_connection(self.address, timeout=LIMIT_S) as s:
                context.wrap_socket(s, server_hostname="127.0.0.1")

    def test_large_answers_and_kept_connections(self):
        connection = http.client.HTTPSConnection(*self.address, timeout=LIMIT_S, context=self.context())
        self.addCleanup(connection.close)
        for _ in range(20):
            connection.request("GET", "/web/vendor/uPlot.iife.min.js")
            response = connection.getresponse()
            text = response.read()
            if response.status == 404:  # whatever its name: the page itself
                connection.request("GET", "/")
                text = connection.getresponse().read()
            self.assertGreater(len(text), 500)

    def test_watch(self):
        with socket.create_connection(self.address, timeout=LIMIT_S) as plain:
            with self.context().wrap_socket(plain, server_hostname="127.0.0.1") as s:
                s.sendall(b"GET /v1/watch?interval_ms=100 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                text = b""
                while text.count(b"event: snapshot") < 3:
                    part = s.recv(65536)
                    self.assertTrue(part, text)
                    text += part
        self.assertIn(b"text/event-stream", text)

    def test_who_does_not_finish_the_handshake_holds_nobody_up(self):
        held = [socket.create_connection(self.address, timeout=LIMIT_S) for _ in range(8)]
        for s in held:
            self.addCleanup(s.close)
            s.sendall(b"\x16\x03\x01")
        self.assertEqual(self.ask()[0], 200)


class WithToken(Tls):
    with_token, with_ca = True, False

    def test_the_token_decides(self):
        self.assertEqual(self.ask(client=None)[0], 401)
        self.assertEqual(self.ask(client=None, Authorization=f"Bearer {TOKEN}")[0], 200)
        self.assertEqual(self.ask("/", client=None)[0], 200)


class Both(Tls):
    with_token = True

    def test_both_are_needed(self):
        self.assert_no_answer(client=None, Authorization=f"Bearer {TOKEN}")
        self.assertEqual(self.ask()[0], 401)
        self.assertEqual(self.ask(Authorization=f"Bearer {TOKEN}")[0], 200)


class Start(Tls):
    def run_daemon(self, *options):
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run([os.path.join(os.environ["DIVVY_BUILD_DIR"], "bin", "divvyd"), "--foreground", "--sim",
                                   "t4", "--runtime-dir", folder, *options], capture_output=True, text=True,
                                  timeout=LIMIT_S, check=False)

    def test_what_cannot_be(self):
        tcp, cert, key = ("--api-tcp", "127.0.0.1:0"), f"{self.at}/server.pem", f"{self.at}/server.key"
        for options, status, word in (
                (tcp, 2, "--api-tls-client-ca"),
                ((*tcp, "--api-tls-cert", cert), 2, "--api-tls-key"),
                ((*tcp, "--api-tls-cert", cert, "--api-tls-key", key), 2, "--api-token-file"),
                (("--api-tls-cert", cert, "--api-tls-key", key), 2, "--api-tcp"),
                ((*tcp, "--api-tls-cert", cert, "--api-tls-key", f"{self.at}/client.key", "--api-tls-client-ca",
                  f"{self.at}/ca.pem"), 1, "--api-tls-key"),
                ((*tcp, "--api-tls-cert", "/nonexistent", "--api-tls-key", key, "--api-tls-client-ca",
                  f"{self.at}/ca.pem"), 1, "/nonexistent"),
                ((*tcp, "--api-tls-cert", cert, "--api-tls-key", key, "--api-tls-client-ca", key), 1,
                 "--api-tls-client-ca")):
            done = self.run_daemon(*options)
            self.assertEqual(done.returncode, status, (options, done.stderr))
            self.assertIn(word, done.stderr)


del Tls  # the base has no tests of its own
if __name__ == "__main__":
    main()
