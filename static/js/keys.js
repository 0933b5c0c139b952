// Single keys for the whole page; they are off while something is typed, in dialogs, and when switched off in the help.

import { openDialog } from "./dialogs.js";

const OFF = "replayforge.keys";
const PAGES = { o: "/", e: "/events", w: "/workflows", d: "/dead-letters", h: "/handlers", r: "/runtime" };
const HELP = [
  ["g then o e w d h r", "overview, events, workflows, dead letters, handlers, runtime"],
  ["/", "search"], ["j k", "next and previous row"], ["Enter", "open the row"], ["x", "tick the row"],
  ["Shift+x", "tick all rows from the last one ticked"], ["c", "copy as a curl command"],
  ["r", "replay (asks first)"], ["p", "pause or resume live updates"], ["t", "next theme"], ["?", "this help"],
  ["Ctrl+K", "commands; also ⌘K, also while the single keys are off"],
];

let current = null;
let goes = false;

const rows = () => [...document.querySelectorAll("tr[data-row]")];

function enabled() {
  try { return localStorage.getItem(OFF) !== "off"; } catch { return true; }
}

function move(step) {
  const all = rows();
  if (all.length === 0) return;
  const at = all.indexOf(current);
  current?.classList.remove("current");
  current = all[Math.min(Math.max(at + step, 0), all.length - 1)];
  current.classList.add("current");
  current.scrollIntoView({ block: "nearest" });
  current.querySelector("a")?.focus({ preventScroll: true });
}

function help() {
  const template = document.createElement("template");
  template.innerHTML = '<h2 id="dialog-title">Keys</h2><dl class="keys"></dl><p><label><input type="checkbox" id="keys-on"> single keys are on</label></p><p><button type="button" data-close autofocus>Close</button></p>';
  const list = template.content.querySelector("dl");
  for (const [keys, text] of HELP) {
    const term = document.createElement("dt");
    term.append(...keys.split(" ").flatMap((part) => [Object.assign(document.createElement(part === "then" ? "span" : "kbd"), { textContent: part }), " "]));
    list.append(term, Object.assign(document.createElement("dd"), { textContent: text }));
  }
  const box = template.content.getElementById("keys-on");
  box.checked = enabled();
  box.addEventListener("change", () => { try { localStorage.setItem(OFF, box.checked ? "on" : "off"); } catch { /* not kept */ } });
  openDialog(template.content);
}

function tick(withShift) {
  const box = current?.querySelector("td.tick input");
  box?.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, shiftKey: withShift }));
}

function replay() {
  const own = document.querySelector("[data-key=r]");
  const bulk = document.querySelector("#bulk button:not(:disabled)");
  (own ?? bulk)?.click();
}

function actions(togglePause) {
  return {
    "/": () => document.getElementById("search").focus(),
    "?": help, p: togglePause, r: replay,
    j: () => move(1), k: () => move(-1),
    x: () => tick(false), X: () => tick(true),
    c: () => document.querySelector("[data-key=c]")?.click(),
    t: () => document.getElementById("theme").click(),
    g: () => { goes = true; setTimeout(() => { goes = false; }, 1000); },
    Enter: () => { if (current && !document.activeElement.matches("a, button, summary")) location.assign(current.dataset.row); },
  };
}

export function startKeys({ togglePause }) {
  const known = actions(togglePause);
  const button = document.getElementById("help");
  button.hidden = false;
  button.addEventListener("click", help);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea, [contenteditable]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || !enabled()) return;
    if (goes && PAGES[event.key]) { location.assign(document.body.dataset.base + PAGES[event.key]); return; }
    const action = known[event.key];
    if (!action) return;
    if (event.key !== "Enter") event.preventDefault();
    action();
  });
}
