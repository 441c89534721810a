#!/usr/bin/env python3
"""Times a query in the page of `rvf serve`, in headless Chromium: tests/bench/browser.py RVF [DATA]

Makes a store of the sample (5,000 x 384 by default) with the query module in it, serves it, and has the page search it 200 times.
Prints the median. Needs chromium and chromedriver."""
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

rvf = str(pathlib.Path(sys.argv[1]).resolve())
here = pathlib.Path(__file__).resolve().parent.parent
data = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else here / "data/debian-packages").resolve()


def call(method, path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:9515{path}", method=method, data=None if body is None else json.dumps(body).encode()
    )
    return json.load(urllib.request.urlopen(request))["value"]


with tempfile.TemporaryDirectory() as work:
    store = f"{work}/a.rvf"
    run = lambda *words: subprocess.run([rvf, *words], check=True, stdout=subprocess.DEVNULL)
    run("create", store, "--dimension", "384", "--metric", "cosine")
    run("ingest", store, "-i", str(data / "base.f16.npy"), "--ids", str(data / "ids.u64.npy"))
    run("embed-wasm", store)
    server = subprocess.Popen([rvf, "serve", store, "--bind", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    driver = subprocess.Popen(["chromedriver", "--port=9515", "--silent"], stdout=subprocess.DEVNULL)
    try:
        address = server.stdout.readline().split()[-1]
        for _ in range(100):
            try:
                call("GET", "/status")
                break
            except OSError:
                time.sleep(0.1)
        options = {"args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        session = f"/session/{call('POST', '/session', wanted)['sessionId']}"
        first = (data / "ids.u64.npy").read_bytes()[128:136]
        url = f"http://{address}/?k=10&repeat=200&q={int.from_bytes(first, 'little')}"
        call("POST", f"{session}/url", {"url": url})
        script = "return [document.body.dataset.state, document.getElementById('about').textContent, " \
                 "document.getElementById('said').textContent]"
        for _ in range(600):
            state, about, said = call("POST", f"{session}/execute/sync", {"script": script, "args": []})
            if state != "loading":
                break
            time.sleep(0.1)
        print(f"{state}: {about} Median of 200: {said}")
        call("DELETE", session)
    finally:
        driver.terminate()
        server.terminate()
