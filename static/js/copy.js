// Adds a copy button to what is worth copying; on plain http away from localhost it selects instead.

async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(element);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
  }
}

function addButtons(root) {
  for (const element of root.querySelectorAll("[data-copy]")) {
    if (element.previousElementSibling?.matches(".copy")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy small";
    button.textContent = "Copy";
    button.addEventListener("click", async () => { button.textContent = await copy(element.textContent, element); });
    element.before(button);
  }
}

export function startCopy() {
  addButtons(document);
  document.addEventListener("swapped", (event) => addButtons(event.target));
}
