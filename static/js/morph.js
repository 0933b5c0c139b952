// Makes an element look like new HTML while keeping what the reader did to it: focus, ticks, open details, scroll.

function key(node) {
  return node.nodeType === Node.ELEMENT_NODE && node.id ? node.id : null;
}

function alike(before, after) {
  return before.nodeType === after.nodeType && before.nodeName === after.nodeName && key(before) === key(after);
}

function keeps(element, name) {
  return (name === "open" && element.nodeName === "DETAILS")
    || (element.nodeName === "INPUT" && element.type !== "hidden" && (name === "checked" || name === "value"))
    || (name === "class" && element.classList.contains("current"));
}

function copyAttributes(before, after) {
  for (const { name, value } of after.attributes) {
    if (before.getAttribute(name) !== value && !keeps(before, name)) before.setAttribute(name, value);
  }
  for (const { name } of [...before.attributes]) {
    if (!after.hasAttribute(name) && !keeps(before, name)) before.removeAttribute(name);
  }
}

function update(before, after) {
  if (before.nodeType === Node.TEXT_NODE) {
    if (before.data !== after.data) before.data = after.data;
    return;
  }
  if (before.nodeType !== Node.ELEMENT_NODE) return;
  if (before.nodeName === "TIME" && before.dateTime === after.dateTime) return;
  copyAttributes(before, after);
  morph(before, after);
}

export function morph(before, after) {
  const keyed = new Map();
  for (const child of before.children) if (key(child)) keyed.set(key(child), child);
  let at = before.firstChild;
  for (const wanted of [...after.childNodes]) {
    const known = key(wanted) ? keyed.get(key(wanted)) : null;
    if (known && known !== at) before.insertBefore(known, at);
    if (known) {
      update(known, wanted);
      at = known.nextSibling;
    } else if (at && !key(at) && alike(at, wanted)) {
      update(at, wanted);
      at = at.nextSibling;
    } else {
      before.insertBefore(wanted, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
