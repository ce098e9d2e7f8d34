"""Looks at the dashboard in a headless Chromium, by the DevTools protocol.

look.py URL TOKEN SERVER OTHER CLIENT: prints one JSON object with what it saw.
"""

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request


class Tab:
    """A tab, and enough of a websocket to speak to it."""

    def __init__(self, port):
        pages = []
        deadline = time.time() + 30
        while not pages and time.time() < deadline:
            try:
                tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
                pages = [it for it in tabs if it["type"] == "page"]
            except OSError:
                time.sleep(0.1)
        path = pages[0]["webSocketDebuggerUrl"].split(str(port), 1)[1]
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(30)
        self.number = 0
        self.buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(4096)
        self.buffer = self.buffer.split(b"\r\n\r\n", 1)[1]

    def take(self, count):
        while len(self.buffer) < count:
            self.buffer += self.socket.recv(1 << 20)
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def call(self, method, **params):
        self.number += 1
        text = json.dumps({"id": self.number, "method": method, "params": params}).encode()
        mask = os.urandom(4)
        if len(text) < 126:
            length = bytes([0x80 | len(text)])
        else:
            length = bytes([0x80 | 126]) + struct.pack(">H", len(text))
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
        self.socket.sendall(bytes([0x81]) + length + mask + masked)
        message = b""
        while True:
            first, length = self.take(2)
            length &= 127
            if length == 126:
                length = struct.unpack(">H", self.take(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self.take(8))[0]
            message += self.take(length)
            if not first & 0x80:
                continue
            answer = json.loads(message)
            message = b""
            if answer.get("id") == self.number:
                return answer.get("result", answer)

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return result.get("result", {}).get("value")

    def until(self, script):
        deadline = time.time() + 30
        while time.time() < deadline:
            if self.run(script):
                return True
            time.sleep(0.1)
        return False


def press(tab, key, code):
    for kind in ("rawKeyDown", "char", "keyUp"):
        text = "\r" if key == "Enter" else ""
        if kind == "char" and not text:
            continue
        tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)


def look(tab, url, token, server, other, client):
    tab.call("Page.enable")
    tab.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source=f"sessionStorage.setItem('token', {json.dumps(token)}); window.said = [];"
        "document.addEventListener('securitypolicyviolation', it => said.push(it.violatedDirective));"
        "window.addEventListener('error', it => said.push(it.message));",
    )
    tab.call("Emulation.setDeviceMetricsOverride", width=400, height=900, deviceScaleFactor=1, mobile=True)
    tab.call("Page.navigate", url=url)
    seen = {"shown": tab.until("document.querySelectorAll('#servers button').length > 0")}
    about = tab.run("document.getElementById('about').textContent")
    seen["updates"] = tab.until(f"document.getElementById('about').textContent !== {json.dumps(about)}")
    seen["width"] = tab.run("document.documentElement.scrollWidth")
    seen["scripts"] = tab.run("document.scripts.length")
    seen["forwards"] = tab.run("document.getElementById('forwards').textContent")
    seen["said"] = tab.run("said")
    # By keyboard: the button has the focus, Enter opens the dialog, whose first answer is no.
    row = f"[...document.querySelectorAll('#servers button')].find(it => it.dataset.key.startsWith('drain') && it.closest('tr').textContent.includes({json.dumps(server)}))"
    tab.run(f"{row}.click()")
    seen["asks"] = tab.run("document.getElementById('confirm').open && document.getElementById('confirm-text').textContent")
    seen["default"] = tab.run("document.activeElement.textContent")
    tab.run("document.getElementById('confirm-yes').click()")
    seen["drained"] = tab.until(f"[...document.querySelectorAll('#servers tr')].some(it => it.textContent.includes({json.dumps(server)}) && it.textContent.includes('drain'))")
    # The last server is not drained, and that is still said when the next pictures have come. What
    # somebody is about to press is not taken from under the pointer by these.
    last = row.replace(json.dumps(server), json.dumps(other))
    tab.run(f"window.kept = {last}; kept.click(); document.getElementById('confirm-yes').click()")
    seen["refused"] = tab.until("document.getElementById('said').textContent.includes('last server')")
    about = tab.run("document.getElementById('about').textContent")
    tab.until(f"document.getElementById('about').textContent !== {json.dumps(about)}")
    seen["still-refused"] = tab.run("!document.getElementById('said').hidden")
    seen["kept"] = tab.run(f"kept.isConnected && kept === {last}")
    # All that can be done is on the screen, however narrow that is.
    seen["in-sight"] = tab.run("[...document.querySelectorAll('td.act button')].every(it => { const at = it.getBoundingClientRect(); return at.left >= 0 && at.right <= 400; })")
    # A forward, too, can be drained and taken back.
    forward = "document.querySelector('#forwards td.act button')"
    tab.run(f"{forward}.click(); document.getElementById('confirm-yes').click()")
    seen["forward-drained"] = tab.until(f"{forward}.textContent === 'Take back'")
    tab.run(f"{forward}.click(); document.getElementById('confirm-yes').click()")
    seen["forward-back"] = tab.until(f"{forward}.textContent === 'Drain'")
    # Down to the sessions of the other server, and one of them ended, by keyboard alone.
    tab.run(f"[...document.querySelectorAll('#servers button.link')].find(it => it.textContent.includes({json.dumps(other)})).focus()")
    press(tab, "Enter", 13)
    seen["scope"] = tab.until(f"!document.getElementById('scope').hidden && document.getElementById('scope-text').textContent.includes({json.dumps(other)})")
    end = f"[...document.querySelectorAll('#sessions tr')].find(it => it.textContent.includes({json.dumps(client)}))?.querySelector('[data-key^=kill]')"
    seen["listed"] = tab.until(f"!!{end}")
    tab.run(f"{end}.focus()")
    press(tab, "Enter", 13)
    seen["asks-to-end"] = tab.until("document.getElementById('confirm').open") and tab.run("document.getElementById('confirm-text').textContent")
    press(tab, "Tab", 9)
    press(tab, "Enter", 13)
    seen["ended"] = tab.until(f"!document.getElementById('sessions').textContent.includes({json.dumps(client)})")
    # What it says at 400 pixels is seen without a scroll of the page, in the dark as well.
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    seen["dark"] = tab.run("getComputedStyle(document.body).backgroundColor")
    seen["dark-width"] = tab.run("document.documentElement.scrollWidth")
    return seen


def main():
    url, token, server, other, client = sys.argv[1:6]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
             f"--remote-debugging-port={port}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        try:
            print(json.dumps(look(Tab(port), url, token, server, other, client)))
        finally:
            browser.terminate()
            browser.wait(timeout=30)


main()
