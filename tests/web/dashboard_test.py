#!/usr/bin/env python3
"""The dashboard in a real browser, before a live daemon with tenants that work: what it shows is what the
API says, a share can be changed with the keyboard alone, and it says so when divvyd goes away.

DIVVY_PICTURES=FOLDER also writes its pictures there (docs/img).
"""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "api"))
sys.path.insert(0, HERE)
from browser import Browser  # noqa: E402
from client import BUILD, GIB, Machine, until  # noqa: E402

TOKEN = "0123456789abcdef-dash"
PICTURES = os.environ.get("DIVVY_PICTURES")
LOADS = (("chat", ["--compute", "50", "--class", "latency"], ["--alloc", "3GiB", "--kernel", "2ms", "--rate", "150"]),
         ("embed", ["--compute", "20"], ["--alloc", "2GiB", "--kernel", "5ms", "--rate", "40"]),
         ("train", ["--class", "batch"], ["--alloc", "5GiB", "--kernel", "20ms"]))


class Dashboard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile("w", suffix=".token", delete=False) as f:
            f.write(TOKEN + "\n")
        cls.addClassCleanup(os.unlink, f.name)
        cls.m = Machine("h100x2", options=("--api-tcp", "127.0.0.1:0", "--api-token-file", f.name))
        cls.addClassCleanup(cls.m.close)
        cls.url = f"http://{cls.m.request('GET', '/v1/status')['tcp']}/"
        cls.loads = []
        for name, share, load in LOADS:
            cls.run_load(name, share, load)
        cls.m.tenant(8 * GIB, name="notebook", gpus=[1], runner_pid=0, compute_percent=30,
                     command=["jupyter", "lab"])
        def working():
            tenants = {t["name"]: t for t in cls.m.request("GET", "/v1/tenants")["tenants"]}
            return all(name in tenants and tenants[name]["shares"][0]["compute"]["used_percent_1s"] for name, _, _ in LOADS)
        until(working, "tenants that work")
        cls.m.request("POST", "/v1/tenants", {"mem_bytes": 8 * GIB, "name": "late", "gpus": [1]})
        try:
            cls.m.request("POST", "/v1/tenants", {"mem_bytes": 75 * GIB, "name": "too-large", "gpus": [0]})
        except Exception:  # the refusal that the log shows
            pass
        cls.b = Browser()
        cls.addClassCleanup(cls.b.close)

    @classmethod
    def run_load(cls, name, share, load):
        # From the PATH, as people start it: the page shows the command.
        env = dict(cls.m.env, PATH=f"{BUILD}/bin:{os.environ['PATH']}")
        p = subprocess.Popen(["divvy", "run", "--sim", "h100x2", "--name", name, "--gpu", "0", "--mem", "8GiB", *share,
                              "--", "divvy", "load", "--for", "10m", *load], env=env, stdout=subprocess.DEVNULL)

        def stop():
            p.terminate()
            p.wait()
        cls.addClassCleanup(stop)

    def setUp(self):
        self.b.problems.clear()
        self.b.size(1280, 1100)
        self.b.open("about:blank")
        self.b.open(f"{self.url}#token={TOKEN}")
        self.b.until("document.querySelectorAll('#tenants tbody tr').length >= 4", "tenants in the page")

    def picture(self, name):
        if PICTURES:
            self.b.picture(os.path.join(PICTURES, name))

    def row(self, name, cell):
        return f"document.querySelector('tr[data-tenant=\"{name}\"] {cell}')"

    def test_page_and_api_agree(self):
        for tenant in self.m.request("GET", "/v1/tenants")["tenants"]:
            share = tenant["shares"][0]
            self.b.until(f"{self.row(tenant['name'], '.bar')}.ariaValueNow !== undefined")
            bar = self.row(tenant["name"], "[role=meter]")
            self.assertEqual(int(self.b.run(f"{bar}.getAttribute('aria-valuemax')")), share["limit_bytes"])
            self.b.until(f"{bar}.getAttribute('aria-valuenow') == {self.m.share(tenant['name'])['used_bytes']}")
        self.assertEqual(self.b.run("document.querySelectorAll('.device').length"), 2)
        self.b.until("document.querySelector('#events').innerText.includes('too-large')")
        self.assertIn("notebook", self.b.run("document.querySelector('#events').innerText"))
        self.assertEqual(self.b.problems, [])

    def test_token(self):
        self.assertNotIn(TOKEN, self.b.run("location.href"))
        self.b.run("sessionStorage.clear()")
        self.b.open(self.url)
        self.b.until("document.getElementById('token-dialog')?.open", "the question for the token")
        self.b.run("document.getElementById('token').value = 'wrong-wrong-wrong-wrong'")
        self.b.run("document.querySelector('#token-dialog form').requestSubmit()")
        self.b.until("document.getElementById('token-dialog').open && document.getElementById('token').value === ''")
        self.b.run(f"document.getElementById('token').value = '{TOKEN}'")
        self.b.run("document.querySelector('#token-dialog form').requestSubmit()")
        self.b.until("document.querySelectorAll('#tenants tbody tr').length >= 4")

    def test_change_a_share_with_the_keyboard(self):
        self.b.run(f"{self.row('notebook', 'button')}.focus()")
        self.b.key("Enter")
        self.b.until("document.activeElement.id === 'share-memory'")
        self.b.run("document.getElementById('share-memory').value = '6 GiB'")
        self.b.run("document.getElementById('share-compute').value = '25'")
        self.b.key("Enter")
        self.b.until("document.activeElement.dataset.do === 'apply'", "the confirmation")
        said = self.b.run("document.getElementById('share-dialog').innerText")
        self.assertIn("6.0 GiB", said)
        self.assertIn("25 %", said)
        self.assertNotIn("null", said)
        self.assertEqual(self.m.share("notebook")["promised_bytes"], 8 * GIB)  # not before it is confirmed
        self.picture("dashboard-change-light-en.png")
        self.b.key("Enter")
        self.b.until("!document.getElementById('share-dialog').open")
        share = self.m.share("notebook")
        self.assertEqual((share["promised_bytes"], share["compute_percent"]), (6 * GIB, 25))
        self.b.run(f"{self.row('notebook', 'button')}.click()")
        self.b.until("document.getElementById('share-dialog').open")
        self.b.key("Escape")
        self.b.until("!document.getElementById('share-dialog').open")

    def test_a_refused_change_says_why(self):
        self.b.run(f"{self.row('late', 'button')}.click()")
        self.b.until("document.activeElement.id === 'share-memory'")
        self.b.run("document.getElementById('share-memory').value = '900GiB'")
        self.b.key("Enter")
        self.b.until("document.activeElement.dataset.do === 'apply'")
        self.b.key("Enter")
        self.b.until("document.querySelector('#share-dialog [role=alert]').innerText.length > 10")
        self.assertEqual(self.m.share("late")["promised_bytes"], 8 * GIB)
        self.b.key("Escape")

    def test_themes_languages_and_a_phone(self):
        points = "document.querySelector('.uplot') !== null"
        for theme in ("light", "dark"):
            for language, word in (("en", "Tenants"), ("zh", "租户")):
                self.b.choose("theme", theme)
                self.b.choose("language", language)
                self.b.until(f"document.getElementById('tenants-title').innerText === '{word}'")
                self.b.until(points)
                self.assertEqual(self.b.run("document.getElementById('state').innerText"),
                                 {"en": "live", "zh": "实时"}[language])
                # Words without a translation would stand there as their keys.
                self.assertEqual(self.b.run("[...document.querySelectorAll('[data-text]')].filter(e => !e.textContent).length"), 0)
                self.picture(f"dashboard-{theme}-{language}.png")
        dark = self.b.run("getComputedStyle(document.body).backgroundColor")
        self.b.choose("theme", "light")
        self.assertNotEqual(self.b.run("getComputedStyle(document.body).backgroundColor"), dark)
        self.b.choose("language", "en")
        self.b.size(390, 844, phone=True)
        self.b.until("document.documentElement.clientWidth <= 390")
        self.assertLessEqual(self.b.run("document.documentElement.scrollWidth"), 390)
        self.b.until("Math.max(...[...document.querySelectorAll('.uplot')].map(e => e.clientWidth)) < 390")
        self.picture("dashboard-phone.png")

    def test_both_languages_have_every_word(self):
        missing = self.b.run("""(async () => {
          const { english } = await import('/web/text_en.js');
          const { chinese } = await import('/web/text_zh.js');
          return Object.keys(english).filter((k) => !(k in chinese)); })()""")
        self.assertEqual(missing, [])

    def test_everything_is_reached_by_tab(self):
        self.b.run("document.body.focus()")
        reached = set()
        for _ in range(40):
            self.b.key("Tab")
            reached.add(self.b.run("document.activeElement.id || document.activeElement.closest('tr')?.dataset.tenant || ''"))
        for what in ("span", "theme", "language", "filter", "events", "chat", "notebook"):
            self.assertIn(what, reached)

    def test_zz_divvyd_goes_and_comes_back(self):
        self.b.until("document.getElementById('state').dataset.state === 'live'")
        self.m.kill_daemon()
        self.b.until("document.getElementById('state').dataset.state === 'lost'")
        port = self.url.rsplit(":", 1)[1].rstrip("/")
        self.m.options[1] = f"127.0.0.1:{port}"
        self.m.start()
        self.b.until("document.getElementById('state').dataset.state === 'live'")


if __name__ == "__main__":
    if shutil.which("chromium") is None:
        print("skipped: chromium is not installed (Debian: chromium, fonts-noto-cjk)")
        sys.exit(77)
    unittest.main(verbosity=2)
