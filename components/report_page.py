"""The page that reports are: one HTML file that loads nothing, its style, and how texts of the data get onto it.

Whatever comes from data goes through `shown` or `attribute`; what is made of it is `Html`, which is not escaped again.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NewType

Html = NewType("Html", str)

LONGEST = 600           # Characters of a text that are shown.
LINES = 200             # Of a table.
MISSING = -1e308        # What a number that nobody knows sorts as: before all others.
# Marks that turn the direction of what follows, of which a text could make another one.
DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2330;--muted:#5c6878;--line:#dfe4ea;--soft:#eef1f5;
--blue:#1f5fa8;--orange:#c9761a;--red:#b8352a;--green:#1c7c4a;--blue-rgb:31,95,168;--red-rgb:184,53,42}
@media(prefers-color-scheme:dark){:root{--page:#11151b;--card:#1a2029;--ink:#e6eaf0;--muted:#9aa6b5;--line:#303946;
--soft:#232b36;--blue:#6ba9ee;--orange:#eba65a;--red:#f0867a;--green:#5cc98f;--blue-rgb:107,169,238;
--red-rgb:240,134,122}}
*{box-sizing:border-box}html{scroll-behavior:smooth;scroll-padding-top:3.6rem}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","DejaVu Sans",sans-serif}
header,main{max-width:70rem;margin:0 auto;padding:0 1.25rem}header{padding-top:2rem}main{padding-bottom:4rem}
nav{position:sticky;top:0;z-index:2;background:var(--page);border-bottom:1px solid var(--line)}
nav div{max-width:70rem;margin:0 auto;padding:.55rem 1.25rem;display:flex;gap:1.25rem;flex-wrap:wrap}
a{color:var(--blue);text-decoration:none}a:hover{text-decoration:underline}
h1{font-size:1.9rem;line-height:1.2;margin:0 .75rem 0 0;display:inline-block}
h2{font-size:1.3rem;margin:2.6rem 0 .9rem}h3{font-size:1rem;margin:0 0 .6rem}
p{margin:.4rem 0;max-width:48rem}.muted,figcaption,caption{color:var(--muted)}
small,figcaption,caption{font-size:.86rem}
code,.mono{font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
pre{margin:.3rem 0;padding:.7rem .9rem;background:var(--soft);border-radius:8px;white-space:pre-wrap;
overflow-wrap:anywhere}
.badge{display:inline-block;padding:.15rem .7rem;border-radius:99px;font-weight:600;font-size:.95rem;
vertical-align:.25rem;
border:1.5px solid currentColor}
.good{color:var(--green)}.bad{color:var(--red)}.so{color:var(--orange)}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.1rem 1.25rem;margin:0 0 1rem;
overflow-x:auto}
.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));align-items:start}
.grid .card{margin:0}.grid+.card,.grid+.grid,.card+.grid{margin-top:1rem}
.tiles{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:.65rem 1rem;min-width:7.5rem}
.tile small{display:block;color:var(--muted)}
.tile b{display:block;font-size:1.45rem;line-height:1.25;font-weight:650;font-variant-numeric:tabular-nums}
.alert{border-left:5px solid var(--red);white-space:pre-wrap;overflow-wrap:anywhere}
.wait{border-left-color:var(--orange)}
table{border-collapse:collapse;width:100%;font-size:.94rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:.4rem}
th,td{padding:.36rem .55rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tr>:first-child{padding-left:0}tr>:last-child{padding-right:0}
tbody tr:last-child>*{border-bottom:0}th{font-weight:600}.keep{display:inline-block;margin-right:.8rem}
td.n,th.n{text-align:right}td.n{white-space:nowrap}
td.text{overflow-wrap:anywhere;min-width:12rem;white-space:pre-wrap}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
th button::after{content:"\\202f↕";color:var(--muted);font-weight:400;font-size:.8em}
th[aria-sort=ascending] button::after{content:"\\202f↑"}th[aria-sort=descending] button::after{content:"\\202f↓"}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.1rem;margin:0}dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
ol.flow{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.7rem 1.5rem}
ol.flow li{position:relative;border:1.5px solid var(--line);border-left:5px solid var(--tone);border-radius:9px;
padding:.45rem .75rem;min-width:8.6rem;background:var(--card)}
ol.flow li+li::before{content:"→";position:absolute;left:-1.45rem;top:50%;transform:translateY(-50%);
color:var(--muted)}
ol.flow b{display:block}.done{--tone:var(--green)}.cached{--tone:var(--blue)}.failed{--tone:var(--red)}
.running{--tone:var(--orange)}
.time{display:flex;align-items:center;gap:.6rem;margin:.2rem 0}
.time>span:first-child{flex:0 0 8.5rem}
.time i{display:block;height:.7rem;border-radius:4px;background:var(--tone);min-width:2px}
.bar{display:flex;height:1.15rem;border-radius:5px;overflow:hidden;background:var(--soft)}
.time .bar i{height:auto;border-radius:0;min-width:1px;background:rgba(var(--blue-rgb),var(--a))}
.meter{display:block;position:relative;height:.55rem;min-width:8rem;margin-top:.45rem;border-radius:4px;
background:var(--soft)}
.meter i{position:absolute;top:0;bottom:0;left:0;border-radius:4px;background:rgba(var(--blue-rgb),.55)}
.meter u{position:absolute;top:-.12rem;bottom:-.12rem;border:1.5px solid var(--ink);border-width:0 1.5px}
.meter u::after{content:"";position:absolute;left:0;right:0;top:50%;border-top:1.5px solid var(--ink)}
table.heat{width:auto;border-collapse:separate;border-spacing:2px}
table.heat td,table.heat th{border:0;padding:.3rem .55rem}
table.heat td{text-align:right;border-radius:4px;background:rgba(var(--rgb,var(--blue-rgb)),var(--a))}
table.maps td{padding:0;width:1.35rem;min-width:1.35rem;height:1.35rem}
table.maps th{font-weight:400;font-size:.82rem;padding:.1rem .4rem;white-space:nowrap}
table.maps thead th{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;padding:.3rem 0;height:5.5rem}
.side{display:flex;flex-wrap:wrap;gap:1rem 2.5rem;align-items:flex-end}figure{margin:0}
.plot{display:block;width:100%;height:auto}.plot text{font-family:inherit}
.mark{color:var(--muted);border:1px dashed var(--line);border-radius:3px;font-size:.8em;padding:0 .2em}
td.half{width:55%}mark{background:rgba(var(--blue-rgb),.18);color:inherit;border-radius:4px;padding:0 .15em}
.word{display:inline-block;border:1px solid var(--line);border-radius:6px;padding:0 .35em;margin:.1rem 0}
.word.good{border-color:currentColor}.word small{color:var(--muted)}
details summary{cursor:pointer;color:var(--blue)}
@media(max-width:40rem){header,main,nav div{padding-left:.9rem;padding-right:.9rem}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:.5rem}td.text{min-width:9rem}}
@media print{nav{display:none}.card,.tile{break-inside:avoid}}
"""

