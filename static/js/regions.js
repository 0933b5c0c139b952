// Fetches the parts of this page that have changed and puts them in place, unless the reader is busy with them.

import { morph } from "./morph.js";
import { showTimes } from "./times.js";

const dirty = new Set();
const regions = () => [...document.querySelectorAll("[data-live]")];
let tag = "";
let tagOf = "";
let pressed = null;

// Nothing moves between the press of a button and its release: the click would go to what has come under the pointer.
export function watchPointer() {
  addEventListener("pointerdown", (event) => { pressed = event.target; }, true);
  for (const name of ["pointerup", "pointercancel", "dragend"]) addEventListener(name, () => { pressed = null; }, true);
}

function holdsAttention(region) {
  const focused = document.activeElement;
  return document.querySelector("dialog[open]") !== null
    || region.contains(pressed)
    || region.querySelector("input[type=checkbox]:checked") !== null
    || (focused !== document.body && region.contains(focused) && focused.matches("input:not([type=checkbox]), select, textarea"))
    || selecting(region);
}

function selecting(region) {
  const selection = getSelection();
  return !selection.isCollapsed && selection.rangeCount > 0 && selection.getRangeAt(0).intersectsNode(region);
}

// A list moves under the pointer only when the reader asks for it.
function wouldMove(region) {
  return "hold" in region.dataset && (region.matches(":hover") || region.getBoundingClientRect().top < -40);
}

export function markDirty(topics) {
  for (const region of regions()) {
    if (!topics || region.dataset.topics.split(" ").some((topic) => topics.includes(topic))) dirty.add(region.dataset.live);
  }
  return dirty.size > 0;
}

export async function refresh(signal) {
  const names = regions().map((region) => region.dataset.live).filter((name) => dirty.has(name));
  if (names.length === 0) return;
  const asked = names.join(",");
  // As a page and not as data: while the daemon cannot show this page, its frame still says why.
  const headers = { "X-Live-Regions": asked, Accept: "text/html" };
  if (tag && tagOf === asked) headers["If-None-Match"] = tag;
  for (const name of names) dirty.delete(name);
  let response;
  try {
    response = await fetch(location.href, { headers, signal, cache: "no-store" });
  } catch (error) {
    for (const name of names) dirty.add(name);
    throw error;
  }
  if (response.status === 304) return;
  if (!response.ok || !response.headers.get("Content-Type").startsWith("application/json")) {
    for (const name of names) dirty.add(name);
    return;
  }
  const answer = await response.json();
  tag = response.headers.get("ETag") ?? "";
  tagOf = asked;
  for (const [name, html] of Object.entries(answer.regions)) put(name, html);
}

function put(name, html) {
  const region = document.querySelector(`[data-live="${CSS.escape(name)}"]`);
  if (!region) return;
  if (holdsAttention(region)) {
    later(name);
  } else if (wouldMove(region)) {
    later(name);
    offer(region, html);
  } else {
    swap(region, html);
  }
}

function later(name) {
  tag = "";
  dirty.add(name);
}

function swap(region, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  region.querySelector(":scope > .fresh")?.remove();
  morph(region, template.content);
  showTimes(region);
  region.dispatchEvent(new CustomEvent("swapped", { bubbles: true }));
}

// Instead of shifting rows under the pointer, say that there is something new.
function offer(region, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const known = new Set([...region.querySelectorAll("tr[id]")].map((row) => row.id));
  const fresh = [...template.content.querySelectorAll("tr[id]")].filter((row) => !known.has(row.id)).length;
  if (fresh === 0) return swap(region, html);
  let button = region.querySelector(":scope > .fresh");
  if (!button) {
    button = document.createElement("button");
    button.type = "button";
    button.className = "fresh";
    button.addEventListener("click", () => {
      dirty.delete(region.dataset.live);
      swap(region, button.html);
    });
    region.prepend(button);
  }
  button.html = html;
  button.textContent = `${fresh} new ↑`;
}
