// Asks in a dialog what the confirm page would ask, with the very same form; Escape and Back close it.

const dialog = document.getElementById("dialog");

export function openDialog(content) {
  dialog.replaceChildren(content);
  if (!dialog.open) dialog.showModal();
}

function target(button) {
  const form = button.form;
  const url = new URL(button.getAttribute("formaction") ?? form.getAttribute("action"), location.href);
  const fields = new FormData(form);
  for (const [name, value] of fields) url.searchParams.append(name, value);
  return url;
}

async function ask(button) {
  const url = target(button);
  const response = await fetch(url, { headers: { "X-Live-Regions": "confirm" } });
  if (!response.ok) { location.assign(url); return; }
  const template = document.createElement("template");
  template.innerHTML = (await response.json()).regions.confirm;
  openDialog(template.content);
}

export function startDialogs() {
  if (!dialog?.showModal) return;
  document.addEventListener("submit", (event) => {
    if (event.target.closest("dialog")) {
      // A second click while the first is on its way does nothing.
      for (const button of event.target.querySelectorAll("button")) button.disabled = true;
      return;
    }
    if (!event.submitter?.matches("[data-dialog]")) return;
    event.preventDefault();
    ask(event.submitter).catch(() => location.assign(target(event.submitter)));
  });
  dialog.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) { event.preventDefault(); dialog.close(); }
  });
}