# Columns sort by the number in `data-v`, else by their text; a second press turns the order.
SCRIPT = """
document.querySelectorAll('table.sortable').forEach(t=>t.querySelectorAll('thead th').forEach((th,i)=>{
const b=document.createElement('button');b.type='button';b.append(...th.childNodes);th.append(b);b.onclick=()=>{
const up=th.getAttribute('aria-sort')!=='ascending';t.querySelectorAll('th[aria-sort]').forEach(o=>
o.removeAttribute('aria-sort'));th.setAttribute('aria-sort',up?'ascending':'descending');const v=r=>{const c=r.cells[i];
return c.dataset.v===undefined?c.textContent:+c.dataset.v};const body=t.tBodies[0];[...body.rows].sort((x,y)=>{
const a=v(x),c=v(y);return(typeof a==='number'&&typeof c==='number'?a-c:String(a).localeCompare(String(c)))*(up?1:-1)})
.forEach(r=>body.append(r))}}))
"""

# Nothing is loaded, and nothing in a text could load anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(title: str, heading: Html, sections: Sequence[tuple[str, str, Html]]) -> str:
    """A whole file.

    Args:
        title: of the window.
        heading: what stands on top.
        sections: anchor, title and content of each; those without content are left out.
    """
    there = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{anchor}">{html.escape(name)}</a>' for anchor, name, _ in there)
    body = "\n".join(f'<section id="{anchor}"><h2>{html.escape(name)}</h2>\n{content}</section>'
                     for anchor, name, content in there)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}"><link rel="icon" href="data:,">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<header>{heading}</header>
