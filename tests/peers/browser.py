"""A real browser without a window: Debian's Chromium, driven over the WebDriver
protocol by what Python has of itself. It has a profile of its own and notes
what its pages request and say on the console."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request

from harness import wait_until

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync"]


class Browser:
    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="zcw", dir="/tmp")
        self.log = os.path.join(self.dir, "driver.log")
        with open(self.log, "wb") as log:
            self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=log, env={**os.environ, "HOME": self.dir})
        self.session = None
        try:
            port = wait_until("chromedriver to listen", self._port, 30)
            self.url = f"http://127.0.0.1:{port}/session"
            options = {"args": [*ARGUMENTS, f"--user-data-dir={self.dir}/profile"]}
            answer = self._call("POST", "", {"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}})
            self.session = answer["sessionId"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.session is not None:
            self._call("DELETE", "")
        self.driver.terminate()
        self.driver.wait(30)
        shutil.rmtree(self.dir, ignore_errors=True)

    def _port(self):
        with open(self.log, encoding="utf-8") as log:
            found = re.search(r"started successfully on port (\d+)", log.read())
        return found and int(found.group(1))

    def _call(self, method, path, body=None):
        url = self.url + (f"/{self.session}" if self.session else "") + path
        request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            return json.loads(response.read())["value"]

    def _devtools(self, command, **params):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def show(self, path, width=1400, scheme="light", scripts=True):
        """Opens a file, `width` pixels wide; returns what it requested and what the console says."""
        self._devtools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self._devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._devtools("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.requests()
        self.console()
        self._call("POST", "/url", {"url": f"file://{path}"})
        return self.requests(), self.console()

    def requests(self):
        """URLs requested since the last look."""
        messages = [json.loads(entry["message"])["message"]
                    for entry in self._call("POST", "/se/log", {"type": "performance"})]
        return [message["params"]["request"]["url"] for message in messages
                if message["method"] == "Network.requestWillBeSent"]

    def console(self):
        """What was said on the console since the last look."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def run(self, script):
        """What a function body returns in the page."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def screenshot(self, path):
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return window.innerWidth")
        shot = self._devtools("Page.captureScreenshot", captureBeyondViewport=True,
                              clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1})
        with open(path, "wb") as out:
            out.write(base64.b64decode(shot["data"]))
