# SPDX-License-Identifier: Apache-2.0
"""The style sheet of the page; its colours are those of the figures."""

from __future__ import annotations

from simtune.report.style import COLOURS

_RULES = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--surface); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 3.25rem 0 .35rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .35rem 0 .8rem; max-width: 44rem; }
.muted, .lead { color: var(--muted); }
.lead { margin: .3rem 0 0; }
.result { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-end;
  margin: 2rem 0 0; padding: 1.25rem 0; border: solid var(--grid); border-width: 1px 0; }
.result div > span { display: block; color: var(--muted); font-size: .875rem; }
.result strong { font-size: 1.6rem; line-height: 1.25; font-weight: 600; }
.result .gain strong { font-size: 2.6rem; line-height: 1.05; }
.best { color: var(--best); }
.default { color: var(--default); }
.failed { color: var(--failed); }
figure { margin: 1rem 0 0; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-family: inherit !important; }
.scroll { overflow-x: auto; margin: 1rem 0 0; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th { color: var(--muted); font-weight: 500; text-align: left; vertical-align: bottom; }
th, td { padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--grid); }
th:last-child, td:last-child { padding-right: 0; }
td { vertical-align: top; overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; }
.zero { color: var(--muted); }
.facts th { white-space: nowrap; vertical-align: top; width: 1%; }
pre, code { font: .8125rem/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: .4rem 0; padding: .7rem .9rem; background: var(--panel); border-radius: 4px;
  overflow: auto; max-height: 30rem; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--muted); }
footer { margin-top: 4rem; color: var(--muted); font-size: .8125rem; }
@media print {
  main { padding: 0; max-width: none; }
  h2, h3 { break-after: avoid; }
  figure { break-inside: avoid; }
}
"""


def style_sheet() -> str:
    light = {variable: colour for colour, (variable, _) in COLOURS.items()} | {"--panel": "#f3f5f7"}
    dark = dict(COLOURS.values()) | {"--panel": "#20252b"}
    return (
        f":root {{ color-scheme: light dark; {_variables(light)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(dark)} }} }}\n{_RULES.strip()}\n"
    )


def _variables(values: dict[str, str]) -> str:
    return " ".join(f"{name}: {colour};" for name, colour in values.items())
