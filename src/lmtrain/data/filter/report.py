"""What was seen, kept and dropped, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmtrain.config.commands.filter import RULES
from lmtrain.core.console import amount, counted, duration
from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_json
from lmtrain.data.filter.account import Account, Count
from lmtrain.data.filter.state import State

Report = dict[str, Any]


def report_of(
    state: State, names: Sequence[str], output: Path, form: str, duplicates: dict[str, Any] | None, processes: int
) -> Report:
    """The report of a finished filter; ``names`` are those of the sources."""
    total = state.total
    shards = [
        {"name": name, "documents": shard.documents, "bytes": (output / name).stat().st_size}
        for shard in state.shards
        for name in [shard.name(form)]  # type: ignore[arg-type]
    ]
    return {
        **total.as_json(),
        "sources": [{"name": name, **account.as_json()} for name, account in zip(names, state.accounts, strict=True)],
        "duplicates": duplicates,
        "output": str(output),
        "format": form,
        "shards": shards,
        "seconds": round(state.seconds, 3),
        "bytes_per_second": round(total.seen.bytes / max(1e-9, state.seconds)),
        "processes": processes,
        "settings": state.settings,
        "settings_hash": sha256_json(state.settings),
    }


def lines(report: Report) -> list[str]:
    """The report as lines of text."""
    account = Account.from_json({key: report[key] for key in ("seen", "kept", "dropped", "skipped", "found")})
    seen, kept = account.seen, account.kept
    rows = [("seen", _said(seen)), ("kept", f"{_said(kept)}: {_shares(kept, seen)}")]
    if len(report["sources"]) > 1:
        for source in report["sources"]:
            part = Account.from_json({key: source[key] for key in ("seen", "kept", "dropped", "skipped", "found")})
            rows.append(("", f"{source['name']}: {_said(part.kept)} of {_said(part.seen)}"))
    for rule in sorted(account.dropped, key=_order):
        count = account.dropped[rule]
        rows.append((_rule(rule), f"dropped {_said(count)}: {_shares(count, seen)}"))
    if account.found:
        found = ", ".join(f"{word!r} {number:,}" for word, number in account.found.most_common())
        rows.append(("found in", found))
    rows += [("passed over", f"{number:,} × {reason}") for reason, number in sorted(account.skipped.items())]
    if (duplicates := report["duplicates"]) and duplicates["removed"]:
        rows.append(("duplicates", f"{counted(duplicates['groups'], 'group')}, the largest of "
                                   f"{counted(duplicates['largest_group'], 'document')}"))  # fmt: skip
        rows += [
            ("", f"{sample['dropped']} is {_like(sample)} {sample['kept']}") for sample in duplicates["samples"][:3]
        ]
    size = sum(shard["bytes"] for shard in report["shards"])
    rows.append(("written", f"{counted(len(report['shards']), 'shard')} in {report['output']}, {amount(size, 'B')}"))
    rows.append(("speed", f"{amount(report['bytes_per_second'], 'B')}/s, {duration(report['seconds'])}, "
                          f"{counted(report['processes'], 'process')}"))  # fmt: skip
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def keeps_nothing(account: Account) -> UserError:
    """Says which rule took the most."""
    if not account.seen.documents:
        skipped = ", ".join(f"{number:,} × {reason}" for reason, number in sorted(account.skipped.items()))
        return UserError(
            f"there is no document in it{f' (passed over: {skipped})' if skipped else ''}", flag="--source"
        )
    rule = max(sorted(account.dropped, key=_order), key=lambda name: account.dropped[name].documents)
    others = ", ".join(
        f"{_rule(name)} {count.documents:,}"
        for name, count in sorted(account.dropped.items(), key=lambda item: _order(item[0]))
        if name != rule
    )
    return UserError(
        f"drops {account.dropped[rule].documents:,} of {counted(account.seen.documents, 'document')}"
        + (f", and {others} the others" if others else "")
        + ": nothing is kept, and nothing was written; change the rule",
        flag=_rule(rule),
    )


def _order(rule: str) -> int:
    if rule == "mix":  # asked last
        return 1000
    return RULES.index(rule) if rule in RULES else len(RULES) + len(rule)


def _rule(rule: str) -> str:
    return f"--{rule}" if rule in (*RULES, "mix") else f"{rule}s"


def _said(count: Count) -> str:
    return f"{counted(count.documents, 'document')}, {amount(count.bytes, 'B')}"


def _shares(part: Count, whole: Count) -> str:
    return f"{part.documents / max(1, whole.documents):.2%} of the documents, {part.share(whole):.2%} of the bytes"


def _like(sample: dict[str, Any]) -> str:
    same = f"{sample['jaccard']:.0%} (estimated {sample['estimated']:.0%}) like"
    return "equal to" if sample["jaccard"] == sample["estimated"] == 1 else same
