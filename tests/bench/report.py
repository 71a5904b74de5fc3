"""Tables of what was measured."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from .contestants import ALONE

Row = Dict[str, Any]
Columns = Dict[str, str]
WHO = {"who": "", "road": "road", "connections": "conn"}

#: title, columns, and which figures are compared, with the words for that
TABLES: Dict[str, Tuple[str, Columns, Columns]] = {
    "start": (
        "Start (median of many, in turn)",
        {"who": "", "start_ms": "to the first ok, ms", "first_ms": "first answer, ms", "idle_mib": "idle MiB"},
        {"start_ms": "start", "idle_mib": "idle"},
    ),
    "requests": (
        "Requests (1 KB chat in, 1 KB answer, kept alive)",
        {
            **WHO,
            "per_s": "req/s",
            "p50_ms": "p50 ms",
            "added_p50_ms": "added",
            "p99_ms": "p99 ms",
            "cpu_us": "CPU us/req",
        },
        {"per_s": "rate", "cpu_us": "CPU", "p99_ms": "p99"},
    ),
    "waits": (
        "Requests that the upstream takes 50 ms for",
        {
            **WHO,
            "per_s": "req/s",
            "share": "of upstream",
            "p50_ms": "p50 ms",
            "p99_ms": "p99 ms",
            "cpu_us": "CPU us/req",
        },
        {"per_s": "rate", "cpu_us": "CPU", "p99_ms": "p99"},
    ),
    "streams": (
        "Streams (first word of 3; chunks of 200, as fast as they come)",
        {
            **WHO,
            "first_p50_ms": "first word p50 ms",
            "added_first_p50_ms": "added",
            "first_p99_ms": "p99 ms",
            "words_per_s": "chunks/s",
            "cpu_us": "CPU us/chunk",
        },
        {"words_per_s": "rate", "cpu_us": "CPU", "first_p50_ms": "first"},
    ),
    "slow": (
        "Slow streams (a chunk each second; delays beyond the time it was sent)",
        {
            **WHO,
            "complete": "complete",
            "delay_p50_ms": "extra p50 ms",
            "delay_p99_ms": "p99 ms",
            "stream_kib": "KiB/stream",
            "cpu_us": "CPU us/chunk",
        },
        {"delay_p99_ms": "p99", "stream_kib": "memory", "cpu_us": "CPU"},
    ),
    "idle": (
        "Idle connections, and 16 that are not",
        {
            **WHO,
            "answered": "were opened",
            "still": "still open",
            "rss_mib": "RSS MiB",
            "each_kib": "KiB each",
            "per_s": "req/s",
            "p50_ms": "p50 ms",
            "p99_ms": "p99 ms",
        },
        {"per_s": "rate", "each_kib": "memory", "p99_ms": "p99"},
    ),
    "memory": (
        "Memory",
        {
            "who": "",
            "idle_mib": "idle MiB",
            "loaded_mib": "after all that load, MiB",
            "helpers_mib": "beside, for programs, MiB",
        },
        {"loaded_mib": "loaded"},
    ),
    "heads": (
        "Reading heads (one thread)",
        {
            "what": "head of a request",
            "fields": "fields",
            "bytes": "bytes",
            "ours_us": "strict, us",
            "theirs_us": "http.server, us",
            "ratio": "ratio",
        },
        {},
    ),
    "programs": (
        "Programs (request to answer, in turn)",
        {"what": "add(1, 2)", "median_ms": "median ms", "best_ms": "best ms", "of_bare": "of bare Python"},
        {},
    ),
    "mixed": ("Mixed requests", {"what": "", "before": "before", "after": "after", "more": "more"}, {}),
}


def compared(rows: List[Row], keys: Columns, peer: str = "") -> List[Row]:
    """Add to the rows what they are of those they are compared with, and of a peer's on whatever road it has."""
    seen = {(row.get("who"), row.get("road"), row.get("connections")): row for row in rows}
    peers = {row.get("connections"): row for row in rows if row.get("who") == peer}
    told = []
    for row in rows:
        of = seen.get((row.get("of"), row.get("road"), row.get("connections")), {})
        more = {f"of_{key}": ratio(row, of, key) for key in keys}
        first = next(iter(keys), "")
        more[f"peer_{first}"] = ratio(row, peers.get(row.get("connections"), {}), first)
        told.append({**row, **{key: value for key, value in more.items() if value is not None}})
    return told