<nav aria-label="sections"><div>{links}</div></nav>
<main>
{body}
</main><script>{SCRIPT}</script></body></html>
"""


def attribute(text: object) -> str:
    """A text for the inside of an attribute, or where nothing but characters is wanted; hidden marks as in `shown`."""
    return html.escape("".join(f"U+{ord(one):04X}" if _is_hidden(one) else one for one in str(text)))


def shown(text: object, longest: int = LONGEST) -> Html:
    """A text as its characters, isolated from the direction of what stands around it.

    Marks that nobody would see, or that turn the direction, are written out: U+202E. What is longer than `longest`
    ends with how long it is.
    """
    whole = str(text)
    cut = whole[:longest]
    parts = "".join(f'<span class="mark">U+{ord(one):04X}</span>' if _is_hidden(one) else html.escape(one)
                    for one in cut)
    rest = f' <span class="muted">… ({len(whole):,} characters)</span>' if len(whole) > longest else ""
    return Html(f"<bdi>{parts}</bdi>{rest}")


def _is_hidden(one: str) -> bool:
    return one in DIRECTION or (unicodedata.category(one) in ("Cc", "Cs") and one not in "\n\t")


def join(parts: Iterable[str]) -> Html:
    """What is already `Html`, behind each other."""
    return Html("\n".join(part for part in parts if part))


def card(*parts: str, title: str = "") -> Html:
    """Things that belong together, framed; nothing without parts."""
    content = join(parts)
    heading = f"<h3>{html.escape(title)}</h3>" if title else ""
    return Html(f'<div class="card">{heading}{content}</div>') if content else Html("")


def grid(*cards: str) -> Html:
    """Cards side by side where there is room."""
    content = join(cards)
    return Html(f'<div class="grid">{content}</div>') if content else Html("")


def figure(svg: str, caption: str = "") -> Html:
    """A plot and what is to be said of it."""
    said = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return Html(f"<figure>{svg}{said}</figure>")


class Cell:
    """What stands in a table.

    Args:
        content: text, escaped here; or `html`.
        html: what is already `Html`.
        value: what the column sorts by, if it is a number.
        kind: "n" for numbers, "text" for texts of data.
    """

    def __init__(self, content: object = "", *, html: str = "", value: float | None = None, kind: str = ""):
        self.content, self.value, self.kind = html or attribute(content), value, kind

    def __str__(self) -> str:
        sort = f' data-v="{self.value!r}"' if self.value is not None else ""
        kind = f' class="{self.kind}"' if self.kind else ""
        return f"<td{kind}{sort}>{self.content}</td>"


def number(value: float | None, form: str = ",.0f") -> Cell:
    """A number in a table; a dash if there is none, which sorts first."""
    if value is None:
        return Cell("–", value=MISSING, kind="n")
    return Cell(format(value, form), value=float(value), kind="n")


def texts(text: object, longest: int = LONGEST) -> Cell:
    """A text of data in a table."""
    return Cell(html=shown(text, longest), kind="text")


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = "", sortable: bool = True) -> Html:
    """A table; nothing without rows. It has the first `LINES` of them, and says so if there are more.

    Args:
        columns: their names.
        rows: their cells.
        caption: what stands above.
        sortable: whether a press on a column sorts by it.
    """
    lines = [list(row) for row in rows]
    if not lines:
        return Html("")
    head = "".join(f'<th scope="col"{" class=n" if cell.kind == "n" else ""}>{html.escape(name)}</th>'
                   for name, cell in zip(columns, lines[0], strict=True))
    body = "".join(f"<tr>{''.join(map(str, row))}</tr>" for row in lines[:LINES])
    if len(lines) > LINES:
        caption = f"{caption}{'; ' if caption else ''}the first {LINES} of {len(lines):,}"
    said = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    kind = ' class="sortable"' if sortable and len(lines) > 1 else ""
    return Html(f"<table{kind}>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def pairs(entries: Iterable[tuple[str, str]]) -> Html:
    """Names and what is to be said of each, already `Html`; those of which nothing is are left out."""
    lines = "".join(f"<dt>{html.escape(name)}</dt><dd>{content}</dd>" for name, content in entries if content)
    return Html(f"<dl>{lines}</dl>") if lines else Html("")
