// Copies what is worth copying; where the browser keeps its clipboard to itself, as on plain http, the old way.

const SAID_MS = 2000;
const labels = new WeakMap();

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return writeBySelection(text);
  }
}

function writeBySelection(text) {
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "hidden";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return done;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// What a button offers: the text of an element, a link, a command line that asks for it, or what it leads to.
const TEXTS = {
  text: (id) => document.getElementById(id).textContent,
  link: (path) => new URL(path, location.href).href,
  curl: (path) => `curl ${document.body.dataset.keyed ? "-H \"X-API-Key: $REPLAYFORGE_API_KEY\" " : ""}${quoted(new URL(path, location.href).href)}`,
  fetched: async (path) => {
    const response = await fetch(path, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(response.statusText);
    return response.text();
  },
};

async function copy(button) {
  if (!labels.has(button)) labels.set(button, button.textContent);
  try {
    const done = await write(await TEXTS[button.dataset.copies](button.dataset.from));
    button.textContent = done ? "Copied" : "Not allowed here";
  } catch {
    button.textContent = "Not there";
  }
  setTimeout(() => { button.textContent = labels.get(button); }, SAID_MS);
}

function show(root) {
  for (const button of root.querySelectorAll("button[data-copies][hidden]")) button.hidden = false;
}

export function startCopy() {
  show(document);
  document.addEventListener("swapped", (event) => show(event.target));
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button[data-copies]");
    if (button) copy(button);
  });
}
