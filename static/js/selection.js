// Counts ticked rows, ticks a whole page, and ticks a range with Shift.

let last = null;

const ticks = () => [...document.querySelectorAll("td.tick input[type=checkbox]")];

function count() {
  const bulk = document.getElementById("bulk");
  const number = ticks().filter((tick) => tick.checked).length;
  bulk.classList.toggle("some", number > 0);
  document.getElementById("bulk-count").textContent = number ? `${number} chosen:` : "Choose events, then:";
  for (const button of bulk.querySelectorAll("button:not([data-locked])")) button.disabled = number === 0;
  const all = document.getElementById("tick-all");
  all.checked = number > 0 && number === ticks().length;
  all.indeterminate = number > 0 && number < ticks().length;
}

function tickRange(to) {
  const boxes = ticks();
  const [first, second] = [boxes.indexOf(last), boxes.indexOf(to)].sort((a, b) => a - b);
  for (const box of boxes.slice(first, second + 1)) box.checked = to.checked;
}

export function startSelection() {
  const all = document.getElementById("tick-all");
  if (!all) return;
  all.closest("label").hidden = false;
  all.addEventListener("change", () => { for (const tick of ticks()) tick.checked = all.checked; count(); });
  document.addEventListener("click", (event) => {
    if (!event.target.matches?.("td.tick input")) return;
    if (event.shiftKey && last?.isConnected) tickRange(event.target);
    last = event.target;
    count();
  });
  document.addEventListener("change", (event) => { if (event.target.matches?.("td.tick input")) count(); });
  document.addEventListener("swapped", count);
  addEventListener("pageshow", count);
  count();
}
