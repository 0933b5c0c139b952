// Shows times relative to now, with the full time in the title.

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function relative(seconds) {
  const distance = Math.abs(seconds);
  if (distance < 1) return "now";
  const [size, unit] = UNITS.find(([least]) => distance >= least);
  const text = `${Math.floor(distance / size)} ${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

export function showTimes(root = document) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = Date.parse(element.dateTime);
    if (Number.isNaN(at)) continue;
    const text = relative((now - at) / 1000);
    if (element.textContent !== text) element.textContent = text;
    const title = `${new Date(at).toLocaleString()} (${element.dateTime})`;
    if (element.title !== title) element.title = title;
  }
}

export function startTimes() {
  showTimes();
  setInterval(() => { if (!document.hidden) showTimes(); }, 1000);
}
