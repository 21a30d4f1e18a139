"""The examples of docs/stomp-clients.md, run as they stand there but for the port."""

import os
import queue
import re
import subprocess
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent.parent / "docs" / "stomp-clients.md"

# How an example is run, by the language that it says it is in. `{work}` is where packages are.
COMMANDS = {
    "python": ("py", ["{work}/venv/bin/python", "{file}"]),
    "js": ("cjs", ["node", "{file}"]),
    "html": ("html", ["node", f"{HERE}/page.mjs", "{file}"]),
    "ruby": ("rb", ["ruby", "{file}"]),
    "perl": ("pl", ["perl", "{file}"]),
    "php": ("php", ["php", "{file}"]),
}

# The port that the examples name, and what each sends and must print.
PORT = "6661"
SENT = "hola"

SECONDS_MAX = 60


class Example:
    """A block of code."""

    def __init__(self, section, number, language, code):
        self.library = "chromium" if language == "html" else section
        self.name = f"example {section} {number} ({language})"
        self.language = language
        self.code = code

    def run(self, broker, work):
        """As a program of suite.py."""
        started = time.monotonic()
        output, errors = self.output(broker, work)
        if SENT in output.split():
            yield True, f"ok {self.name} ({time.monotonic() - started:.2f} s)"
        else:
            yield False, f"FAILED {self.name}: {' '.join(f'{output} {errors}'.split())[-900:]}"

    def output(self, broker, work):
        """What it prints until it has printed what it sent. It runs beside the certificates."""
        suffix, command = COMMANDS[self.language]
        file = broker.directory / f"{re.sub('[^a-z0-9]+', '_', self.name)}.{suffix}"
        file.write_text(self.code.replace(PORT, str(broker.port)))
        modules = work / "node" / "node_modules"
        process = subprocess.Popen(
            [part.format(work=work, file=file) for part in command], cwd=broker.directory,
            env={**os.environ, "NODE_PATH": str(modules), "BROKER_NODE_MODULES": str(modules),
                 "BROKER_CA": str(broker.authority)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace")
        lines = queue.Queue()
        threads = [threading.Thread(target=read, args=(stream, lines), daemon=True)
                   for stream in (process.stdout, process.stderr)]
        for thread in threads:
            thread.start()
        output = []
        deadline = time.monotonic() + SECONDS_MAX
        try:
            while SENT not in output and any(thread.is_alive() for thread in threads):
                try:
                    output.append(lines.get(timeout=0.2))
                except queue.Empty:
                    if time.monotonic() > deadline:
                        output.append(f"nothing more for {SECONDS_MAX} s")
                        break
        finally:
            # SIGTERM, so that a browser goes with the program that started it.
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        while not lines.empty():
            output.append(lines.get())
        return "\n".join(output), ""


def read(stream, lines):
    for line in stream:
        lines.put(line.rstrip("\n"))


def read_examples():
    """All examples, in their order."""
    examples = []
    for section in PAGE.read_text().split("\n## ")[1:]:
        name = section.split("\n", 1)[0].strip()
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S)
        for number, (language, code) in enumerate(blocks, 1):
            examples.append(Example(name, number, language, code))
    languages = {example.language for example in examples}
    assert languages == set(COMMANDS), f"{PAGE} has examples in {languages}"
    return examples
