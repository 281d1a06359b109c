"""Runs the steps of a Dockerfile without Docker: each stage in a chroot over this machine's own root, whose changes are thrown away.

    dockerfile.py DOCKERFILE CONTEXT TARGET [ARG=VALUE…]

The base images are taken for Debian with Rust, which this machine is. TARGET is a folder in which cargo has built: what is there
need not be built again, and what is added is thrown away. Nothing else may build there meanwhile. At the end the image's program
is started as its user, on a root that is read-only, and its health check has to tell a server that serves from one that does
not. Needs root. Prints what each step did.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

# Generous: continuous integration runs this behind everything else.
STEP_SECONDS_MAX = 1800
KNOWN = {
    "FROM", "RUN", "COPY", "WORKDIR", "ARG", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD",
}


def fail(text):
    sys.exit(f"dockerfile.py: {text}")


def instructions(path):
    """Pairs of a word and what stands behind it; lines that end in a backslash go on."""
    text = "".join(line for line in open(path) if not line.lstrip().startswith("#"))
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word not in KNOWN:
                fail(f"{word} is not known here")
            yield word, rest.strip()


def is_ignored(path, patterns):
    """The last pattern that matches the path, or a folder above it, decides (.dockerignore)."""
    ignored = False
    parts = path.split("/")
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    for pattern in patterns:
        wanted = pattern.lstrip("!")
        names = [wanted, wanted.removeprefix("**/")] if wanted.startswith("**/") else [wanted]
        hits = any(fnmatch.fnmatchcase(part, name) for part in above for name in names) or (
            wanted.startswith("**/") and names[1] in parts
        )
        if hits:
            ignored = not pattern.startswith("!")
    return ignored


def context_files(context, dockerfile):
    patterns = [line.strip() for line in open(f"{dockerfile}.dockerignore") if line.strip() and not line.startswith("#")]
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", context, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    ).stdout.split("\0")
    files = [path for path in listed if path and os.path.isfile(f"{context}/{path}")]
    return [path for path in files if not is_ignored(path, patterns)]


class Stage:
    def __init__(self, place, name):
        self.below = f"{place}/{name}"
        self.name, self.root = name, f"{place}/{name}/root"
        self.folder, self.user, self.env, self.meta = "/", None, {}, {}
        overlay("/", self.below, self.root)
        mount("-t", "proc", "proc", f"{self.root}/proc")
        mount("--rbind", "/dev", f"{self.root}/dev")
        # What the image does not have.
        for left in ("/usr/local/bin/fanfare", "/out", "/src"):
            subprocess.run(["rm", "-rf", self.root + left], check=True)

    def inside(self, path):
        return os.path.normpath(os.path.join(self.folder, path))

    def command(self, words):
        drop = []
        if self.user:
            user, _, group = self.user.partition(":")
            drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
        return ["chroot", self.root, *drop, *words]

    def environment(self):
        # Where cargo builds outside is nothing to what is built inside.
        return {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"} | self.env


def mount(*words):
    subprocess.run(["mount", *words], check=True)


def overlay(lower, place, root):
    """A folder as it is, at another place; its changes go to folders of that place."""
    for folder in (f"{place}/upper", f"{place}/work", root):
        os.makedirs(folder)
    mount("-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work", root)


def copy(stage, rest, stages, context, files):
    words = shlex.split(rest)
    source_stage = None
    if words[0].startswith("--from="):
        source_stage = stages[words.pop(0).removeprefix("--from=")]
    *sources, to = words
    for source in sources:
        target = stage.inside(to)
        if source_stage:
            pairs = [(f"{source_stage.root}{source}", target)]
        elif source == ".":
            pairs = [(f"{context}/{path}", f"{target}/{path}") for path in files]
        else:
            if source not in files:
                fail(f"COPY {source}: not in the context")
            pairs = [(f"{context}/{source}", target)]
        for old, new in pairs:
            new = stage.root + new
            os.makedirs(os.path.dirname(new), exist_ok=True)
            shutil.copy2(old, new)
        print(f"COPY {source} {to}: {len(pairs)} files", flush=True)


def run(stage, rest):
    print(f"RUN {rest}", flush=True)
    folder = shlex.quote(stage.folder)
    words = stage.command(["sh", "-c", f"cd {folder} && {rest}"])
    done = subprocess.run(
        words, env=stage.environment(), timeout=STEP_SECONDS_MAX, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )
    print("".join(f"  {line}\n" for line in done.stdout.splitlines()[-3:]), end="", flush=True)
    if done.returncode:
        fail(f"RUN {rest}: exit code {done.returncode}\n{done.stdout[-4000:]}")


def build(place, dockerfile, context, target, args):
    stages, stage = {}, None
    files = context_files(context, dockerfile)
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            _image, _, name = rest.partition(" AS ")
            stage = stages[name or "image"] = Stage(place, name or "image")
        elif word == "RUN":
            run(stage, rest)
        elif word == "COPY":
            copy(stage, rest, stages, context, files)
        elif word == "WORKDIR":
            stage.folder = stage.inside(rest)
            os.makedirs(stage.root + stage.folder, exist_ok=True)
            lend_target(stage, target)
        elif word == "ARG":
            name, _, default = rest.partition("=")
            stage.env[name] = args.get(name, default)
        elif word == "ENV":
            stage.env.update(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "USER":
            stage.user = rest
        else:
            stage.meta[word] = rest
    return stages["image"]


def lend_target(stage, target):
    """What cargo has built of the dependencies."""
    overlay(target, f"{stage.below}/target", f"{stage.root}{stage.folder}/target")


def use(image):
    """Starts the image's program as Docker would, checks its health check, and stops it."""
    if not image.user or image.user.split(":")[0] in ("0", "root"):
        fail("the image runs as root")
    mount("-o", "remount,ro", image.root)
    program = json.loads(image.meta["ENTRYPOINT"])
    default = json.loads(image.meta["CMD"])
    health = json.loads(re.search(r"\bCMD\s+(\[.*\])$", image.meta["HEALTHCHECK"]).group(1))
    server = subprocess.Popen(
        image.command([*program, *default, "--listen", "127.0.0.1:0", "--reactors", "1"]), env=image.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )
    try:
        line = server.stdout.readline()
        port = re.search(r"listening on http://127\.0\.0\.1:(\d+)/", line)
        if not port:
            fail(f"the server says {line!r}")

        def healthy(port):
            env = {**image.environment(), "FANFARE_HEALTH_PORT": port}
            done = subprocess.run(image.command(health), env=env, timeout=60, capture_output=True, text=True)
            return done.returncode == 0

        if not healthy(port[1]):
            fail("the health check does not see a server that serves")
        os.kill(server.pid, signal.SIGSTOP)
        if healthy(port[1]):
            fail("the health check takes a server that stands still for a good one")
        os.kill(server.pid, signal.SIGCONT)
        os.kill(server.pid, getattr(signal, image.meta["STOPSIGNAL"]))
        if server.wait(timeout=60):
            fail(f"the server ended with {server.returncode} at {image.meta['STOPSIGNAL']}")
        if healthy(port[1]):
            fail("the health check takes no server for a good one")
    finally:
        server.kill()
        server.wait()
    print("the image's program serves, is checked, and ends")


def main():
    dockerfile, context, target, *pairs = sys.argv[1:]
    if os.geteuid() != 0:
        fail("needs root, for mounts and chroot")
    os.makedirs(target, exist_ok=True)
    if "FANFARE_MOUNTS" not in os.environ:
        # Mounts of its own, which end with it.
        words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, *sys.argv]
        os.execvpe("unshare", words, {**os.environ, "FANFARE_MOUNTS": "own"})
    del os.environ["FANFARE_MOUNTS"]
    # A folder of the disk: an overlay's upper one cannot be on another overlay, so it gets a file system in memory.
    place = tempfile.mkdtemp(prefix="fanfare-dockerfile-")
    mount("-t", "tmpfs", "tmpfs", place)
    try:
        use(build(place, os.path.abspath(dockerfile), os.path.abspath(context), os.path.abspath(target), dict(
            pair.split("=", 1) for pair in pairs
        )))
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", place], check=True)
        os.rmdir(place)


main()
