"""What the API's tests share: the daemon tests' machine, and requests whose answers are not JSON."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "daemon"))
from harness import BUILD, GIB, LIMIT_S, MIB, Machine, MachineTest, UnixConnection, main, until  # noqa: E402,F401


def get(machine, path, headers=None, method="GET", body=None):
    """(status, headers, text) of one request on the machine's socket."""
    connection = UnixConnection(f"{machine.dir}/divvyd.sock")
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()
