"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (id) => document.getElementById(id);

/* Sort a table by the column whose heading is pressed; cells carry their value in data-value, or begin with it. */
for (const button of all("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const place = [...head.parentNode.children].indexOf(head);
    const value = (row) => {
      const cell = row.children[place], text = cell.dataset.value ?? cell.textContent.trim();
      return text === "–" ? "" : cell.tagName === "TD" && !isNaN(parseFloat(text)) ? parseFloat(text) : text;
    };
    const numbers = [...body.rows].some((row) => typeof value(row) === "number"), before = head.getAttribute("aria-sort");
    const first = head.dataset.first !== "up" && numbers; // at first the highest number, the best rank, or A
    const down = before === null ? first : before === "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1;
      const order = typeof a === "number" && typeof b === "number" ? b - a : String(b).localeCompare(String(a));
      return down ? order : -order;
    };
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
  });
}

/* Show only the backbones whose name holds the text and that have the verdict, and only one benchmark if asked. */
const find = one("find"), verdict = one("verdict"), benchmark = one("benchmark"), headline = all("#headline tbody tr");
const names = new Map(headline.map((row) => [row.dataset.row, row.querySelector("th").textContent.toLowerCase()]));
function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean), column = benchmark?.value ?? "";
  const inside = column === "" ? "" : `[data-column="${column}"]`;
  const kept = new Set();
  for (const row of headline) {
    const decided = !verdict?.value || row.querySelector(`[data-verdict="${verdict.value}"]${inside}`);
    if (decided && words.every((word) => names.get(row.dataset.row).includes(word))) kept.add(row.dataset.row);
  }
  for (const item of all("[data-row]")) {
    item.classList.toggle("gone", !kept.has(item.dataset.row));
    if (item.tagName === "TH") { // a column that is a backbone: its cells bear no name of their own
      const place = [...item.parentNode.children].indexOf(item);
      for (const row of item.closest("table").tBodies[0].rows) row.children[place].classList.toggle("gone", !kept.has(item.dataset.row));
    }
  }
  for (const item of all("[data-column]")) item.classList.toggle("away", column !== "" && item.dataset.column !== column);
  const some = kept.size < headline.length || column !== "";
  one("shown").textContent = some ? `${kept.size} of ${headline.length} backbones are shown${column === "" ? "" : ", on one benchmark"}.` : "";
}
for (const control of [find, verdict, benchmark]) control?.addEventListener("input", filter);
one("find").form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); find.focus(); find.select(); }
  if (event.key === "Escape" && document.activeElement === find) { find.value = ""; filter(); find.blur(); }
});
for (const input of all("[data-find=classes]")) {
  input.addEventListener("input", () => {
    const text = input.value.toLowerCase();
    for (const row of input.closest("details").querySelector("tbody").rows)
      row.classList.toggle("gone", !row.cells[0].textContent.toLowerCase().includes(text));
  });
}

/* Single out a backbone in all charts by its name in a legend. */
let single = "";
function dim(row) {
  for (const item of all("svg [data-row]")) item.classList.toggle("dim", row !== "" && item.dataset.row !== row);
}
for (const button of all(".legend button")) {
  button.addEventListener("click", () => {
    single = single === button.dataset.row ? "" : button.dataset.row;
    for (const other of all(".legend button")) other.setAttribute("aria-pressed", String(other.dataset.row === single));
    dim(single);
  });
  button.addEventListener("pointerenter", () => dim(button.dataset.row));
  button.addEventListener("pointerleave", () => dim(single));
}

/* Differences, tests and published numbers inside the table of results. */
one("details")?.addEventListener("input", (event) => one("headline").classList.toggle("full", event.target.checked));

/* A press on a picture shows it at full size; another press, or Escape, closes it. */
const large = one("large");
for (const link of all(".pictures a")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    large.replaceChildren(link.firstElementChild.cloneNode());
    large.showModal();
  });
}
large.addEventListener("click", () => large.close());

