// Keeps the page up to date: listens for hints, refetches what changed, and says how the connection stands.

import { markDirty, refresh, watchPointer } from "./regions.js";

const REFRESH_MS = 1000;
const POLL_MS = 5000;
const RETRY_MS = [500, 1000, 2000, 4000, 5000];
const PAUSED = "replayforge.paused";

const pill = document.getElementById("pill");
const pillText = document.getElementById("pill-text");
const base = document.body.dataset.base;

let source = null;
let failures = 0;
let lastRefresh = 0;
let seen = document.body.dataset.seen;
let timer = 0;
let retryTimer = 0;
let countdown = 0;
let request = null;
let again = false;
let paused = remembered();

function remembered() {
  try { return localStorage.getItem(PAUSED) === "yes"; } catch { return false; }
}

function remember(value) {
  try { localStorage.setItem(PAUSED, value ? "yes" : "no"); } catch { /* private windows may refuse */ }
}

function say(state, text) {
  pill.dataset.state = state;
  pill.setAttribute("aria-pressed", String(state === "paused"));
  if (pillText.textContent !== text) pillText.textContent = text;
  document.body.classList.toggle("stale", state !== "live");
}

function topics() {
  const named = [...document.querySelectorAll("[data-topics]")].flatMap((region) => region.dataset.topics.split(" "));
  return [...new Set(named)].join(",");
}

function connect() {
  clearTimeout(retryTimer);
  clearInterval(countdown);
  if (paused || document.hidden || source) return;
  source = new EventSource(`${base}/api/stream?topics=${topics()}&seen=${seen}`);
  source.addEventListener("open", opened);
  source.addEventListener("error", lost);
  source.addEventListener("changed", (event) => soon(JSON.parse(event.data).topics));
  source.addEventListener("resync", () => soon());
}

function opened() {
  say("live", "Live");
  failures = 0;
  // What happened from now on while nobody listens is unknown: the next stream begins with a look at everything.
  seen = -1;
}

function lost() {
  disconnect();
  if (paused || document.hidden) return;
  const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
  failures += 1;
  let left = Math.ceil(wait / 1000);
  say("reconnecting", `Reconnecting (${left} s)`);
  countdown = setInterval(() => { left -= 1; say("reconnecting", `Reconnecting (${Math.max(left, 0)} s)`); }, 1000);
  retryTimer = setTimeout(connect, wait);
  // When streams are refused but pages are served, look now and then.
  if (failures > 2) soon();
}

function disconnect() {
  clearTimeout(retryTimer);
  clearInterval(countdown);
  source?.close();
  source = null;
}

function soon(changed) {
  if (paused || !markDirty(changed) || timer) return;
  const least = failures > 2 ? POLL_MS : REFRESH_MS;
  timer = setTimeout(look, Math.max(0, lastRefresh + least - Date.now()));
}

async function look() {
  timer = 0;
  if (paused || document.hidden) return;
  if (request) { again = true; return; }
  lastRefresh = Date.now();
  request = new AbortController();
  try {
    await refresh(request.signal);
  } catch { /* the stream notices that the daemon is away */ } finally {
    request = null;
    // What was heard of meanwhile may have happened after the answer was made.
    if (again) { again = false; soon([]); }
  }
}

function togglePause() {
  paused = !paused;
  remember(paused);
  if (paused) {
    disconnect();
    clearTimeout(timer);
    timer = 0;
    request?.abort();
    say("paused", "Paused");
  } else {
    say("reconnecting", "Connecting");
    seen = -1;
    connect();
  }
}

// What was postponed while the reader was busy comes when the reader is done.
function resume() {
  if (!paused && source) soon([]);
}

export function startLive() {
  if (!pill || !document.querySelector("[data-live]")) return { togglePause() {} };
  pill.hidden = false;
  pill.addEventListener("click", togglePause);
  if (paused) say("paused", "Paused"); else { say("reconnecting", "Connecting"); connect(); }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect(); else connect();
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  watchPointer();
  for (const name of ["focusout", "change", "mouseout", "pointerup"]) document.addEventListener(name, () => setTimeout(resume, 0));
  document.addEventListener("close", resume, true);
  return { togglePause };
}
