"""The comparison with Centrifugo as JSON and as a Markdown page."""

import json
from dataclasses import dataclass, field

import report
from report import middle, number

LABELS = {"fanfare": "fanfare", "centrifugo": "Centrifugo", "centrifugo-small": "Centrifugo, small buffers"}
LESS_IS_BETTER = ("_us", "_us_each", "_bytes", "_bytes_each", "_by_calm")
# How h2load asks, by the word in a row's arguments: connections, and requests under way on each.
H2LOAD = {"h1": ["--h1", "-c", "64", "-m", "1"], "h2": ["-c", "1", "-m", "64"]}
NOT_MEASURED = "not measured"

FIGURES = {
    "deliveries_per_s": "deliveries/s",
    "connections_per_s": "connections/s",
    "resumes_per_s": "clients/s",
    "publishes_per_s": "publishes/s",
    "server_cpu_us_each": "CPU of one, µs",
    "received_bytes_each": "bytes of a delivery",
    "each_connection_bytes": "bytes",
    "p50_us": "p50, µs",
    "p99_us": "p99, µs",
    "calm_p99_us": "p99 in calm, µs",
    "beside_p99_us": "p99 beside, µs",
    "p99_beside_by_calm": "p99 beside, by the calm one",
}


@dataclass
class Row:
    """One thing that is measured. `kind` says how: by the generator, through the API, beside batches, on two nodes."""

    name: str
    title: str
    arguments: str
    smoke: str
    figures: list[str]
    kind: str = "bench"
    tokens: bool = True
    history: bool = False
    deflate: bool = False
    servers: list[str] = field(default_factory=lambda: ["fanfare", "centrifugo"])


def write(folder, facts, rows, new, configurations):
    """Puts what a run has found in place of what was known of its rows, and writes all."""
    path = folder / "centrifugo.json"
    known = json.loads(path.read_text()) if path.exists() and not facts["smoke"] else {"runs": [], "results": {}}
    results = {**known["results"], **new}
    for run in known["runs"]:
        run["rows"] = [name for name in run["rows"] if name not in new]
    runs = [run for run in [*known["runs"], facts] if run["rows"]]
    path.write_text(json.dumps({"runs": runs, "results": results}, indent=1) + "\n")
    lines = head(runs, facts["smoke"]) + table(rows, results) + ahead(rows, results) + doubts(rows, results)
    lines += reading() + rows_as_commands(rows, facts["smoke"]) + shown(configurations)
    (folder / "centrifugo.md").write_text("\n".join(lines) + "\n")


def head(runs, is_smoke):
    lines = ["# Beside Centrifugo", "", "Written by `benches/compare/centrifugo`. [README.md](README.md) says how to read "
             "figures of this kind.", ""]
    if not runs:
        return lines + ["Nothing is measured yet: the command above does it.", ""]
    if is_smoke:
        lines += ["A smoke run: it proves that the comparison runs, and its figures mean nothing.", ""]
    for run in runs:
        lines.append(f"- {', '.join(f'`{name}`' for name in run['rows'])}: `{run['command']}`, {run['date']}; {run['cpu']}; "
                     f"{run['kernel']}; load before: {run['load_before']}; {run['versions']}; {run['rounds']} rounds of "
                     f"{run['seconds']:g} s")
    return lines + ["", "Servers take turns in each round; each is alone on core 0, its clients on core 1. On two nodes both share "
                    "core 0, and Redis is on the clients' core.", ""]


def is_less_better(figure):
    return figure.endswith(LESS_IS_BETTER)


def times_as_good(row, results, figure, other="centrifugo"):
    """How many times as good as the other fanfare is: the median of the rounds' own ratios."""
    by_server = results.get(row.name, {})
    return report.ratio(by_server.get("fanfare", []), by_server.get(other, []), figure, is_less_better(figure))


def cell(value):
    return NOT_MEASURED if value is None else number(value)


def pair(ours, theirs, figure):
    return f"{number(middle(ours, figure))} / {number(middle(theirs, figure))}" if ours or theirs else "–"


def table(rows, results):
    heads = ["figure", "fanfare", "Centrifugo", "×", "CPU µs, fanfare", "CPU µs, Centrifugo", "server busy %",
             "clients busy %"]
    lines = ["× says how many times as good fanfare is: below 1, Centrifugo is ahead. CPU is the server's for each delivery, "
             "connection, client that comes back, or publish. Of two values with a slash fanfare's is the first.", "",
             "| row | " + " | ".join(heads) + " |", "| --- | --- |" + " ---: |" * (len(heads) - 1)]
    for row in rows:
        by_server = results.get(row.name, {})
        for others in row.servers[1:]:
            ours, theirs = by_server.get("fanfare", []), by_server.get(others, [])
            for figure in row.figures:
                cells = [FIGURES[figure], cell(middle(ours, figure)), cell(middle(theirs, figure)),
                         cell(times_as_good(row, results, figure, others)),
                         number(middle(ours, "server_cpu_us_each")), number(middle(theirs, "server_cpu_us_each")),
                         pair(ours, theirs, "server_busy_percent"), pair(ours, theirs, "generator_busy_percent")]
                what = row.title if others == "centrifugo" else f"the same, {LABELS[others]}"
                lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return lines + [""]


