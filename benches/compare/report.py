"""Results as JSON, as a Markdown page, and as a chart."""

import json
from dataclasses import dataclass
from html import escape
from statistics import median

LABELS = {
    "floor-message": "floor: a send per message",
    "floor-turn": "floor: a send per turn",
    "fanfare": "fanfare",
    "fanfare-uring": "fanfare on io_uring",
    "before": "fanfare before",
    "bun": "Bun",
    "ws-tuned": "ws, tuned",
    "ws-tutorial": "ws, as in tutorials",
    "fanfare-hs256": "fanfare, HS256",
    "fanfare-es256": "fanfare, ES256",
    "fanfare-eddsa": "fanfare, EdDSA",
    "centrifugo": "Centrifugo, HS256",
    "fanfare-tls": "fanfare, TLS",
    "nginx-tls": "nginx with TLS, fanfare behind it",
}
COLOURS = {
    "floor-message": "#9aa0a6",
    "floor-turn": "#5f6368",
    "fanfare": "#d93025",
    "fanfare-uring": "#a142f4",
    "before": "#e8a09a",
    "bun": "#1a73e8",
    "ws-tuned": "#188038",
    "ws-tutorial": "#f9ab00",
}
PEERS = ["bun", "ws-tuned", "ws-tutorial"]

# Behind the name of a workload with compression: its runs without.
PLAIN = "-plain"


@dataclass
class Workload:
    name: str
    title: str
    arguments: str
    smoke: str
    floor: str | None
    figures: list[str]
    less_is_better: bool = False
    deflate: bool = False
    login: bool = False
    tls: bool = False
    path: str = ""


def write(folder, facts, workloads, results):
    (folder / "results.json").write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
    (folder / "results.md").write_text(markdown(facts, workloads, results))
    (folder / "results.svg").write_text(chart(facts, workloads, results))


def values(runs, figure):
    """The figure of each round, None where a run failed."""
    return [run.get("median", {}).get(figure) if run["exit_code"] == 0 else None for run in runs]


def ratio(runs, reference, figure, less_is_better):
    """How many times as good as the reference: the median of the rounds' own ratios, None where there are none."""
    pairs = zip(values(runs, figure), values(reference, figure))
    ratios = [(theirs / ours if less_is_better else ours / theirs) for ours, theirs in pairs if ours and theirs]
    return median(ratios) if ratios else None


def middle(runs, figure):
    found = [value for value in values(runs, figure) if value is not None]
    return median(found) if found else None


def markdown(facts, workloads, results):
    lines = ["# Benchmark results", ""]
    if facts["smoke"]:
        lines += ["A smoke run: it proves that the comparison runs, and its figures mean nothing.", ""]
    lines += [
        f"- Command: `{facts['command']}`",
        f"- Date: {facts['date']}",
        f"- Machine: {facts['cpu']}; {facts['kernel']}; load before: {facts['load_before']}",
        f"- Versions: {facts['versions']}",
        f"- {facts['rounds']} rounds of {facts['seconds']:g} s, servers in turn; each server alone on core 0, the load "
        "generator on core 1",
        "",
        "A ratio is the median of the ratios within each round. Above 1 the server is better than what it is compared "
        "with, also where less is better. CPU is the server's, for each delivery (for connecting: each connection); its "
        "ratio says how many times as much it is as the floor's. *Waited* is the time the server was ready and something "
        "else had its core: where it is more than a little, rates say less than CPU.",
        "",
        "![How each server compares with the floor](results.svg)",
    ]
    for workload in workloads:
        by_server = results.get(workload.name, {})
        for figure in workload.figures:
            arguments = workload.smoke if facts["smoke"] else workload.arguments
            if workload.deflate:
                lines += deflate_table(workload, figure, by_server, results.get(workload.name + PLAIN, {}), arguments)
            elif workload.login:
                lines += login_table(workload, by_server, arguments)
            elif workload.tls:
                lines += tls_table(workload, figure, by_server, arguments)
            else:
                lines += table(workload, figure, by_server, arguments)
    return "\n".join(lines) + "\n"


