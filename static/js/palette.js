// Ctrl+K or ⌘K: one field that goes to pages, finds events and workflows, and presses the buttons of this page.

import { openDialog } from "./dialogs.js";

const LOOK_UP_MS = 120;
const SHOWN_MAX = 14;

const base = document.body.dataset.base;

let request = null;
let timer = 0;

// What can be done here and now: links are gone to, buttons pressed. A hidden one is for other times.
function commands() {
  return [...document.querySelectorAll("[data-command]")]
    .filter((element) => element.checkVisibility() && !element.disabled)
    .map((element) => ({
      label: element.dataset.command || element.textContent.trim().replace(/\s+/g, " "),
      detail: element.closest("nav") ? "page" : "action",
      run: () => element.click(),
    }));
}

function matching(all, text) {
  const words = text.toLowerCase().split(/\s+/);
  return all.filter(({ label }) => words.every((word) => label.toLowerCase().includes(word)));
}

function going({ path, label, detail }) {
  return { label, detail, run: () => location.assign(path) };
}

function searching(text) {
  return { label: `Search for “${text}”`, detail: "search", run: () => location.assign(`${base}/search?q=${encodeURIComponent(text)}`) };
}

async function lookUp(text) {
  request?.abort();
  request = new AbortController();
  const response = await fetch(`${base}/lookup?q=${encodeURIComponent(text)}`, { signal: request.signal });
  return response.ok ? (await response.json()).places.map(going) : [];
}

class Palette {
  constructor(content) {
    this.field = content.querySelector("input");
    this.list = content.querySelector("[role=listbox]");
    this.count = content.querySelector("[role=status]");
    this.commands = commands();
    this.field.addEventListener("input", () => this.typed());
    this.field.addEventListener("keydown", (event) => this.pressed(event));
    this.show(this.commands);
  }

  typed() {
    clearTimeout(timer);
    request?.abort();
    const text = this.field.value.trim();
    const known = matching(this.commands, text);
    this.chosen = null;
    this.show(text ? [...known, searching(text)] : known);
    if (text.length > 1) timer = setTimeout(() => this.add(known, text), LOOK_UP_MS);
  }

  async add(known, text) {
    try {
      const places = await lookUp(text);
      if (this.field.isConnected && this.field.value.trim() === text) {
        this.show([...known, ...places, searching(text)]);
      }
    } catch { /* the daemon is away, or somebody typed on; the search is there in any case */ }
  }

  show(found) {
    this.found = found.slice(0, SHOWN_MAX);
    this.list.replaceChildren(...this.found.map((one, index) => this.option(one, index)));
    this.count.textContent = `${this.found.length} found`;
    // What somebody has moved to stays chosen when more is found; else the best comes first.
    this.choose(Math.max(0, this.found.findIndex(({ label }) => label === this.chosen)));
  }

  option(one, index) {
    const item = document.createElement("li");
    item.id = `found-${index}`;
    item.role = "option";
    const name = Object.assign(document.createElement("bdi"), { textContent: one.label });
    const detail = Object.assign(document.createElement("small"), { textContent: one.detail });
    item.append(name, " ", detail);
    item.addEventListener("click", () => this.run(one));
    return item;
  }

  choose(index) {
    const count = this.found.length;
    this.at = count ? (index + count) % count : -1;
    for (const [number, item] of [...this.list.children].entries()) item.ariaSelected = String(number === this.at);
    if (this.at < 0) { this.field.removeAttribute("aria-activedescendant"); return; }
    this.field.setAttribute("aria-activedescendant", `found-${this.at}`);
    this.list.children[this.at].scrollIntoView({ block: "nearest" });
  }

  pressed(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); this.choose(this.at + step); this.chosen = this.found[this.at]?.label; }
    if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); if (this.at >= 0) this.run(this.found[this.at]); }
  }

  run(one) {
    this.field.closest("dialog").close();
    one.run();
  }
}

function open() {
  const content = document.getElementById("palette-content").content.cloneNode(true);
  const palette = new Palette(content);
  openDialog(content);
  palette.field.focus();
}

export function startPalette() {
  const button = document.getElementById("palette");
  if (!button) return;
  button.hidden = false;
  button.addEventListener("click", open);
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (!document.querySelector("dialog[open]")) open();
  });
}