def ahead(rows, results):
    """Where Centrifugo is better."""
    lines = ["## Where Centrifugo is ahead", ""]
    found, missing = [], []
    for row in rows:
        for figure in row.figures:
            ratio = times_as_good(row, results, figure)
            if ratio is None:
                missing.append(row.name)
            elif ratio < 1:
                found.append(f"- {row.title}: {FIGURES[figure]}, {number(1 / ratio)} times as good as fanfare")
    if len(missing) < sum(len(row.figures) for row in rows):
        lines += [*(found or ["In none of the rows that were measured."]), ""]
    if missing:
        lines += ["Not known of: " + ", ".join(f"`{name}`" for name in dict.fromkeys(missing)) + ".", ""]
    return lines


def doubts(rows, results):
    """Which runs failed, and what the generator warned of, in which rows and how many rounds of them."""
    lines, warned = [], {}
    for row in rows:
        for server, runs in results.get(row.name, {}).items():
            failed = [run for run in runs if run["exit_code"] != 0]
            if failed:
                what = failed[0].get("error") or ", ".join(failed[0].get("faults", {}).get("told", [])[:2])
                lines.append(f"- `{row.name}`, {LABELS[server]}: {len(failed)} of {len(runs)} runs failed: "
                             + " ".join(what.split()).replace("|", "\\|")[:300])
            for warning in dict.fromkeys(warning for run in runs for warning in run.get("warnings", [])):
                count = sum(warning in run.get("warnings", []) for run in runs)
                warned.setdefault(warning, []).append(f"`{row.name}` {LABELS[server]} ({count} of {len(runs)} rounds)")
    lines += [f"- {warning[0].upper()}{warning[1:]}: {', '.join(where)}." for warning, where in warned.items()]
    return ["## Doubts", "", *lines, ""] if lines else []


def reading():
    return """## What is compared

- Contents are the same for both, byte for byte; each server puts its own envelope around them. With fanfare's a message has
  128 bytes, in the rows on compression 512 and 4,096. Centrifugo's names the channel, and the publisher's user and client id.
- Every delivery is checked. Centrifugo puts several messages into one frame when it is busy: messages are counted, not
  frames. Its pings are answered.
- Both check tokens (HS256, the same secret) in every row but `connect`. A publisher of fanfare has to be a member of its
  rooms, and is not sent its own messages; one of Centrifugo may publish without, and is answered each publish.
- A compressed frame of Centrifugo may hold several messages, so the generator inflates all of them; of fanfare's it inflates
  some. That is work of the generator, on its own core: compare CPU where it was the busier one.
- API rows publish 64 bytes of JSON into 1,000 rooms, or into one by single publishes, and nobody is in these rooms. That
  each publish of a batch is taken is checked once before each run; statuses are checked throughout.
- `api-beside` is the latency of the subscribers in calm, and again while a client sends one batch of 10,000 publishes each
  second into rooms that nobody is in.
- What is aimed at: twice Centrifugo's rate of single API publishes, five times its rate in batches, and beside a large batch
  a p99 of at most twice the calm one.
- Not compared, since Centrifugo has no such thing: messages from one user to another by their ids.
""".splitlines() + [""]


def rows_as_commands(rows, smoke):
    lines = ["## Rows", "", "| row | what runs |", "| --- | --- |"]
    for row in rows:
        arguments = row.smoke if smoke else row.arguments
        what = f"`fanfare bench {arguments}`"
        if row.kind == "api":
            method, client = arguments.split()
            what = f"`h2load {' '.join(H2LOAD[client])} -d BODY http://ADDRESS/…/{method}`"
        more = {"nodes": ", publishers at the other node", "beside": ", and h2load with one batch a second"}
        lines.append(f"| `{row.name}` | {what}{more.get(row.kind, '')} |")
    return lines + [""]


def shown(configurations):
    lines = ["## Configuration", "", "Centrifugo's is what its `genconfig` writes (without the admin page), and what its "
             "documentation tells for the row: permissions of channels, history with `force_recovery`, `websocket.compression`, "
             "the small buffers of its page on WebSocket, the Redis engine. Go takes its number of threads from the one core it "
             "may run on. Address and port are added.", ""]
    for entry in configurations:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(entry["rows"]))
        is_json = entry["server"] != "fanfare"
        lines += [f"{LABELS[entry['server']]}, {names}:", "", "```json" if is_json else "```sh",
                  *entry["text"].splitlines(), "```", ""]
    return lines[:-1]