def ratio(row: Row, of: Row, key: str) -> Any:
    mine, other = row.get(key), of.get(key)
    return round(mine / other, 3) if isinstance(mine, (int, float)) and other else None


def columns(name: str, rows: List[Row], rev: str, peer: str) -> Columns:
    """Give the columns of a table: those it always has, and the ratios that there are."""
    _, always, keys = TABLES[name]
    first = next(iter(keys), "")
    ratios = {f"of_{key}": f"{word}/{rev}" for key, word in keys.items()}
    ratios[f"peer_{first}"] = f"{keys.get(first, '')}/{peer}"
    return {**always, **{key: word for key, word in ratios.items() if any(key in row for row in rows)}}


def table(title: str, heads: Columns, rows: List[Row]) -> None:
    """Print rows under headings; `heads` maps a key of a row to its heading."""
    cells = [list(heads.values()), *([said(row.get(key)) for key in heads] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(heads))]
    texts = [at for at, key in enumerate(heads) if key in ("who", "road", "what", "where")]
    print(f"\n{title}")
    for line in cells:
        padded = [cell.ljust(w) if at in texts else cell.rjust(w) for at, (cell, w) in enumerate(zip(line, widths))]
        print("  " + "  ".join(padded).rstrip())
    for row in rows:
        for reason in row.get("wrong", ()):
            print(f"  went wrong ({label(row)}): {reason.strip()[:300]}")


def label(row: Row) -> str:
    return ", ".join(str(row[key]) for key in ("who", "what", "road", "connections") if row.get(key))


def said(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def part(name: str, result: Row, rev: str = "", peer: str = "") -> None:
    """Print one part."""
    title, _, keys = TABLES[name]
    rows = compared(result["rows"], keys, peer)
    table(title, columns(name, rows, rev, peer), rows)
    if "noise" in result:
        noise = result["noise"]
        spread = f"{noise['min']:,} / {noise['median']:,} / {noise['max']:,}"
        print(f"  upstream alone at 64 connections, meanwhile: min / median / max {spread} req/s")
    if name == "requests":
        bottleneck(rows)
    if name == "mixed":
        print(f"  {result['requests']:,} requests, {result['per_s']:,}/s, from {len(result['kinds'])} kinds")
        for reason in result["wrong"]:
            print(f"  went wrong: {reason[:300]}")


def bottleneck(rows: List[Row]) -> None:
    """Say by how much the upstream (with the client) could have done more than was asked of it."""
    of = {(row["who"], row["road"], row["connections"]): row["per_s"] for row in rows}
    most = max(n for _, _, n in of)
    alone = of[(ALONE, "", most)]
    fastest = max((rate for (who, _, n), rate in of.items() if n == most and who != ALONE), default=0)
    told = f"{alone / fastest:.1f} times what the fastest asked of it" if fastest else "nothing came through"
    print(f"  the upstream did {alone:,}/s alone at {most} connections: {told}")


def profile(rows: List[Row], top: int) -> None:
    """Print where the time goes."""
    for row in rows:
        what = f"{row['road']}, {'streamed' if row['stream'] else 'whole'}"
        unit = "chunk" if row["stream"] else "request"
        threads = ", ".join(f"{name} {share:.0%}" for name, share in row["threads"].items())
        seen = f"{row['samples']} samples, {row['seconds']} s of CPU, {row['per_s']:,} {unit}s/s"
        print(f"\n{what}: {seen}; threads: {threads}")
        pairs = zip(row["own"][:top], row["total"][:top])
        lines = [
            {"own": f"{own['share']:.1%}", "where": own["where"], "with": f"{all_['share']:.1%}", "what": all_["where"]}
            for own, all_ in pairs
        ]
        table("by function", {"own": "itself", "where": "", "with": "with callees", "what": ""}, lines)
        if row["perf"]:
            lines = [{"own": f"{one['share']:.1%}", "where": one["where"]} for one in row["perf"]]
            table("by perf", {"own": "", "where": ""}, lines)
        if row["calls"]:
            calls = ", ".join(f"{name} {each}" for name, each in list(row["calls"].items())[:12])
            print(f"\nsystem calls per {unit}: {sum(row['calls'].values()):.2f}: {calls}")
