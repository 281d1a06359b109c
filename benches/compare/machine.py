"""What every comparison of servers needs: binaries, keys, cores, ports, and processes that start and end."""

import glob
import json
import os
import platform
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = HERE / "peers"

SERVER_CORE, GENERATOR_CORE = 0, 1
START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 10
RUN_SECONDS_MAX = 300

CENTRIFUGO = "github.com/centrifugal/centrifugo/v6@latest"


class NotListening(OSError):
    """A server that was started takes no connections."""


def build_fanfare(*more):
    """Builds the release, and says where each of its binaries is, by name."""
    say("building")
    command = ["cargo", "build", "--release", "--bin", "fanfare", *more, "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        fail("cargo build failed: see its message above")
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    return {message["target"]["name"]: Path(message["executable"]) for message in messages if message.get("executable")}


def install_peers():
    for tool in ["node", "npm"]:
        if shutil.which(tool) is None:
            fail(f"{tool} is missing: the peers run on it")
    installed, wanted = PEERS / "node_modules/.package-lock.json", PEERS / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime > wanted.stat().st_mtime:
        return
    say("installing the peers from npm")
    if subprocess.run(["npm", "ci", "--prefix", str(PEERS)], stdout=subprocess.DEVNULL).returncode != 0:
        fail("npm ci failed: see its message above")
    installed.touch()


def bun_binary():
    # The package of this very machine; `bun` itself only leads to it.
    found = glob.glob(str(PEERS / "node_modules/@oven/bun-*/bin/bun"))
    return found[0] if found else str(PEERS / "node_modules/.bin/bun")


def peer_versions(servers):
    """What of npm the servers of these names run."""
    versions = []
    if "bun" in servers:
        versions.append(f"bun {said(bun_binary(), '--version')}")
    if any(name.startswith("ws") for name in servers):
        package = json.loads((PEERS / "node_modules/ws/package.json").read_text())
        versions += [f"ws {package['version']}", f"node {said('node', '--version').lstrip('v')}"]
    return versions


def centrifugo_binary(without):
    """Where it is; built with Go where it is not installed. `without` says what is done where it cannot be had."""
    own = ROOT / "target/centrifugo/centrifugo"
    if shutil.which("centrifugo"):
        return shutil.which("centrifugo")
    if not own.exists() and shutil.which("go"):
        say("building centrifugo with go")
        built = subprocess.run(["go", "install", CENTRIFUGO], env={**os.environ, "GOBIN": str(own.parent)})
        if built.returncode != 0:
            say(f"go install failed: see its message above; {without}")
    if own.exists():
        return str(own)
    say(f"neither centrifugo nor go is installed: {without}")
    return None


def centrifugo_version(binary):
    # One that go has built names its version in its module alone.
    built = re.search(r"^\s*mod\s+\S+\s+v(\S+)", said("go", "version", "-m", binary), re.MULTILINE)
    told = re.search(r"v(\d\S*)", said(binary, "version"))
    return f"centrifugo {(built or told)[1]}" if built or told else "centrifugo"


def make_keys():
    """A folder with a secret, two pairs of keys and a certificate, made by openssl; gone when this ends."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name)
    (path / "secret").write_text("the secret of this benchmark, of more than 32 bytes")
    for alg, kind in [("ES256", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
                      ("EdDSA", ["-algorithm", "ED25519"])]:
        for command in [["genpkey", *kind, "-out", path / f"{alg}.key"],
                        ["pkey", "-in", path / f"{alg}.key", "-pubout", "-out", path / f"{alg}.pem"]]:
            if subprocess.run(["openssl", *map(str, command)], capture_output=True).returncode != 0:
                fail("openssl failed: it makes the keys that logins are signed with")
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                           "-keyout", path / "tls.key", "-out", path / "tls.pem", "-subj", "/CN=127.0.0.1",
                           "-addext", "subjectAltName=IP:127.0.0.1",
                           "-addext", "basicConstraints=critical,CA:FALSE", "-days", "2"], capture_output=True)
    if made.returncode != 0:
        fail("openssl failed: it makes the certificate for TLS")
    return folder


def server_pin():
    """What `--pin` of a server of ours is: core 0, where there are two."""
    return str(SERVER_CORE) if len(os.sched_getaffinity(0)) > 1 else "none"


def pinned(core, nice, command):
    """The command on one core, where there are two."""
    prefix = ["nice", "-n", str(nice)] if nice else []
    if len(os.sched_getaffinity(0)) > 1:
        prefix += ["taskset", "-c", str(core)]
    return [str(word) for word in prefix + command]


def await_line(server, name):
    """Waits until a server says that it listens."""
    ready, _, _ = select.select([server.stdout], [], [], START_SECONDS_MAX)
    line = server.stdout.readline() if ready else b""
    if b"listening" not in line:
        raise NotListening(f"{name} does not listen: it said {line!r} (exit code {server.poll()})")


def await_port(server, name, port):
    """Waits until a server that says nothing takes connections."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise NotListening(f"{name} does not listen (exit code {server.poll()})")


def stop(server):
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if server.stdout:
        server.stdout.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_bench(options, fanfare, arguments, seconds_max=RUN_SECONDS_MAX):
    """One run of the generator: its report, or why there is none, and how it ended."""
    ran = subprocess.run(pinned(GENERATOR_CORE, options.nice, [fanfare, "bench", *arguments, "--json"]),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds_max)
    found = json.loads(ran.stdout) if ran.stdout.startswith("{") else {"error": ran.stderr.strip()}
    found["exit_code"] = ran.returncode
    warnings = [] if options.smoke else found.get("warnings", [])
    for what in [found.get("error"), *found.get("faults", {}).get("told", []), *warnings]:
        if what:
            say(f"  {what}")
    return found


def facts(options, name, versions):
    """What a page says of the machine and the run."""
    models = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(version for version in versions if version),
        "load_before": f"{os.getloadavg()[0]:.2f}",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "command": " ".join([name, *sys.argv[1:]]),
        "smoke": options.smoke,
    }


def said(*command):
    try:
        return subprocess.run([str(word) for word in command], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def say(what):
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def fail(what):
    print(f"{Path(sys.argv[0]).name}: {what}", file=sys.stderr)
    sys.exit(1)