def table(workload, figure, by_server, arguments):
    peers = [peer for peer in PEERS if peer in by_server]
    floor = by_server.get(workload.floor, [])
    heads = [figure] + (["× floor"] if floor else []) + [f"× {LABELS[peer]}" for peer in peers]
    heads += ["CPU × floor"] if floor else []
    heads += ["CPU µs", "user µs", "server busy %", "generator busy %", "waited %"]
    lines = ["", f"## {workload.title[0].upper()}{workload.title[1:]}", ""]
    if len(workload.figures) > 1:
        lines[1] += f": {figure}"
    if floor:
        lines += [f"`fanfare bench {arguments}`; the floor is the one with "
                  f"{LABELS[workload.floor].removeprefix('floor: ')}.", ""]
    else:
        lines += [f"`fanfare bench {arguments}`", ""]
    lines += ["| server | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for server in [name for name in LABELS if name in by_server]:
        runs = by_server[server]
        cells = [number(middle(runs, figure))]
        for reference in ([floor] if floor else []) + [by_server[peer] for peer in peers]:
            cells.append(number(ratio(runs, reference, figure, workload.less_is_better)))
        if floor:
            cpu_ratio = ratio(floor, runs, "server_cpu_us_each", less_is_better=True)
            cells.append(number(cpu_ratio and 1 / cpu_ratio))
        for cpu in ["server_cpu_us_each", "server_user_us_each", "server_busy_percent", "generator_busy_percent",
                    "server_waited_percent"]:
            cells.append(number(middle(runs, cpu)))
        lines.append(f"| {named(server, runs)} | " + " | ".join(cells) + " |")
    return lines + doubts(by_server)


def login_table(workload, by_server, arguments):
    """CPU of a login by the kind of token, beside that of one without, and Centrifugo's."""
    cpu = "server_cpu_us_each"
    plain, peer = by_server.get("fanfare", []), by_server.get("centrifugo", [])
    heads = ["CPU µs", "user µs", "more than without tokens, µs", "CPU × Centrifugo", "logins_per_s", "server busy %",
             "generator busy %", "waited %"]
    lines = ["", f"## {workload.title[0].upper()}{workload.title[1:]}", "",
             f"`fanfare bench {arguments}`, with a token of its own for each connection; CPU of the server's process for a "
             "login: accepted, upgraded, its token checked, welcomed, in its room.", "",
             "| server | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for server in [name for name in LABELS if name in by_server]:
        runs = by_server[server]
        pairs = [(own, other) for own, other in zip(values(runs, cpu), values(plain, cpu)) if own and other]
        more = median(own - other for own, other in pairs) if pairs and server.startswith("fanfare-") else None
        by_peer = ratio(peer, runs, cpu, less_is_better=True) if server.startswith("fanfare") else None
        cells = [middle(runs, cpu), middle(runs, "server_user_us_each"), more, by_peer]
        cells += [middle(runs, figure) for figure in ["connections_per_s", "server_busy_percent",
                                                      "generator_busy_percent", "server_waited_percent"]]
        label = "fanfare, without tokens" if server == "fanfare" else named(server, runs)
        lines.append(f"| {label} | " + " | ".join(number(cell) for cell in cells) + " |")
    return lines + doubts(by_server)


def tls_table(workload, figure, by_server, arguments):
    """TLS beside the same without, and beside nginx's. The CPU of nginx's row is nginx's alone."""
    heads = [figure, "× without TLS", "× nginx", "CPU µs", "user µs", "server busy %", "generator busy %", "waited %"]
    lines = ["", f"## {workload.title[0].upper()}{workload.title[1:]}", "",
             f"`fanfare bench {arguments}`; nginx and the fanfare behind it share the server's core, and the CPU in its row "
             "is nginx's alone.", "", "| server | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for server in [name for name in LABELS if name in by_server]:
        runs = by_server[server]
        cells = [middle(runs, figure)]
        for reference in ["fanfare", "nginx-tls"]:
            cells.append(ratio(runs, by_server.get(reference, []), figure, workload.less_is_better))
        cells += [middle(runs, cpu) for cpu in ["server_cpu_us_each", "server_user_us_each", "server_busy_percent",
                                                "generator_busy_percent", "server_waited_percent"]]
        label = "fanfare, without TLS" if server == "fanfare" else named(server, runs)
        lines.append(f"| {label} | " + " | ".join(number(cell) for cell in cells) + " |")
    return lines + doubts(by_server)


def deflate_table(workload, figure, compressed, plain, arguments):
    """Compressed runs beside the same servers' plain ones."""
    peers = [peer for peer in PEERS if peer in compressed]
    heads = [figure, "plain", "× own plain"] + [f"× {LABELS[peer]}" for peer in peers]
    heads += ["bytes each", "plain bytes each", "compressed %", "CPU µs", "plain CPU µs", "server busy %",
              "generator busy %", "waited %"]
    lines = ["", f"## {workload.title[0].upper()}{workload.title[1:]}", "",
             f"`fanfare bench {arguments} --deflate`, and in the same round `fanfare bench {arguments}`: the same "
             "messages without compression.", "",
             "| server | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for server in [name for name in LABELS if name in compressed]:
        runs, own = compressed[server], plain.get(server, [])
        cells = [middle(runs, figure), middle(own, figure)]
        for reference in [own] + [compressed[peer] for peer in peers]:
            cells.append(ratio(runs, reference, figure, workload.less_is_better))
        cells += [middle(runs, "received_bytes_each"), middle(own, "received_bytes_each"),
                  middle(runs, "compressed_percent"), middle(runs, "server_cpu_us_each"),
                  middle(own, "server_cpu_us_each")]
        cells += [middle(runs, cpu) for cpu in ["server_busy_percent", "generator_busy_percent",
                                                "server_waited_percent"]]
        lines.append(f"| {named(server, runs + own)} | " + " | ".join(number(cell) for cell in cells) + " |")
    return lines + doubts(compressed) + doubts(plain, " without compression")


def named(server, runs):
    failed = sum(run["exit_code"] != 0 for run in runs)
    return LABELS[server] + (f" ({failed} of {len(runs)} runs failed)" if failed else "")


def doubts(by_server, what=""):
    """What the generator warned of, and in how many rounds."""
    lines = []
    for server in [name for name in LABELS if name in by_server]:
        runs = by_server[server]
        for warning in dict.fromkeys(warning for run in runs for warning in run.get("warnings", [])):
            count = sum(warning in run.get("warnings", []) for run in runs)
            lines.append(f"- {LABELS[server]}{what}, {count} of {len(runs)} rounds: {warning}")
    return ["", *lines] if lines else []


def number(value):
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def chart(facts, workloads, results):
    """Bars of the ratio to the floor, workload by workload."""
    left, width, row, gap, top = 300, 460, 16, 30, 60
    full = 1.25
    parts, y = [], top
    for workload in workloads:
        by_server = results.get(workload.name, {})
        floor = by_server.get(workload.floor)
        if not floor:
            continue
        for figure in workload.figures:
            title = workload.title + (f", {figure.removesuffix('_us')}" if len(workload.figures) > 1 else "")
            parts.append(f'<text x="10" y="{y + 4}" class="title">{escape(title)}</text>')
            y += 12
            for server in [name for name in LABELS if name in by_server and name != workload.floor]:
                value = ratio(by_server[server], floor, figure, workload.less_is_better)
                length = min(value or 0, full) / full * width
                parts.append(
                    f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(LABELS[server])}</text>'
                    f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="{row - 4}" fill="{COLOURS[server]}"/>'
                    f'<text x="{left + length + 6:.1f}" y="{y + 12}">{number(value)}</text>'
                )
                y += row
            y += gap
    one = left + width / full
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {y}" font-family="sans-serif" font-size="12">
<style>.title {{ font-weight: bold; }}</style>
<rect width="860" height="{y}" fill="#fff"/>
<text x="10" y="22" font-size="16" class="title">Times the floor (more is better)</text>
<text x="10" y="40" fill="#5f6368">{escape(facts['cpu'])}, {escape(facts['kernel'])}, {escape(facts['date'])}</text>
<line x1="{one:.1f}" y1="48" x2="{one:.1f}" y2="{y - 8}" stroke="#000" stroke-dasharray="3 3"/>
{chr(10).join(parts)}
</svg>
"""
