// Keeps filters that somebody wants to come back to, by name, in this browser.

const KEPT = "replayforge.views";

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    return kept.filter(({ name, query }) => typeof name === "string" && typeof query === "string");
  } catch { return []; }
}

function write(views) {
  try { localStorage.setItem(KEPT, JSON.stringify(views)); } catch { /* not kept */ }
}

// A filter is kept without the page of the list that was open.
function queryNow() {
  const query = new URLSearchParams(location.search);
  query.delete("cursor");
  for (const [name, value] of [...query]) if (!value) query.delete(name);
  return query.toString();
}

function item({ name, query }) {
  const row = document.createElement("li");
  const open = Object.assign(document.createElement("a"), { href: `?${query}`, textContent: name });
  open.dataset.command = `View: ${name}`;
  if (query === queryNow()) open.setAttribute("aria-current", "true");
  const forget = Object.assign(document.createElement("button"), { type: "button", className: "small", textContent: "×", title: "Forget it" });
  forget.ariaLabel = `Forget the view ${name}`;
  forget.addEventListener("click", () => { write(read().filter((one) => one.name !== name)); show(); });
  row.append(open, forget);
  return row;
}

function show() {
  const list = document.getElementById("views");
  const views = read();
  list.replaceChildren(...views.map(item));
  list.hidden = views.length === 0;
}

export function startSavedViews() {
  const menu = document.getElementById("save-view");
  if (!menu) return;
  menu.hidden = false;
  show();
  menu.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = event.target.elements.name.value.trim();
    if (!name) return;
    write([...read().filter((one) => one.name !== name), { name, query: queryNow() }]);
    menu.open = false;
    event.target.reset();
    show();
  });
}