/* Copy a table as it is shown, and save a figure as a file of its own. */
function cells(table) {
  const text = (cell) => (cell.dataset.copy ?? cell.innerText).replace(/\s*[↕↑↓]\s*/g, " ").replace(/\s+/g, " ").trim();
  return [...table.rows].filter((row) => row.offsetParent).map((row) => [...row.cells].filter((cell) => cell.offsetParent).map(text));
}
const latex = (text) => text.replace(/[\\&%$#_{}]/g, (c) => c === "\\" ? "\\textbackslash{}" : "\\" + c).replaceAll("±", "$\\pm$").replaceAll("−", "$-$")
  .replaceAll("▲", "$\\blacktriangle$").replaceAll("▼", "$\\blacktriangledown$").replaceAll("≈", "$\\approx$").replaceAll("×", "$\\times$");
const forms = {
  Markdown: (rows) => rows.map((row, i) => `| ${row.map((t) => t.replaceAll("|", "\\|")).join(" | ")} |${i ? "" : `\n|${" --- |".repeat(row.length)}`}`).join("\n"),
  CSV: (rows) => rows.map((row) => row.map((t) => /[",\n]/.test(t) ? `"${t.replaceAll('"', '""')}"` : t).join(",")).join("\n"),
  LaTeX: (rows) => [`\\begin{tabular}{l${"r".repeat(rows[0].length - 1)}}`, "\\toprule", ...rows.map((row, i) => `${row.map(latex).join(" & ")} \\\\${i ? "" : "\n\\midrule"}`), "\\bottomrule", "\\end{tabular}"].join("\n"),
};
async function copy(text) {
  try { await navigator.clipboard.writeText(text); } catch {
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text; area.select(); document.execCommand("copy"); area.remove();
  }
}
function buttons(put, say, names, act) {
  const bar = document.createElement("div");
  bar.className = "save"; bar.append(say);
  for (const name of names) {
    const button = bar.appendChild(document.createElement("button"));
    button.type = "button"; button.textContent = name;
    button.addEventListener("click", async () => { await act(name); button.textContent = `${name} ✓`; setTimeout(() => { button.textContent = name; }, 1200); });
  }
  put(bar);
}
for (const table of all(".scroll table")) buttons((bar) => table.closest(".scroll").after(bar), "Copy as", Object.keys(forms), (name) => copy(forms[name](cells(table))));
const NS = (() => { const box = document.createElement("template"); box.innerHTML = "<svg></svg>"; return box.content.firstChild.namespaceURI; })();
const make = (name, values) => { const made = document.createElementNS(NS, name); for (const key in values) made.setAttribute(key, values[key]); return made; };
function styled(source) { // with the styles that are in effect, since a file of its own has no sheet
  const whole = source.cloneNode(true), kept = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family", "font-style"];
  const copies = [whole, ...whole.querySelectorAll("*")];
  [source, ...source.querySelectorAll("*")].forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of kept) copies[i].setAttribute(name, style.getPropertyValue(name));
  });
  return whole;
}
function drawn(part) { // a diagram of elements and drawings side by side, as one drawing
  const box = part.getBoundingClientRect(), whole = make("svg", { viewBox: `-8 -8 ${box.width + 16} ${box.height + 16}` });
  const put = (name, values) => whole.appendChild(make(name, values));
  for (const element of part.querySelectorAll("*")) {
    const { left, top, width, height } = element.getBoundingClientRect(), x = left - box.left, y = top - box.top, style = getComputedStyle(element);
    if (element.closest("svg")) {
      if (width && !element.parentElement.closest("svg") && element.localName === "svg") {
        const copy = whole.appendChild(styled(element));
        for (const [key, value] of Object.entries({ x, y, width, height, overflow: "visible" })) copy.setAttribute(key, value);
      }
      continue;
    }
    const radius = Math.min(parseFloat(style.borderTopLeftRadius) || 0, height / 2);
    if (width && !/, 0\)$|transparent/.test(style.backgroundColor)) put("rect", { x, y, width, height, rx: radius, fill: style.backgroundColor });
    const sides = { Left: [x, y, x, y + height], Right: [x + width, y, x + width, y + height], Bottom: [x, y + height, x + width, y + height] };
    for (const [side, [x1, y1, x2, y2]] of Object.entries(sides)) {
      const thick = parseFloat(style[`border${side}Width`]);
      if (thick) put("line", { x1, y1, x2, y2, stroke: style[`border${side}Color`], "stroke-width": thick });
    }
    for (const node of [...element.childNodes].filter((child) => child.nodeType === Node.TEXT_NODE)) {
      let line = null;
      for (const word of node.data.matchAll(/\S+/g)) {
        const range = document.createRange();
        range.setStart(node, word.index); range.setEnd(node, word.index + word[0].length);
        const at = range.getClientRects()[0];
        if (!at) continue;
        if (line?.top !== at.top) {
          line = put("text", { x: at.left - box.left, y: at.top - box.top + 0.79 * at.height, fill: style.color, "font-size": style.fontSize, "font-family": style.fontFamily, "font-weight": style.fontWeight });
          line.top = at.top;
        } else line.append(" ");
        line.append(word[0]);
      }
    }
  }
  return whole;
}
function standalone(figure) {
  const source = figure.querySelector("svg[viewBox]:not(.keymark)"), whole = source ? styled(source) : drawn(figure), { width, height } = whole.viewBox.baseVal;
  whole.setAttribute("width", width); whole.setAttribute("height", height);
  return { text: new XMLSerializer().serializeToString(whole), width, height };
}
function save(name, address) {
  const link = document.createElement("a");
  link.download = name; link.href = address; link.click();
}
const titleOf = (figure) => (figure.localName === "figure" ? [figure.querySelector("figcaption")]
  : [figure.closest("section").querySelector("h2"), figure.previousElementSibling]).filter((title) => /^(H|FIGC)/.test(title.tagName)).map((title) => title.innerText).join(" ");
for (const figure of all(".charts figure, .forest, .ranks")) buttons((bar) => figure.localName === "figure" ? figure.append(bar) : figure.after(bar), "Save as", ["SVG", "PNG"], async (form) => {
  const { text, width, height } = standalone(figure), name = titleOf(figure).replace(/[^\w.-]+/g, "-");
  const address = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  if (form === "SVG") return save(`${name}.svg`, address);
  const image = new Image(), canvas = document.createElement("canvas");
  image.src = address; await image.decode();
  canvas.width = 4 * width; canvas.height = 4 * height;
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  save(`${name}.png`, canvas.toDataURL("image/png"));
});

/* Dark or light: the system's choice until the button says otherwise. */
one("theme").addEventListener("click", () => {
  const style = document.documentElement.style;
  const dark = (style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  style.colorScheme = dark ? "light" : "dark";
});

/* A link to what is inside a closed part opens it; paper has no closed parts. */
function reveal() {
  const target = location.hash.length > 1 && one(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
}
addEventListener("hashchange", reveal);
reveal();
let opened = [];
addEventListener("beforeprint", () => { opened = all("details:not([open])"); for (const part of opened) part.open = true; });
addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
