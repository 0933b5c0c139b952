// Shows times as the reader likes them: how long ago, by the local clock, or in UTC; the others are in the title.

const CHOICE = "replayforge.times";
const WAYS = ["ago", "local", "UTC"];
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

let way = remembered();

function remembered() {
  try {
    const kept = localStorage.getItem(CHOICE);
    return WAYS.includes(kept) ? kept : WAYS[0];
  } catch { return WAYS[0]; }
}

function relative(seconds) {
  const distance = Math.abs(seconds);
  if (distance < 1) return "now";
  const [size, unit] = UNITS.find(([least]) => distance >= least);
  const text = `${Math.floor(distance / size)} ${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

function utc(at) {
  return `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

export function showTimes(root = document) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const ways = { ago: relative((now - at) / 1000), local: at.toLocaleString(), UTC: utc(at) };
    if (element.textContent !== ways[way]) element.textContent = ways[way];
    const title = WAYS.filter((other) => other !== way).map((other) => ways[other]).join(" · ");
    if (element.title !== title) element.title = title;
  }
}

function next(button) {
  way = WAYS[(WAYS.indexOf(way) + 1) % WAYS.length];
  try { localStorage.setItem(CHOICE, way); } catch { /* not kept */ }
  name(button);
  showTimes();
}

function name(button) {
  button.textContent = `Times: ${way}`;
}

export function startTimes() {
  const button = document.getElementById("times");
  if (button) {
    button.hidden = false;
    name(button);
    button.addEventListener("click", () => next(button));
  }
  showTimes();
  setInterval(() => { if (!document.hidden) showTimes(); }, 1000);
}
